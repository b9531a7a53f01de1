// The frame around the pages: who is signed in, where the visitor is, how the connection is.
import { computed, effect, html, render, useEffect, useRef, useSignal } from './lib.js'
import { get, refused, signIn, signOut, token, who } from './api.js'
import { connection, loaded, retry, storeAway, totals } from './live.js'
import { link, route } from './route.js'
import { now } from './clock.js'
import { count, money, percent, span } from './format.js'
import { Icon, Logo, Note, Toasts, useResource } from './ui.js'
import { List } from './pages/list.js'
import { Sandbox } from './pages/sandbox.js'
import { Savings } from './pages/savings.js'
import { Runs } from './pages/runs.js'
import { Policies } from './pages/policies.js'
import { Status } from './pages/status.js'

const pages = [
	{ path: '/', name: 'Sandboxes', icon: 'list', page: List },
	{ path: '/savings', name: 'Savings', icon: 'chart', page: Savings },
	{ path: '/runs', name: 'Runs', icon: 'pulse', page: Runs },
	{ path: '/policies', name: 'Policies', icon: 'sliders', page: Policies },
	{ path: '/status', name: 'Status', icon: 'server', page: Status },
]

const current = computed(() => {
	const [first, id] = route.value.parts
	if (first === 'sandboxes' && id) return { ...pages[0], page: Sandbox, id, title: id }
	return pages.find(p => p.path === `/${first ?? ''}`) ?? { name: 'Not found', page: NotFound }
})

effect(() => { document.title = `${current.value.title ?? current.value.name} · Sandman` })

function App() {
	if (!token.value) return html`<${SignIn} /><${Toasts} />`
	const { page: Page, id } = current.value
	return html`
		<a class="skip" href="#main" onClick=${event => { event.preventDefault(); document.getElementById('main').focus() }}>Skip to the page</a>
		<div class="frame">
			<${Side} />
			<div class="body">
				<div class="banners"><${Connection} /><${Trouble} /></div>
				<main id="main" tabindex="-1"><${Page} key=${id ?? route.value.path} id=${id} /></main>
			</div>
		</div>
		<${Toasts} />`
}

function Side() {
	return html`
		<aside class="side">
			<a class="brand" href=${link('/')}><${Logo} /><span>Sandman</span></a>
			<nav aria-label="Pages">
				${pages.map(p => html`
					<a key=${p.path} href=${link(p.path)} aria-current=${current.value.path === p.path ? 'page' : undefined}>
						<${Icon} name=${p.icon} /><span>${p.name}</span>
						${p.path === '/' && loaded.value && html`<b class="counter" aria-hidden="true">${count(Object.values(totals.value).reduce((a, b) => a + b) - totals.value.KILLED)}</b>`}
					</a>`)}
			</nav>
			<div class="side-end">
				<${SavedToday} />
				<${Live} />
				<div class="me">
					${who.value && html`<span class="who" title=${who.value.owner ? `sees only what is ${who.value.owner}’s` : ''}><b>${who.value.name}</b>${who.value.role === who.value.name ? '' : ` ${who.value.role}`}${who.value.owner ? ` of ${who.value.owner}` : ''}</span>`}
					<${Theme} />
					<button type="button" class="button ghost icon-only" onClick=${() => signOut()} aria-label="Sign out" title="Sign out"><${Icon} name="out" /></button>
				</div>
			</div>
		</aside>`
}

function SavedToday() {
	const { data, missing } = useResource('savings', { every: 60_000 })
	if (missing || !data?.total) return null
	const { saved, alwaysOnCost, alwaysOnMs, pausedMs } = data.total
	const priced = data.pricePerMinute > 0
	return html`
		<a class="saved" href=${link('/savings')}>
			<span>Saved today</span>
			<b>${priced ? money(saved, data.currency) : span(pausedMs)}</b>
			<span class="faint">${percent(priced ? saved : pausedMs, priced ? alwaysOnCost : alwaysOnMs)} of always on</span>
		</a>`
}

const live = {
	connecting: { text: 'Connecting…', kind: 'wait' },
	live: { text: 'Live', kind: 'ok' },
	polling: { text: 'Updated every 5 s', kind: 'ok' },
	lost: { text: 'Offline', kind: 'bad' },
}

function Live() {
	const { state } = connection.value
	const { text, kind } = storeAway.value && state !== 'lost' ? { text: 'Nothing is paused', kind: 'bad' } : live[state]
	return html`<div class=${`live ${kind}`} title=${text}><i aria-hidden="true"></i>${text}</div>`
}

