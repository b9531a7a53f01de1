// <sandman-badge>: the state of one sandbox, for a page of your own product. One file that loads no other.
//
//   <script type="module" src="https://sandman.example.com/badge.js"></script>
//   <sandman-badge sandbox="i4iqeeqsdwjexhv2us927" token="sbt_…"></sandman-badge>
//
// Attributes, each also a property:
//   sandbox   the sandbox's ID
//   token     a badge token, made by your server with POST /api/v1/sandboxes/{id}/tokens; never another one:
//             it can be read by everybody who can read the page
//   url       where Sandman is. Default: where this file came from. Another origin than the page's needs
//             allow_origin in Sandman's configuration
//   actions   what is offered of pause, resume and keep-awake, if the token may do it. Default: all three.
//             "" offers none
//   keep-for  how long Keep awake keeps it, as a duration. Default: 1h
//   lang      the language of its words, or of the page: de, en, es, fr, ja, zh. Default: en
//   text-…    words of your own, such as text-paused="schläft" text-sleeps-in="schläft in {time}"; as a
//             property strings = { paused: 'schläft', sleepsIn: 'schläft in {time}' }
//
// Properties only:
//   renew     an async function that returns a new token, called when the old one has expired
//   state     RUNNING, PAUSING, PAUSED, RESUMING, KILLED, or "" while it is not known
//
// Events: sandman-state, with detail { state, sandbox }, whenever the state changes; sandman-error, with
// detail { status, message }.
//
// Looks: the variables --sandman-font, -color, -faint, -background, -border, -radius, -accent, -running, -paused,
// -busy and -error, and the parts badge, icon, state, detail, countdown, button, pause, resume, keep-awake.

