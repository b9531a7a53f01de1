// The parts that pages are made of.
import { html, signal, useEffect, useRef, useSignal } from './lib.js'
import { APIError, call, who, whyNot } from './api.js'
import { now, serverNow } from './clock.js'
import { ago, clock, fullTime, hourMinute, span } from './format.js'

const paths = {
	play: 'M5 3.5v9l7.500-4.500z',
	pause: 'M5.500 3.500v9M10.500 3.500v9',
	moon: 'M13 9.300A5.500 5.500 0 1 1 6.700 3a4.400 4.400 0 0 0 6.300 6.300z',
	sun: 'M8 5.200a2.800 2.800 0 1 0 0 5.600 2.800 2.800 0 0 0 0-5.600zM8 1.500v1M8 13.500v1M1.500 8h1M13.500 8h1M3.400 3.400l.7.7M11.900 11.900l.7.7M3.400 12.600l.7-.7M11.900 4.100l.7-.7',
	half: 'M8 2.500a5.500 5.500 0 1 0 0 11zM8 2.500a5.500 5.500 0 1 1 0 11',
	cup: 'M3 6h8v3.500A3.500 3.500 0 0 1 7.500 13h-1A3.500 3.500 0 0 1 3 9.500zM11 7h1.200a1.600 1.600 0 0 1 0 3.200H11M5.500 2v1.500M8.500 2v1.500',
	search: 'M7 2.500a4.500 4.500 0 1 0 0 9 4.500 4.500 0 0 0 0-9zM10.300 10.300l3.200 3.200',
	list: 'M2.500 4h11M2.500 8h11M2.500 12h11',
	chart: 'M2.500 13.500h11M4.500 11V8M8 11V3.500M11.500 11V6',
	pulse: 'M1.500 8h3l2-5 3 10 2-5h3',
	sliders: 'M2.500 5h6M12 5h1.500M2.500 11H4M7.500 11h6M10.200 3.200a1.800 1.800 0 1 0 0 3.600 1.800 1.800 0 0 0 0-3.600zM5.800 9.200a1.800 1.800 0 1 0 0 3.600 1.800 1.800 0 0 0 0-3.600z',
	server: 'M2.500 2.500h11v4.500h-11zM2.500 9h11v4.500h-11zM5 4.800h.1M5 11.300h.1',
	out: 'M6.500 2.500h-4v11h4M6 8h7.500M10.500 5l3 3-3 3',
	cross: 'M4 4l8 8M12 4l-8 8',
	check: 'M3 8.500l3.200 3.200L13 4.800',
	plus: 'M8 3v10M3 8h10',
	copy: 'M5.500 5.500h8v8h-8zM10.500 5.500v-3h-8v8h3',
	alert: 'M8 2.200l6.300 11.300H1.700zM8 6.500v3.200M8 11.600v.1',
	clock: 'M8 2.500a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11zM8 5v3l2 1.500',
	chevron: 'M6 3.500L10.500 8 6 12.500',
	back: 'M10 3.500L5.500 8 10 12.500',
	trash: 'M3 4.500h10M6.500 4.500v-2h3v2M4.500 4.500l.6 9h5.800l.6-9',
	lock: 'M4 7h8v6.500H4zM5.500 7V5a2.500 2.500 0 0 1 5 0v2',
	unplug: 'M2 2l12 12M6 3v3M10 3v2M4.500 6h5M11.500 6v2a3.500 3.500 0 0 1-.6 2M8.500 11.400A3.500 3.500 0 0 1 4.500 8V6M8 11.500V14',
	spin: 'M8 2.500a5.500 5.500 0 1 1-5.500 5.500',
	inbox: 'M2.500 9l2-6h7l2 6v4.500h-11zM2.500 9h3.200l1 1.800h2.600l1-1.800h3.200',
}

export const Icon = ({ name, spin }) => html`
	<svg class=${`icon ${spin ? 'spin' : ''}`} viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d=${paths[name]} /></svg>`

export const Logo = () => html`
	<svg class="logo" viewBox="0 0 32 32" aria-hidden="true" focusable="false"><rect width="32" height="32" rx="8" /><path d="M22.6 18.900A8 8 0 0 1 13.100 9.400a8 8 0 1 0 9.500 9.500z" /></svg>`

