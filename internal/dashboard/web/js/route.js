// Where the visitor is: the address behind the #, such as #/sandboxes/i123 or #/?state=RUNNING.
import { signal } from './lib.js'
import { signIn } from './api.js'

function read(fragment = location.hash) {
	const hash = fragment.replace(/^#/, '')
	const [path, query = ''] = hash.startsWith('/') ? hash.split('?') : ['/']
	return { path, parts: path.split('/').filter(Boolean).map(decode), query: new URLSearchParams(query) }
}

function decode(part) {
	try {
		return decodeURIComponent(part)
	} catch {
		return part
	}
}

// takeToken signs in by a link that ends in #token=…, and takes the secret out of the address and the
// browser's history.
function takeToken() {
	if (!location.hash.startsWith('#token=')) return
	const fragment = new URLSearchParams(location.hash.slice(1))
	history.replaceState(null, '', `${location.pathname}${location.search}#/`)
	signIn(fragment.get('token').trim())
}

takeToken()
export const route = signal(read())
addEventListener('hashchange', () => {
	takeToken()
	route.value = read()
})

export function link(path, query) {
	const search = new URLSearchParams(Object.entries(query ?? {}).filter(([, v]) => v)).toString()
	return `#${path}${search ? `?${search}` : ''}`
}

export function go(path, query) { location.hash = link(path, query) }

// setQuery changes the page's own settings in the address without a step in the browser's history.
export function setQuery(query) {
	const fragment = link(route.peek().path, query)
	try {
		history.replaceState(null, '', fragment)
	} catch { /* some browsers allow only so many in a while, and who types is quicker */ }
	route.value = read(fragment)
}