// What the server says itself is English. In another language its reason for a sleep is shown only where
// there are words for it.
const words = {
	running: 'Running', pausing: 'Pausing…', paused: 'Paused', resuming: 'Waking…', killed: 'Ended', unknown: 'Sandbox',
	sleepsIn: 'sleeps in {time}', inUse: 'in use', becauseOf: 'because {reason}', keptUntil: 'kept awake until {time}',
	idleFor: 'because idle for {time}', byHand: 'because paused by hand', storeAway: 'stays awake for now: the session store can’t be reached',
	pause: 'Pause', resume: 'Resume', keepAwake: 'Keep awake', letSleep: 'Let it sleep',
	unreachable: 'can’t be reached, as of {time}', expired: 'this view has expired: reload the page', refused: 'no access: reload the page',
	denied: 'not allowed here', missing: 'no such sandbox', failed: 'did not work: {reason}', inUseNow: 'in use: {reason}',
}
const languages = {
	__proto__: null, en: words,
	de: {
		running: 'Läuft', pausing: 'Schläft ein…', paused: 'Pausiert', resuming: 'Wacht auf…', killed: 'Beendet', unknown: 'Sandbox',
		sleepsIn: 'schläft in {time}', inUse: 'in Gebrauch', keptUntil: 'wach gehalten bis {time}',
		idleFor: 'weil {time} unbenutzt', byHand: 'von Hand pausiert', storeAway: 'bleibt vorerst wach: der Sitzungsspeicher ist nicht erreichbar',
		pause: 'Pausieren', resume: 'Fortsetzen', keepAwake: 'Wach halten', letSleep: 'Schlafen lassen',
		unreachable: 'nicht erreichbar, Stand {time}', expired: 'diese Ansicht ist abgelaufen: Seite neu laden', refused: 'kein Zugang: Seite neu laden',
		denied: 'hier nicht erlaubt', missing: 'keine solche Sandbox', failed: 'hat nicht geklappt: {reason}', inUseNow: 'in Gebrauch: {reason}',
	},
	fr: {
		running: 'En marche', pausing: 'Mise en pause…', paused: 'En pause', resuming: 'Réveil…', killed: 'Terminée', unknown: 'Sandbox',
		sleepsIn: 's’endort dans {time}', inUse: 'utilisée', keptUntil: 'gardée éveillée jusqu’à {time}',
		idleFor: 'car inutilisée pendant {time}', byHand: 'mise en pause à la main', storeAway: 'reste éveillée pour l’instant : le stockage des sessions est injoignable',
		pause: 'Mettre en pause', resume: 'Reprendre', keepAwake: 'Garder éveillée', letSleep: 'Laisser dormir',
		unreachable: 'injoignable, état à {time}', expired: 'cette vue a expiré : rechargez la page', refused: 'accès refusé : rechargez la page',
		denied: 'non autorisé ici', missing: 'sandbox introuvable', failed: 'échec : {reason}', inUseNow: 'utilisée : {reason}',
	},
	es: {
		running: 'En marcha', pausing: 'Pausando…', paused: 'En pausa', resuming: 'Despertando…', killed: 'Terminado', unknown: 'Sandbox',
		sleepsIn: 'se duerme en {time}', inUse: 'en uso', keptUntil: 'despierto hasta las {time}',
		idleFor: 'por {time} sin uso', byHand: 'pausado a mano', storeAway: 'sigue despierto por ahora: no se puede acceder al almacén de sesiones',
		pause: 'Pausar', resume: 'Reanudar', keepAwake: 'Mantener despierto', letSleep: 'Dejar dormir',
		unreachable: 'no disponible, estado de las {time}', expired: 'esta vista ha caducado: recargue la página', refused: 'sin acceso: recargue la página',
		denied: 'no permitido aquí', missing: 'no existe este sandbox', failed: 'no ha funcionado: {reason}', inUseNow: 'en uso: {reason}',
	},
	ja: {
		running: '実行中', pausing: '一時停止中…', paused: '一時停止', resuming: '再開中…', killed: '終了', unknown: 'サンドボックス',
		sleepsIn: '{time} 後にスリープ', inUse: '使用中', keptUntil: '{time} まで起動を維持',
		idleFor: '{time} 使用されなかったため', byHand: '手動で停止', storeAway: 'セッションストアに接続できないため、当面は停止しません',
		pause: '一時停止', resume: '再開', keepAwake: '起動を維持', letSleep: 'スリープを許可',
		unreachable: '接続できません（{time} 時点）', expired: '表示の有効期限が切れました。ページを再読み込みしてください', refused: 'アクセスできません。ページを再読み込みしてください',
		denied: 'ここでは許可されていません', missing: 'サンドボックスがありません', failed: '失敗しました: {reason}', inUseNow: '使用中: {reason}',
	},
	zh: {
		running: '运行中', pausing: '正在暂停…', paused: '已暂停', resuming: '正在唤醒…', killed: '已结束', unknown: '沙盒',
		sleepsIn: '{time} 后休眠', inUse: '使用中', keptUntil: '保持唤醒至 {time}',
		idleFor: '因闲置 {time}', byHand: '已手动暂停', storeAway: '暂时保持唤醒：无法连接会话存储',
		pause: '暂停', resume: '恢复', keepAwake: '保持唤醒', letSleep: '允许休眠',
		unreachable: '无法连接（截至 {time}）', expired: '此视图已过期，请重新加载页面', refused: '无法访问，请重新加载页面',
		denied: '此处不允许', missing: '没有此沙盒', failed: '未成功：{reason}', inUseNow: '使用中：{reason}',
	},
}

// what each button takes of a token
const needs = { pause: 'pause', resume: 'resume', 'keep-awake': 'hold' }

const icons = {
	RUNNING: ['M5 3.500v9l7.500-4.500z', true], PAUSED: ['M13 9.300A5.500 5.500 0 1 1 6.700 3a4.400 4.400 0 0 0 6.300 6.300z', true],
	PAUSING: ['M8 2.500a5.500 5.500 0 1 1-5.500 5.500'], RESUMING: ['M8 2.500a5.500 5.500 0 1 1-5.500 5.500'],
	KILLED: ['M4 4l8 8M12 4l-8 8'], '': ['M8 4v5M8 11.800v.1'],
}