export const states = {
	RUNNING: { name: 'Running', icon: 'play' },
	PAUSING: { name: 'Pausing…', icon: 'spin', busy: true },
	PAUSED: { name: 'Paused', icon: 'moon' },
	RESUMING: { name: 'Waking…', icon: 'spin', busy: true },
	KILLED: { name: 'Ended', icon: 'cross' },
}

export function State({ state, large }) {
	const s = states[state] ?? { name: state, icon: 'alert' }
	return html`<span class=${`state state-${state} ${large ? 'large' : ''}`}><${Icon} name=${s.icon} spin=${s.busy} />${s.name}</span>`
}

// Ago is a time as people say it, with the exact one to look up.
export function Ago({ at, never = 'never' }) {
	if (!at) return html`<span class="faint">${never}</span>`
	return html`<time datetime=${at} title=${fullTime(at)}>${ago(now.value - Date.parse(at))}</time>`
}

export const For = ({ since }) => html`<time datetime=${since} title=${`since ${fullTime(since)}`}>${span(now.value - Date.parse(since))}</time>`

// Countdown counts to a time. It is a timer for screen readers too, which stays silent until it is asked.
export function Countdown({ until, over = 'any moment' }) {
	const left = Date.parse(until) - now.value
	return html`<span role="timer" class=${`countdown ${left < 60_000 ? 'soon' : ''}`} title=${fullTime(until)}>${left > 0 ? clock(left) : over}</span>`
}

export const CountdownOf = ({ sb }) => {
	if (sb.state === 'RUNNING' && sb.storeAway) return html`<span class="faint" title=${sb.awakeBecause?.join('\n') || ''}>not paused now</span>`
	if (sb.state === 'RUNNING' && sb.pauseAt) return html`<${Countdown} until=${sb.pauseAt} />`
	const until = Math.max(...(sb.holds ?? []).map(h => Date.parse(h.expiresAt)))
	if (sb.state === 'RUNNING' && until > now.value) return html`<span class="kept" title=${sb.awakeBecause?.join('\n') || ''}>kept until ${hourMinute(until)}</span>`
	if (sb.state === 'RUNNING') return html`<span class="kept" title=${sb.awakeBecause?.join('\n') || ''}>${sb.awakeBecause?.length ? 'in use' : '–'}</span>`
	if (sb.state === 'PAUSED') return html`<span class="faint">asleep for <${For} since=${sb.since} /></span>`
	return html`<span class="faint"><${For} since=${sb.since} /></span>`
}

// Button waits for what it does, and says by toast when that fails. Role is what its work takes.
export function Button({ children, icon, act, role = 'viewer', kind = '', disabled, reason, label, describedby, type = 'button' }) {
	const busy = useSignal(false)
	const no = whyNot(role) || (disabled && reason) || ''
	const press = async () => {
		if (busy.value) return
		busy.value = true
		try {
			await act()
		} catch (err) {
			toast(err.message, 'error')
		} finally {
			busy.value = false
		}
	}
	return html`
		<button type=${type} class=${`button ${kind}`} onClick=${act && press} disabled=${disabled || !!whyNot(role)} title=${no || undefined}
			aria-busy=${busy.value ? 'true' : undefined} aria-label=${label} aria-describedby=${describedby}>
			${(icon || busy.value) && html`<${Icon} name=${busy.value ? 'spin' : icon} spin=${busy.value} />`}${children}
		</button>`
}

export function CopyButton({ text, what }) {
	const done = useSignal(false)
	const copy = async () => {
		try {
			await navigator.clipboard.writeText(text)
			done.value = true
			setTimeout(() => { done.value = false }, 1500)
		} catch {
			toast('The browser does not let this page copy.', 'error')
		}
	}
	return html`<button type="button" class="button ghost icon-only" onClick=${copy} aria-label=${done.value ? 'Copied' : `Copy ${what}`} title=${`Copy ${what}`}><${Icon} name=${done.value ? 'check' : 'copy'} /></button>`
}

// Section is a part of a page with a heading of its own.
export function Section({ title, children, aside, kind = '', id }) {
	return html`
		<section class=${`card ${kind}`} aria-labelledby=${id}>
			<header><h2 id=${id}>${title}</h2>${aside && html`<div class="aside">${aside}</div>`}</header>
			${children}
		</section>`
}

// Empty stands in a page that has a heading already, unless it is told that it is the page's own: level 1.
export const Empty = ({ icon = 'inbox', title, level = 2, children }) => html`
	<div class="empty"><${Icon} name=${icon} />${level === 1 ? html`<h1>${title}</h1>` : html`<h2>${title}</h2>`}<div>${children}</div></div>`

