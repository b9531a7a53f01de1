// What the pauser has done: its sweeps against the hosts' lists, and its pauses by the minute.
import { Fragment, html, useSignal } from '../lib.js'
import { get } from '../api.js'
import { count, fullTime, moment, plural, span } from '../format.js'
import { Ago, Choice, Empty, Failure, Icon, Loading, toast, useResource } from '../ui.js'

const counts = { looked: 'Looked at', paused: 'Paused', resumed: 'Resumed', killed: 'Ended' }

export function Runs() {
	const kind = useSignal('')
	const older = useSignal({ runs: [], next: undefined })
	const { data, error, missing, at, reload } = useResource('runs', { query: { limit: 100 }, every: 15_000 })
	const fresh = data?.runs ?? []
	const ids = new Set(fresh.map(r => r.id))
	const all = [...fresh, ...older.value.runs.filter(r => !ids.has(r.id))]
	const shown = all.filter(r => !kind.value || r.kind === kind.value)
	const next = older.value.runs.length ? older.value.next : data?.next
	const more = async () => {
		try {
			const page = await get('runs', { limit: 100, before: next })
			older.value = { runs: [...older.value.runs, ...page.runs], next: page.next }
		} catch (err) {
			toast(err.message, 'error')
		}
	}
	return html`
		<div class="page">
			<header class="page-head"><h1>Runs</h1>
				<${Choice} legend="Kind" name="kind" value=${kind.value} onChange=${v => { kind.value = v }} options=${[{ value: '', name: 'All' }, { value: 'sweep', name: 'Sweeps' }, { value: 'pass', name: 'Passes' }]} /></header>
			<p class="lead faint">One proxy at a time leads. It pauses what is idle, to the second (a pass sums up a minute of that), and compares all records with what the hosts say (a sweep).</p>
			${missing && html`<${Empty} icon="pulse" title="This Sandman keeps no account of its runs">It is older than this page.</${Empty}>`}
			${error?.status === 403 && html`<${Empty} icon="lock" title="Not for this token">${error.message}</${Empty}>`}
			${error && !missing && error.status !== 403 && html`<${Failure} error=${error} at=${at} retry=${reload} />`}
			${!data && !error && html`<${Loading} />`}
			${data && html`
				<div class="cards">
					<div class="card fact"><h2>Success</h2><p class="large-number">${Number.isFinite(data.successRate) ? `${(100 * data.successRate).toFixed(data.successRate > 0.99 && data.successRate < 1 ? 2 : 0)} %` : '–'}</p><p class="faint">of pauses, resumes and checks</p></div>
					<div class="card fact"><h2>Last run</h2><p class="large-number">${fresh[0] ? html`<${Ago} at=${fresh[0].startedAt} />` : '–'}</p><p class="faint">${fresh[0] ? fresh[0].kind : 'none yet'}</p></div>
					<div class="card fact"><h2>Paused</h2><p class="large-number">${count(fresh.reduce((n, r) => n + r.paused, 0))}</p><p class="faint">in the last ${plural(fresh.length, 'run')}</p></div>
					<div class="card fact"><h2>Failed</h2><p class=${`large-number ${fresh.some(r => r.failed) ? 'bad' : ''}`}>${count(fresh.reduce((n, r) => n + r.failed, 0))}</p><p class="faint">likewise</p></div>
				</div>
				${!shown.length ? html`<${Empty} icon="pulse" title="No runs yet">The first sweep comes within check_every of the start.</${Empty}>` : html`
				<div class="card scroll" tabindex="0" role="region" aria-label="Runs"><table class="plain numbers runs stack" role="table">
					<thead role="rowgroup"><tr role="row">${['Began', 'Kind', 'Proxy', 'Took', ...Object.values(counts), 'Failed'].map(h => html`<th key=${h} role="columnheader" scope="col">${h}</th>`)}</tr></thead>
					<tbody role="rowgroup">${shown.map(r => html`<${Fragment} key=${r.id}>
						<tr role="row"><th role="rowheader" scope="row" class="name"><time datetime=${r.startedAt} title=${fullTime(r.startedAt)}>${moment(r.startedAt)}</time></th><td role="cell" data-head="Kind"><span class="tag">${r.kind}</span></td><td role="cell" class="mono half" data-head="Proxy">${r.node}</td><td role="cell" data-head="Took">${span(r.durationMs)}</td>
							${Object.entries(counts).map(([f, head]) => html`<td key=${f} role="cell" data-head=${head} class=${r[f] ? '' : 'zero'}>${count(r[f] ?? 0)}</td>`)}<td role="cell" data-head="Failed" class=${r.failed ? 'bad' : 'zero'}>${r.failed ? html`<${Icon} name="alert" />` : ''}${count(r.failed ?? 0)}</td></tr>
						${(r.errors ?? []).length > 0 && html`<tr role="row" class="errors"><td role="cell" colspan="9"><ul>${r.errors.map((e, i) => html`<li key=${i}>${e}</li>`)}</ul></td></tr>`}
					</${Fragment}>`)}</tbody></table></div>`}
				${next && html`<button type="button" class="button" onClick=${more}>Older runs</button>`}`}
		</div>`
}
