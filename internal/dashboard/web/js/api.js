// Calls of Sandman's API with the visitor's token. The token lives in sessionStorage: it is gone with the
// tab, and no other site's request carries it, as a cookie would be.
import { capital } from './format.js'
import { signal } from './lib.js'

const stored = 'sandman.token'
const base = new URL('api/v1/', document.baseURI)

export const token = signal(remembered())
// who is the token's bearer as the API sees it: {name, role, owner}, or null while nobody has said.
export const who = signal(null)
// refused is why the last token was not taken, in words.
export const refused = signal('')
// skew is how far the server's clock is ahead of this machine's, in ms.
export const skew = signal(0)

function remembered() {
	try {
		return sessionStorage.getItem(stored) ?? ''
	} catch {
		return ''
	}
}

export function signIn(secret) {
	try {
		sessionStorage.setItem(stored, secret)
	} catch { /* then it holds until the page is left */ }
	refused.value = ''
	who.value = null
	token.value = secret
}

export function signOut(why = '') {
	try {
		sessionStorage.removeItem(stored)
	} catch { /* it was not there */ }
	refused.value = why
	who.value = null
	token.value = ''
}

// APIError is a problem (RFC 9457), or with status 0 that nobody answered.
export class APIError extends Error {
	constructor(status, problem = {}) {
		super(capital(problem.detail ?? '') || (status ? `The API answered ${status}.` : 'Sandman can’t be reached.'))
		this.status = status
		this.code = problem.code ?? ''
		this.problem = problem
	}

	// An older Sandman does not have all routes.
	get isMissingRoute() { return this.status === 404 && this.code === 'no-such-route' || this.status === 405 }
	get isAway() { return this.status === 0 || this.status >= 500 }
}

export function address(path, query = {}) {
	const url = new URL(path.replace(/^\//, ''), base)
	for (const [name, value] of Object.entries(query)) {
		if (value !== undefined && value !== null && value !== '') url.searchParams.set(name, value)
	}
	return url
}

// ask sends one request and returns the answer as it comes.
export async function ask(method, path, { query, body, headers, signal } = {}) {
	const bearer = token.value
	let response
	try {
		response = await fetch(address(path, query), {
			method, signal, credentials: 'omit', cache: 'no-store',
			headers: { Authorization: `Bearer ${bearer}`, ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
			body: body === undefined ? undefined : JSON.stringify(body),
		})
	} catch (err) {
		if (signal?.aborted) throw err
		throw new APIError(0)
	}
	setClock(response)
	if (response.ok) return response
	const problem = await response.json().catch(() => ({}))
	// a token that was replaced meanwhile is not this one
	if (response.status === 401 && bearer === token.value) signOut(bearer ? 'This token was not accepted. It may have been changed in the configuration.' : '')
	throw new APIError(response.status, problem)
}

// call is ask for JSON.
export async function call(method, path, options) {
	const response = await ask(method, path, options)
	const text = await response.text().catch(() => { throw new APIError(0) })
	return { data: text ? JSON.parse(text) : null, etag: response.headers.get('ETag'), status: response.status }
}

export const get = async (path, query, signal) => (await call('GET', path, { query, signal })).data

export const one = id => `sandboxes/${encodeURIComponent(id)}`

// The header has whole seconds: only a clock that is clearly wrong is corrected.
function setClock(response) {
	const date = Date.parse(response.headers.get('Date') ?? '')
	if (Number.isNaN(date)) return
	const ahead = date + 500 - Date.now()
	const off = Math.abs(ahead) < 2000 ? 0 : ahead
	if (Math.abs(off - skew.peek()) > 1000) skew.value = off
}

const ranks = { viewer: 1, operator: 2, admin: 3 }

// may tells whether the bearer's role suffices. While it is not known the API decides.
export const may = role => !who.value || ranks[who.value.role] >= ranks[role]

// whyNot says why a button can't be used, or ''.
export function whyNot(role) {
	if (may(role)) return ''
	return `This takes ${role === 'admin' ? 'an admin' : 'an operator'}’s token; yours (${who.value.name}) has the role ${who.value.role}.`
}