export const Note = ({ kind = '', icon = 'alert', children, role }) => html`<div class=${`note ${kind}`} role=${role}><${Icon} name=${icon} /><div>${children}</div></div>`

// Failure says what went wrong and what stays true meanwhile.
export function Failure({ error, retry, at }) {
	return html`<${Note} kind="error" role="alert">${error.message}
		${at ? html` What is shown is from <${Ago} at=${at} />.` : ''}
		${retry && html` <button type="button" class="link" onClick=${retry}>Try again</button>`}</${Note}>`
}

export const Loading = ({ what = 'Loading…' }) => html`<div class="loading" role="status"><${Icon} name="spin" spin />${what}</div>`

// useResource reads something of the API, again when deps change and each `every` ms. What was read stays
// when it can't be read again. {data, error, missing, at, reload}; missing: this Sandman has no such route.
export function useResource(path, { query, every, deps = [] } = {}) {
	const state = useSignal({ data: null, etag: null, error: null, missing: false, at: null })
	const reload = useRef(async () => {})
	useEffect(() => {
		if (!path) return
		const ender = new AbortController()
		let timer
		reload.current = async () => {
			clearTimeout(timer)
			try {
				const { data, etag } = await call('GET', path, { query, signal: ender.signal })
				if (!ender.signal.aborted) state.value = { data, etag, error: null, missing: false, at: new Date(serverNow()).toISOString() }
			} catch (err) {
				if (ender.signal.aborted) return
				const error = err instanceof APIError ? err : new APIError(0, { detail: String(err) })
				state.value = { ...state.value, error, missing: error.isMissingRoute }
			}
			if (every && !ender.signal.aborted && !state.value.missing) timer = setTimeout(reload.current, every)
		}
		reload.current()
		return () => {
			ender.abort()
			clearTimeout(timer)
		}
	}, [path, JSON.stringify(query ?? null), every, who.value?.name, ...deps])
	return { ...state.value, reload: () => reload.current() }
}

// Toasts are what happened, for a while, read out by screen readers.
const toasts = signal([])
let lastToast = 0

export function toast(text, kind = 'done', action) {
	const id = ++lastToast
	toasts.value = [...toasts.value.filter(t => t.kind === 'error').slice(-2), { id, text, kind, action }]
	setTimeout(() => dismiss(id), action ? 20_000 : kind === 'error' ? 10_000 : 4000)
}
const dismiss = id => { toasts.value = toasts.value.filter(t => t.id !== id) }

export const Toasts = () => html`
	<div class="toasts" role="status" aria-live="polite">
		${toasts.value.map(t => html`
			<div key=${t.id} class=${`toast ${t.kind}`}><${Icon} name=${t.kind === 'error' ? 'alert' : 'check'} /><span>${t.text}</span>
				${t.action && html`<button type="button" class="button small" onClick=${() => { dismiss(t.id); t.action.act() }}>${t.action.name}</button>`}
				<button type="button" class="button ghost icon-only" aria-label="Dismiss" onClick=${() => dismiss(t.id)}><${Icon} name="cross" /></button>
			</div>`)}
	</div>`

// Dialog is the browser's own, which keeps the focus inside and gives it back.
export function Dialog({ title, onClose, children }) {
	const element = useRef()
	useEffect(() => { element.current.showModal() }, [])
	return html`
		<dialog ref=${element} class="dialog" aria-labelledby="dialog-title" onClose=${onClose}
			onClick=${event => event.target === element.current && element.current.close()}>
			<div class="dialog-body"><h2 id="dialog-title">${title}</h2>${children}</div>
		</dialog>`
}

// Choice is a small group of radio buttons that looks like one switch.
export const Choice = ({ legend, name, value, options, onChange, kind = '' }) => html`
	<fieldset class=${`choice ${kind}`}><legend class="sr">${legend}</legend>
		${options.map(o => html`<label key=${o.value} class=${o.value === value ? 'on' : ''}>
			<input type="radio" name=${name} value=${o.value} checked=${o.value === value} onChange=${() => onChange(o.value)} />
			${o.icon && html`<${Icon} name=${o.icon} />`}<span>${o.name}</span>${o.count !== undefined && html`<b>${o.count}</b>`}</label>`)}
	</fieldset>`
