// Values as people read them. Nothing here knows the page.

const second = 1000
const minute = 60 * second
const hour = 60 * minute
export const day = 24 * hour

const units = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: second, m: minute, h: hour, d: day }

// parseDuration reads Go's notation, such as 1h30m0s, also with days, into ms. NaN where it is none.
export function parseDuration(text) {
	const trimmed = String(text ?? '').trim()
	if (/^\d+(\.\d+)?$/.test(trimmed)) return Number(trimmed) * second
	if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d))+$/.test(trimmed)) return NaN
	let ms = 0
	for (const [, n, unit] of trimmed.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)/g)) ms += Number(n) * units[unit]
	return ms
}

// shortDuration is the notation that people type: 10m and not 10m0s.
export function shortDuration(text) {
	const ms = parseDuration(text)
	if (!Number.isFinite(ms) || ms === 0) return String(text ?? '')
	let rest = Math.round(ms)
	let out = ''
	for (const [unit, size] of [['h', hour], ['m', minute], ['s', second]]) {
		const n = Math.floor(rest / size)
		if (n) out += n + unit
		rest -= n * size
	}
	return out || `${rest}ms`
}

// span says how long, by its two largest units, as the API does.
export function span(ms) {
	if (!Number.isFinite(ms)) return '–'
	const total = Math.max(0, ms)
	if (total < second) return total < 1 ? '0s' : `${Math.round(total)}ms`
	if (total < minute) return `${Math.floor(total / second)}s`
	if (total < hour) return two(total, minute, 'm', second, 's')
	if (total < day) return two(total, hour, 'h', minute, 'm')
	return two(total, day, 'd', hour, 'h')
}

function two(ms, big, bigName, small, smallName) {
	const n = Math.floor(ms / big)
	const rest = Math.floor((ms - n * big) / small)
	return rest ? `${n}${bigName} ${rest}${smallName}` : `${n}${bigName}`
}

// clock is a countdown: 4:12, 1:04:12. It is 0:00 only when the time is over.
export function clock(ms) {
	const total = Math.max(0, Math.ceil(ms / second))
	const h = Math.floor(total / 3600)
	const m = Math.floor(total / 60) % 60
	const s = String(total % 60).padStart(2, '0')
	return h ? `${h}:${String(m).padStart(2, '0')}:${s}` : `${m}:${s}`
}

export function ago(ms) {
	if (ms < 5 * second) return 'just now'
	if (ms < minute) return `${Math.floor(ms / second)}s ago`
	if (ms < hour) return `${Math.floor(ms / minute)}m ago`
	if (ms < day) return `${Math.floor(ms / hour)}h ago`
	return `${Math.floor(ms / day)}d ago`
}

const time = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const shortTime = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' })
const dayTime = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit' })
const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'long' })
const sameDay = (a, b) => a.toDateString() === b.toDateString()

export function moment(at) {
	const t = new Date(at)
	return sameDay(t, new Date()) ? time.format(t) : dayTime.format(t)
}
export const hourMinute = at => shortTime.format(new Date(at))
export const fullTime = at => full.format(new Date(at))

export const capital = text => text.charAt(0).toUpperCase() + text.slice(1)
export const count = n => new Intl.NumberFormat().format(n)
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`

// money is in the currency that price_per_minute names, if it does.
export function money(n, currency) {
	if (!Number.isFinite(n)) return '–'
	const digits = { minimumFractionDigits: 2, maximumFractionDigits: n !== 0 && Math.abs(n) < 1 ? 4 : 2 }
	if (/^[A-Za-z]{3}$/.test(currency ?? '')) return new Intl.NumberFormat(undefined, { style: 'currency', currency, ...digits }).format(n)
	return new Intl.NumberFormat(undefined, digits).format(n) + (currency ? ` ${currency}` : '')
}
// percent is 100 % only of all.
export function percent(part, whole) {
	if (!(whole > 0)) return '–'
	const of = 100 * part / whole
	return of > 99 && part < whole ? `${(Math.floor(10 * of) / 10).toFixed(1)} %` : `${of.toFixed(0)} %`
}

// hours of running or sleeping; less than one by its largest units.
export const hours = ms => ms < hour ? span(ms) : `${new Intl.NumberFormat(undefined, { maximumFractionDigits: ms < 10 * hour ? 1 : 0 }).format(ms / hour)}h`