// Connection is the banner while nothing is heard. What was known stays on the page.
function Connection() {
	const { state, since, retryAt, why } = connection.value
	if (state !== 'lost') return null
	const wait = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000)) || 0
	return html`
		<div class="banner" role="alert">
			<${Icon} name="unplug" />
			<div><b>Sandman can’t be reached.</b> ${why && !/reached/.test(why) ? `${why} ` : ''}
				${loaded.value ? html`What is shown is <span class="tabular">${span(now.value - since)}</span> old. ` : ''}
				Sandboxes don’t depend on this page.</div>
			<button type="button" class="button small" onClick=${retry}>${wait > 0 ? `Try now (in ${wait} s)` : 'Trying…'}</button>
		</div>`
}

// Trouble is the banner while Sandman answers, but can't do its work.
function Trouble() {
	const { data } = useResource('status', { every: 10_000, deps: [storeAway.value] })
	if (connection.value.state === 'lost' || !data) return null
	const hosts = data.hosts.filter(h => !h.ok)
	if (data.store.ok && !storeAway.value && !hosts.length) return null
	return html`
		<div class="banner" role="alert">
			<${Icon} name="alert" />
			<div>
				${storeAway.value || !data.store.ok ? html`<p><b>The session store can’t be ${/no writes|quota|space/.test(data.store.error ?? '') ? 'written to' : 'reached'}.</b> Nothing is paused until it is back. What is shown may be old.</p>` : ''}
				${hosts.map(h => html`<p key=${h.name}><b>The host ${h.name} does not answer as it should.</b> Its sandboxes can’t be paused or woken.</p>`)}
			</div>
			<a class="button small" href=${link('/status')}>Status</a>
		</div>`
}

const themes = { '': ['half', 'the system’s'], dark: ['moon', 'dark'], light: ['sun', 'light'] }

function Theme() {
	const theme = useSignal(document.documentElement.dataset.theme ?? '')
	const next = { '': 'dark', dark: 'light', light: '' }[theme.value]
	const choose = () => {
		theme.value = next
		if (next) document.documentElement.dataset.theme = next
		else delete document.documentElement.dataset.theme
		try {
			if (next) localStorage.setItem('sandman.theme', next)
			else localStorage.removeItem('sandman.theme')
		} catch { /* then it holds until the page is left */ }
		dispatchEvent(new Event('themechange'))
	}
	const label = `Theme: ${themes[theme.value][1]}. Change to ${themes[next][1]}`
	return html`<button type="button" class="button ghost icon-only" onClick=${choose} aria-label=${label} title=${label}><${Icon} name=${themes[theme.value][0]} /></button>`
}

function SignIn() {
	const error = useSignal(refused.value)
	const busy = useSignal(false)
	const input = useRef()
	useEffect(() => { input.current?.focus() }, [])
	const submit = async event => {
		event.preventDefault()
		const secret = new FormData(event.target).get('token').trim()
		if (!secret) return
		busy.value = true
		error.value = ''
		signIn(secret) // a wrong one is signed out again by its first answer
		try {
			await get('status')
		} catch (err) {
			if (err.status !== 401) return // the frame says so
		}
		busy.value = false
	}
	return html`
		<main class="signin" id="main">
			<form onSubmit=${submit}>
				<${Logo} />
				<h1>Sign in to Sandman</h1>
				<p class="faint">With a token of the configuration. It stays in this tab and is forgotten with it.</p>
				${error.value && html`<${Note} kind="error" role="alert">${error.value}</${Note}>`}
				<label for="token">Token</label>
				<input id="token" ref=${input} name="token" type="password" autocomplete="off" spellcheck="false" required />
				<button class="button primary wide" aria-busy=${busy.value ? 'true' : undefined}>Sign in</button>
				<p class="faint small">Where it is: <code>.sandman/token</code> in the folder that Sandman runs in, unless <code>SANDMAN_TOKEN</code> or the Caddyfile set another one.</p>
			</form>
		</main>`
}

const NotFound = () => html`<div class="page"><h1>There is no such page</h1><p><a href=${link('/')}>All sandboxes</a></p></div>`

// a new page begins at its top, with the focus on it for who can't see that it changed
let shown = route.value.path
effect(() => {
	const { path } = route.value
	if (path === shown) return
	shown = path
	queueMicrotask(() => {
		document.getElementById('main')?.focus({ preventScroll: true })
		scrollTo(0, 0)
	})
})

render(html`<${App} />`, document.getElementById('app'))