const css = `
:host { display: inline-block; max-width: 100%; color-scheme: light dark; }
:host([hidden]) { display: none; }
.badge { display: inline-flex; flex-wrap: wrap; align-items: center; gap: 4px 8px; max-width: 100%; padding: 4px 5px 4px 10px; box-sizing: border-box;
	font: var(--sandman-font, 13px/1.5 system-ui, sans-serif); font-variant-numeric: tabular-nums;
	color: var(--sandman-color, light-dark(#17181c, #ecedf1)); background: var(--sandman-background, light-dark(#fff, #14161b));
	border: 1px solid var(--sandman-border, light-dark(#d4d4da, #333843)); border-radius: var(--sandman-radius, 10px); }
.icon { width: 14px; height: 14px; flex: none; fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linecap: round; stroke-linejoin: round; }
.icon.filled { fill: currentColor; }
.sign { display: inline-flex; align-items: center; gap: 6px; font-weight: 600; white-space: nowrap; }
.RUNNING { color: var(--sandman-running, light-dark(#0b7a43, #4cc88a)); }
.PAUSED { color: var(--sandman-paused, light-dark(#4b5a8a, #9fb0e6)); }
.PAUSING, .RESUMING { color: var(--sandman-busy, light-dark(#8f5600, #f0b35a)); }
.PAUSING .icon, .RESUMING .icon { animation: turn 1s linear infinite; }
.detail { min-width: 0; padding-right: 5px; overflow: hidden; text-overflow: ellipsis; color: var(--sandman-faint, light-dark(#62646e, #9a9daa)); }
.detail.wrong { color: var(--sandman-error, light-dark(#b4232f, #ff8a8f)); }
.buttons { display: inline-flex; gap: 4px; }
.buttons:not(:has(:not([hidden]))) { display: none; }
button { padding: 1px 9px; font: inherit; color: inherit; background: transparent; border: 1px solid var(--sandman-border, light-dark(#d4d4da, #333843));
	border-radius: max(2px, calc(var(--sandman-radius, 10px) - 4px)); cursor: pointer; white-space: nowrap; }
button[hidden] { display: none; }
button:hover:not(:disabled) { border-color: currentColor; }
button:focus-visible { outline: 2px solid var(--sandman-accent, light-dark(#5450d0, #8f8bff)); outline-offset: 1px; }
button:disabled { opacity: 0.55; cursor: default; }
@keyframes turn { to { transform: rotate(1turn); } }
@media (prefers-reduced-motion: reduce) { .icon { animation: none !important; } }
`

const svg = 'http://www.w3.org/2000/svg'
const pollEvery = 5000
const patience = 45_000 // the stream has a heartbeat every 15 s
const longestPause = 60_000
const holdName = 'badge'

function element(name, attributes, ...children) {
	const e = document.createElement(name)
	for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v)
	e.append(...children)
	return e
}

