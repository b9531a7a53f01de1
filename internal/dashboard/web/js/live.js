// All sandboxes that the visitor may see, kept as they are: one list, then the stream of events. When the
// stream breaks, what is known stays, with its age, until it can be had anew.
import { computed, signal } from './lib.js'
import { ask, get, token, who } from './api.js'

const pageSize = 1000
const patience = 45_000 // the stream has a heartbeat every 15 s
const pollEvery = 5000
const longestPause = 30_000
const flushEvery = 100 // the page is drawn anew at most so often, in ms

// version changes whenever the map below has changed.
export const version = signal(0)
export const sandboxes = new Map()
export const loaded = signal(false)
// connection is how the page hears of changes: {state: connecting|live|polling|lost, since, retryAt, why}.
export const connection = signal({ state: 'connecting', since: Date.now() })

// storeAway is that the session store is out of reach, as the sandboxes say: nothing is paused then.
export const storeAway = computed(() => {
	version.value
	for (const sb of sandboxes.values()) if (sb.storeAway) return true
	return false
})

// sandbox gives one of them, and makes the caller follow it.
export function sandbox(id) {
	version.value
	return sandboxes.get(id)
}

export const totals = computed(() => {
	version.value
	const n = { RUNNING: 0, PAUSING: 0, PAUSED: 0, RESUMING: 0, KILLED: 0 }
	for (const sb of sandboxes.values()) n[sb.state]++
	return n
})

let flushing = 0
function changed() {
	flushing ||= setTimeout(() => {
		flushing = 0
		version.value++
	}, flushEvery)
}

// put takes in what an answer of the API says of a sandbox.
export function put(sb) {
	if (!sb?.sandboxID) return
	sandboxes.set(sb.sandboxID, sb)
	changed()
}

let running // of the one loop, to end it
let wakeUp = () => {}

export function start() {
	stop()
	running = new AbortController()
	follow(running.signal)
}

export function stop() {
	running?.abort()
	sandboxes.clear()
	loaded.value = false
	version.value++
}

// retry ends the waiting for the next try.
export const retry = () => wakeUp()
addEventListener('online', retry)

async function follow(signal) {
	let failures = 0
	const stream = { lastID: '', brokeAt: 0 }
	while (!signal.aborted) {
		try {
			await attend(stream, signal, () => { failures = 0 })
		} catch (err) {
			if (signal.aborted || err.status === 401) return
			lose(err.message)
		}
		stream.brokeAt = Date.now()
		failures++
		const pause = Math.min(longestPause, 500 * 2 ** failures) * (0.75 + Math.random() / 2)
		if (connection.peek().state === 'lost') connection.value = { ...connection.peek(), retryAt: Date.now() + pause }
		await Promise.race([rest(failures > 1 ? pause : 0, signal), new Promise(done => { wakeUp = done })])
	}
}

function lose(why) {
	const was = connection.peek()
	connection.value = { state: 'lost', since: was.state === 'lost' ? was.since : Date.now(), why }
}

function rest(ms, signal) {
	return new Promise(done => {
		const timer = setTimeout(done, ms)
		signal.addEventListener('abort', () => { clearTimeout(timer); done() }, { once: true })
	})
}

// attend follows one stream to its end. It lists all anew unless the stream was away for a moment only, and
// the server can tell what happened meanwhile.
async function attend(stream, signal, connected) {
	who.value = (await get('status', {}, signal)).token ?? null
	const ender = new AbortController()
	const end = () => ender.abort()
	signal.addEventListener('abort', end, { once: true })
	try {
		const resume = stream.lastID && Date.now() - stream.brokeAt < 10_000
		const response = await open(resume ? stream.lastID : '', ender.signal)
		if (!response) return await poll(signal, connected)
		await hear(response, stream, !resume, ender, connected)
	} finally {
		signal.removeEventListener('abort', end)
		ender.abort()
	}
}

async function open(lastID, signal) {
	try {
		return await ask('GET', 'events', { signal, headers: lastID ? { 'Last-Event-ID': lastID } : {} })
	} catch (err) {
		if (err.isMissingRoute) return null // an older API: it is asked again and again instead
		throw err
	}
}

// hear lists all sandboxes while the events that come meanwhile wait: what they say is newer.
async function hear(response, stream, listFirst, ender, connected) {
	let waiting = null
	let stale = false // the server forgot something for us while the list was being read
	const relist = async () => {
		stale = true
		if (waiting) return
		waiting = []
		while (stale) {
			stale = false
			await list(ender.signal)
		}
		for (const event of waiting) apply(event)
		waiting = null
		version.value++ // once listed there is nothing to wait for
		connected()
		connection.value = { state: 'live', since: Date.now() }
	}
	let listing = Promise.resolve()
	const again = () => {
		listing = relist()
		listing.catch(() => ender.abort())
	}
	if (listFirst) again()
	else {
		connected()
		connection.value = { state: 'live', since: Date.now() }
	}
	try {
		await readEvents(response.body, ender, event => {
			if (event.id) stream.lastID = event.id
			if (event.type === 'reset') again()
			else if (waiting) waiting.push(event)
			else apply(event)
		})
	} catch (err) {
		await listing // its error tells more
		throw err
	}
}

function apply(event) {
	if (event.type !== 'sandbox' && event.type !== 'gone') return
	const data = JSON.parse(event.data)
	if (event.type === 'sandbox') put(data)
	else if (sandboxes.delete(data.sandboxID)) changed()
}

// list asks page by page and then replaces what is known.
async function list(signal) {
	const all = []
	for (let after = ''; ;) {
		const page = await get('sandboxes', { limit: pageSize, after }, signal)
		all.push(...page.sandboxes)
		if (!page.next) break
		after = page.next
	}
	sandboxes.clear()
	for (const sb of all) sandboxes.set(sb.sandboxID, sb)
	loaded.value = true
	version.value++
}

async function poll(signal, connected) {
	while (!signal.aborted) {
		const began = Date.now()
		await list(signal)
		connected()
		connection.value = { state: 'polling', since: Date.now() }
		await rest(Math.max(pollEvery, 10 * (Date.now() - began)), signal)
	}
}

// readEvents reads a text/event-stream until it ends, and ends it when it says nothing for too long.
async function readEvents(body, ender, take) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader()
	let watchdog
	let rest = ''
	let event = { type: 'message', data: [], id: '' }
	try {
		for (;;) {
			clearTimeout(watchdog)
			watchdog = setTimeout(() => ender.abort(), patience)
			const { value, done } = await reader.read()
			if (done) return
			const lines = (rest + value).split('\n')
			rest = lines.pop()
			for (const line of lines) event = readLine(line.replace(/\r$/, ''), event, take)
		}
	} catch {
		throw new Error('The connection broke.')
	} finally {
		clearTimeout(watchdog)
	}
}

function readLine(line, event, take) {
	if (line === '') {
		if (event.data.length || event.type === 'reset' || event.id) take({ ...event, data: event.data.join('\n') })
		return { type: 'message', data: [], id: '' }
	}
	const at = line.indexOf(':')
	const name = at < 0 ? line : line.slice(0, at)
	const value = at < 0 ? '' : line.slice(at + 1).replace(/^ /, '')
	if (name === 'event') event.type = value
	if (name === 'data') event.data.push(value)
	if (name === 'id') event.id = value
	return event
}

token.subscribe(secret => secret ? start() : stop())
