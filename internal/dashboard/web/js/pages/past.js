// The past of one sandbox, as a picture and as a list.
import { html, useSignal } from '../lib.js'
import { one } from '../api.js'
import { now, serverNow } from '../clock.js'
import { day, hourMinute, fullTime, moment, percent, plural, span } from '../format.js'
import { Choice, Failure, Loading, Section, State, states, useResource } from '../ui.js'

const hour = day / 24
const ranges = { '1h': hour, '24h': day, '7d': 7 * day }
const rangeNames = { '1h': 'hour', '24h': '24 hours', '7d': '7 days' }

// segments cuts the time from `from` to `to` into states. The history is the newest line first; before its
// first line the sandbox was in that line's `from`, or was not there.
export function segments(history, sb, from, to) {
	const lines = [...history].reverse()
	const out = []
	const add = (state, begin, end, reason) => {
		const [a, b] = [Math.max(begin, from), Math.min(end, to)]
		if (state && b > a) out.push({ state, from: a, to: b, reason })
	}
	if (!lines.length) {
		add(sb.state, Date.parse(sb.since), to, sb.reason)
		return out
	}
	add(lines[0].from, Date.parse(sb.createdAt), Date.parse(lines[0].at), '')
	lines.forEach((line, i) => add(line.to, Date.parse(line.at), i + 1 < lines.length ? Date.parse(lines[i + 1].at) : to, line.reason))
	return out.filter(s => s.state !== 'KILLED')
}

export function Past({ id, step, sb }) {
	const range = useSignal(serverNow() - Date.parse(sb.createdAt) < hour ? '1h' : '24h')
	const all = useSignal(false)
	const { data, error, at, reload } = useResource(`${one(id)}/history`, { query: { limit: 1000 }, deps: [step] })
	const history = data?.history ?? []
	// a pause and a wake have steps; what came of them says it all
	const ends = history.filter((line, i) => i === 0 || !states[line.to]?.busy || line.op !== history[i - 1].op)
	return html`
		<${Section} id="past" title="History" aside=${html`<${Choice} legend="How far back" name="range" value=${range.value} kind="small" onChange=${v => { range.value = v }}
			options=${[{ value: '1h', name: '1 h' }, { value: '24h', name: '24 h' }, { value: '7d', name: '7 d' }]} />`}>
			${error && html`<${Failure} error=${error} at=${at} retry=${reload} />`}
			${!data && !error && html`<${Loading} />`}
			${data && html`<${Picture} history=${history} sb=${sb} range=${range.value} />`}
			${data && !history.length && html`<p class="nothing">Nothing has happened to it yet.</p>`}
			<ol class="history">${(all.value ? history : ends.slice(0, 8)).map(line => html`
				<li key=${line.revision}><time datetime=${line.at} title=${fullTime(line.at)}>${moment(line.at)}</time><${State} state=${line.to} />
					<span class="reason">${line.reason}</span>${line.node && html`<span class="faint mono node" title="the proxy that wrote it">${line.node}</span>`}</li>`)}</ol>
			${history.length > Math.min(8, ends.length) && html`<button type="button" class="link more" onClick=${() => { all.value = !all.value }}>${all.value ? 'Show less' : `Show all ${plural(history.length, 'step')}`}</button>`}
		</${Section}>`
}

function Picture({ history, sb, range }) {
	const length = ranges[range]
	const to = now.value
	const from = to - length
	const parts = segments(history, sb, from, to)
	const sum = which => parts.filter(p => which.includes(p.state)).reduce((n, p) => n + p.to - p.from, 0)
	const [ran, slept] = [sum(['RUNNING', 'PAUSING']), sum(['PAUSED', 'RESUMING'])]
	const pauses = parts.filter(p => p.state === 'PAUSED' && p.from > from).length
	const summary = `Over the last ${rangeNames[range]} it ran ${span(ran)} and slept ${span(slept)} (${percent(slept, ran + slept)}), with ${plural(pauses, 'pause')}.`
	const x = t => 1000 * (t - from) / length
	return html`
		<figure class="past">
			<svg viewBox="0 0 1000 36" preserveAspectRatio="none" role="img" aria-label=${summary}>
				<rect class="bar-none" width="1000" height="36" />
				${parts.map(p => html`<rect key=${p.from} class=${`bar bar-${p.state}`} x=${x(p.from)} width=${Math.max(1, x(p.to) - x(p.from))} height="36">
					<title>${states[p.state]?.name ?? p.state} from ${hourMinute(p.from)} to ${p.to >= to ? 'now' : hourMinute(p.to)}, ${span(p.to - p.from)}${p.reason ? `: ${p.reason}` : ''}</title></rect>`)}
			</svg>
			<div class="ticks" aria-hidden="true">${[0, 0.25, 0.5, 0.75, 1].map(f => html`<span key=${f}>${f === 1 ? 'now' : length > day ? moment(from + f * length).replace(/:\d\d(?= |$)/, '') : hourMinute(from + f * length)}</span>`)}</div>
			<figcaption>${summary}</figcaption>
		</figure>`
}