const two = n => String(n).padStart(2, '0')
function clock(ms) {
	const total = Math.max(0, Math.ceil(ms / 1000))
	const [h, m, s] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60]
	return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`
}

class Problem extends Error {
	constructor(status, body) {
		super(body?.detail ?? '')
		this.status = status
		this.code = body?.code ?? ''
		this.inFlight = body?.inFlight
	}

	get isExpired() { return this.code === 'expired' }
	get isMissingRoute() { return this.status === 404 && this.code === 'no-such-route' || this.status === 405 }
}

class SandmanBadge extends HTMLElement {
	static observedAttributes = ['sandbox', 'token', 'url', 'actions', 'keep-for', 'lang', ...Object.keys(words).map(w => `text-${kebab(w)}`)]

	#sandbox = null
	#strings = {}
	#token = null // set as a property, it is no attribute that others read
	#ender = null
	#timer = 0
	#wrong = '' // what did not work, in words
	#lostAt = 0
	#denied = new Set()
	#may = null // what the token may do; null while that is not known
	#parts
	renew = null

	constructor() {
		super()
		const sheet = new CSSStyleSheet() // a style element would need the page's leave, by its policy
		sheet.replaceSync(css)
		const root = this.attachShadow({ mode: 'open' })
		root.adoptedStyleSheets = [sheet]
		const icon = document.createElementNS(svg, 'svg')
		icon.setAttribute('viewBox', '0 0 16 16')
		icon.setAttribute('aria-hidden', 'true')
		icon.setAttribute('part', 'icon')
		icon.append(document.createElementNS(svg, 'path'))
		const state = element('span', { part: 'state', role: 'status' })
		const p = this.#parts = {
			icon, state, sign: element('span', {}, icon, state), detail: element('span', { part: 'detail', class: 'detail' }), buttons: element('span', { class: 'buttons' }),
			pause: this.#button('pause', () => this.pause()), resume: this.#button('resume', () => this.resume()), keep: this.#button('keep-awake', () => this.#toggleHold()),
		}
		p.buttons.append(p.pause, p.resume, p.keep)
		root.append(element('span', { class: 'badge', part: 'badge', role: 'group' }, p.sign, p.detail, p.buttons))
	}

	#button(name, act) {
		const b = element('button', { type: 'button', part: `button ${name}` })
		b.addEventListener('click', async () => {
			b.disabled = true
			try {
				await act()
			} catch { /* it is shown */ }
			b.disabled = false
			this.#show()
		})
		return b
	}

	get sandbox() { return this.getAttribute('sandbox') ?? '' }
	set sandbox(id) { this.setAttribute('sandbox', id) }
	get url() { return this.getAttribute('url') || new URL('.', import.meta.url).href }
	set url(url) { this.setAttribute('url', url) }
	get token() { return this.#token ?? this.getAttribute('token') ?? '' }
	set token(token) {
		this.#token = token
		this.#restart()
	}

	get actions() { return this.getAttribute('actions') ?? 'pause resume keep-awake' }
	set actions(actions) { this.setAttribute('actions', actions) }
	get keepFor() { return this.getAttribute('keep-for') || '1h' }
	set keepFor(duration) { this.setAttribute('keep-for', duration) }
	get strings() { return { ...languages[this.#language], ...this.#strings } }
	set strings(strings) {
		this.#strings = { ...strings }
		this.#show()
	}

	get state() { return this.#sandbox?.state ?? '' }

	connectedCallback() {
		document.addEventListener('visibilitychange', this.#visibility)
		this.#timer = setInterval(() => this.#show(), 1000)
		this.#restart()
	}

	disconnectedCallback() {
		document.removeEventListener('visibilitychange', this.#visibility)
		clearInterval(this.#timer)
		this.#ender?.abort()
	}

	attributeChangedCallback(name, before, after) {
		if (before === after) return
		if (name === 'sandbox') this.#sandbox = null
		if (name === 'token') this.#token = null
		if (['sandbox', 'token', 'url'].includes(name)) this.#restart()
		this.#show()
	}

	// A tab that nobody looks at asks nothing.
	#visibility = () => document.hidden ? this.#ender?.abort() : this.#restart()

	#restart() {
		this.#ender?.abort()
		if (!this.isConnected || document.hidden || !this.sandbox || !this.token) return this.#show()
		this.#denied.clear()
		this.#may = null
		this.#ender = new AbortController()
		this.#follow(this.#ender.signal)
	}

	// pause, resume and keepAwake are what the buttons do. Each fails with what the API says.
	pause() { return this.#act('pause', 'POST', 'pause') }
	resume() { return this.#act('resume', 'POST', 'resume') }
	keepAwake(duration = this.keepFor) { return this.#act('keep-awake', 'PUT', `holds/${holdName}`, { for: duration, reason: 'kept awake in the app' }) }
	letSleep() { return this.#act('keep-awake', 'DELETE', `holds/${holdName}`) }

	#toggleHold() { return this.#ownHold ? this.letSleep() : this.keepAwake() }
	get #ownHold() { return this.#sandbox?.holds?.find(h => h.name === holdName && Date.parse(h.expiresAt) > Date.now()) }

	async #act(what, method, path, body) {
		this.#wrong = ''
		try {
			const answer = await this.#call(method, path, body)
			if (answer?.state) this.#take(answer)
			else await this.#read()
			return answer
		} catch (err) {
			if (err.status === 403 || err.isMissingRoute) this.#denied.add(what)
			this.#wrong = this.#failure(err)
			setTimeout(() => {
				this.#wrong = ''
				this.#show()
			}, 8000)
			this.#tell('sandman-error', { status: err.status ?? 0, message: err.message })
			this.#show()
			throw err
		}
	}

	// #failure says why a button did nothing.
	#failure(err) {
		if (err.status === 401) return this.#say(err.isExpired ? 'expired' : 'refused')
		if (err.status === 403) return this.#say('denied')
		if (err.inFlight) return this.#say('inUseNow', { reason: err.inFlight.join(', ') })
		return this.#say('failed', { reason: err.message || this.#say('unreachable', { time: this.#time() }) })
	}

	async #ask(method, url, { body, signal } = {}) {
		let response
		for (let renewed = false; ; renewed = true) {
			const headers = { Authorization: `Bearer ${this.token}` }
			if (body) headers['Content-Type'] = 'application/json'
			try {
				response = await fetch(url, { method, headers, signal, credentials: 'omit', cache: 'no-store', body: body && JSON.stringify(body) })
			} catch (err) {
				if (signal?.aborted) throw err
				throw new Problem(0)
			}
			if (response.status !== 401 || renewed || !this.renew) break
			this.#token = await this.renew()
		}
		if (!response.ok) throw new Problem(response.status, await response.json().catch(() => null))
		return response
	}

	#address(path) { return new URL(`api/v1/${path}`, this.url.replace(/\/?$/, '/')) }
	get #path() { return `sandboxes/${encodeURIComponent(this.sandbox)}` }

	async #call(method, path, body, signal) {
		const response = await this.#ask(method, this.#address(path ? `${this.#path}/${path}` : this.#path), { body, signal })
		const text = await response.text()
		return text ? JSON.parse(text) : null
	}

	async #follow(signal) {
		for (let failures = 0; !signal.aborted;) {
			try {
				await this.#listen(signal, () => { failures = 0 })
			} catch (err) {
				if (signal.aborted) return
				this.#lose(err)
				if ([401, 403, 404].includes(err.status)) return // asking again would change nothing
			}
			if (signal.aborted) return
			failures++
			await rest(failures > 1 ? Math.min(longestPause, 500 * 2 ** failures) * (0.75 + Math.random() / 2) : 0, signal)
		}
	}

	#lose(err) {
		this.#lostAt = err.status ? 0 : this.#lostAt || Date.now()
		this.#wrong = this.#say({ 401: err.isExpired ? 'expired' : 'refused', 403: 'denied', 404: 'missing' }[err.status] ?? 'unreachable', { time: this.#time() })
		if ([401, 403, 404].includes(err.status) && this.#sandbox) { // what was known is not known any more
			this.#sandbox = null
			this.#tell('sandman-state', { state: '', sandbox: this.sandbox })
		}
		this.#tell('sandman-error', { status: err.status ?? 0, message: err.message })
		this.#show()
	}

	// listen reads the stream of events, or asks again and again where there is none.
	async #listen(signal, heard) {
		const url = this.#address('events')
		url.searchParams.set('sandbox', this.sandbox)
		const ender = new AbortController()
		const end = () => ender.abort()
		signal.addEventListener('abort', end, { once: true })
		try {
			const stream = await this.#ask('GET', url, { signal: ender.signal }).catch(err => {
				if (err.isMissingRoute) return null
				throw err
			})
			await this.#learn(signal)
			do {
				await this.#read(signal)
				heard()
				if (!stream) await rest(pollEvery, signal)
			} while (!stream && !signal.aborted)
			if (stream) await this.#events(stream.body, ender)
		} finally {
			signal.removeEventListener('abort', end)
			ender.abort()
		}
	}

	// learn asks what the token may do. An older Sandman can't tell: it refuses when a button is pressed.
	async #learn(signal) {
		try {
			const response = await this.#ask('GET', this.#address('token'), { signal })
			this.#may = (await response.json()).may ?? null
		} catch (err) {
			if (!err.isMissingRoute && err.status !== 403) throw err
		}
	}

	async #read(signal) { this.#take(await this.#call('GET', '', undefined, signal)) }

	async #events(body, ender) {
		const reader = body.pipeThrough(new TextDecoderStream()).getReader()
		let text = ''
		for (let watchdog; ;) {
			watchdog = setTimeout(() => ender.abort(), patience)
			const { value, done } = await reader.read().finally(() => clearTimeout(watchdog))
			if (done) return
			const blocks = (text + value).replaceAll('\r', '').split('\n\n')
			text = blocks.pop()
			for (const block of blocks) await this.#event(block, ender.signal)
		}
	}

	async #event(block, signal) {
		const lines = block.split('\n')
		const field = name => lines.filter(l => l.startsWith(`${name}:`)).map(l => l.slice(name.length + 1).trim()).join('\n')
		switch (field('event')) {
			case 'sandbox': {
				const sandbox = JSON.parse(field('data'))
				if (sandbox.sandboxID === this.sandbox) this.#take(sandbox)
				return
			}
			case 'gone': throw new Problem(404)
			case 'reset': await this.#read(signal)
		}
	}

	#take(sandbox) {
		const before = this.state
		this.#sandbox = sandbox
		this.#wrong = ''
		this.#lostAt = 0
		if (before !== sandbox.state) this.#tell('sandman-state', { state: sandbox.state, sandbox: sandbox.sandboxID })
		this.#show()
	}

	#tell(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true })) }
	#time(at = this.#lostAt || Date.now()) { return new Date(at).toLocaleTimeString(this.#language === 'en' ? undefined : this.#language, { hour: '2-digit', minute: '2-digit' }) }

	#own(word) { return this.getAttribute(`text-${kebab(word)}`) ?? this.#strings[word] }

	// The element's language, else that of what it stands in, also where that is another shadow.
	get #language() {
		for (let e = this; e; e = e.getRootNode().host) {
			const lang = e.closest('[lang]')?.lang.toLowerCase().split('-')[0]
			if (lang) return languages[lang] ? lang : 'en'
		}
		return 'en'
	}

	#say(word, values = {}) {
		const text = this.#own(word) ?? languages[this.#language][word] ?? words[word]
		return text.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all)
	}

	#show() {
		const p = this.#parts
		const { state } = this
		const [path, filled] = icons[state] ?? icons['']
		p.sign.className = `sign ${state}`
		p.icon.setAttribute('class', `icon ${filled ? 'filled' : ''}`)
		p.icon.firstChild.setAttribute('d', path)
		setText(p.state, this.#say(state ? state.toLowerCase() : 'unknown'))
		this.#showDetail(p.detail)
		this.#showButtons(p, state)
	}

	#showDetail(detail) {
		const sb = this.#sandbox
		detail.classList.toggle('wrong', !!this.#wrong)
		if (this.#wrong || !sb || sb.state !== 'RUNNING' || !sb.pauseAt) detail.removeAttribute('role')
		else detail.setAttribute('role', 'timer')
		detail.setAttribute('part', detail.hasAttribute('role') ? 'detail countdown' : 'detail')
		detail.title = this.#wrong || (this.#language === 'en' ? (sb?.awakeBecause ?? []).join(', ') : '')
		setText(detail, this.#wrong || (sb ? this.#detail(sb) : ''))
	}

	#detail(sb) {
		if (sb.state === 'RUNNING' && sb.storeAway) return this.#say('storeAway')
		if (sb.state === 'RUNNING' && sb.pauseAt) return this.#say('sleepsIn', { time: clock(Date.parse(sb.pauseAt) - Date.now()) })
		if (sb.state === 'RUNNING' && this.#ownHold) return this.#say('keptUntil', { time: this.#time(Date.parse(this.#ownHold.expiresAt)) })
		if (sb.state === 'RUNNING') return this.#say('inUse')
		return sb.state === 'PAUSED' ? this.#why(sb.reason) : ''
	}

	#why(reason) {
		if (this.#own('becauseOf')) return this.#say('becauseOf', { reason })
		const [, time] = /^idle for (.+)$/.exec(reason) ?? []
		if (time) return this.#say('idleFor', { time })
		if (/^paused by hand/.test(reason)) return this.#say('byHand')
		return this.#language === 'en' ? this.#say('becauseOf', { reason }) : ''
	}

	#showButtons(p, state) {
		const offered = this.actions.split(/\s+/)
		const show = (button, action, when, word) => {
			button.hidden = !when || !offered.includes(action) || this.#denied.has(action) || !!this.#may && !this.#may.includes(needs[action])
			setText(button, this.#say(word))
		}
		show(p.pause, 'pause', state === 'RUNNING', 'pause')
		show(p.resume, 'resume', state === 'PAUSED', 'resume')
		const wakes = this.#may?.includes('resume') ?? true // a hold on what sleeps wakes it first
		show(p.keep, 'keep-awake', state === 'RUNNING' || state === 'PAUSED' && wakes, this.#ownHold ? 'letSleep' : 'keepAwake')
	}
}

function kebab(word) { return word.replace(/[A-Z]/g, c => `-${c.toLowerCase()}`) }

// setText leaves alone what has not changed: screen readers would read it again.
function setText(e, text) { if (e.textContent !== text) e.textContent = text }

function rest(ms, signal) {
	return new Promise(done => {
		const timer = setTimeout(done, ms)
		signal.addEventListener('abort', () => { clearTimeout(timer); done() }, { once: true })
	})
}

if (!customElements.get('sandman-badge')) customElements.define('sandman-badge', SandmanBadge)
