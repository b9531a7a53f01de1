// What sleeping has saved, against being always on and against the host's own timeout.
import { html, useEffect, useRef, useSignal } from '../lib.js'
import { link, route, setQuery } from '../route.js'
import { serverNow } from '../clock.js'
import { count, day, hours, money, percent, shortDuration } from '../format.js'
import { Choice, Empty, Failure, Loading, Section, useResource } from '../ui.js'

// the API's days are UTC's
const iso = date => date.toISOString().slice(0, 10)
const daysAgo = n => iso(new Date(serverNow() - n * day))

function spanOf(range, query) {
	const today = new Date(serverNow())
	switch (range) {
		case 'today': return {}
		case '7d': return { from: daysAgo(6), to: iso(today) }
		case 'month': return { from: `${iso(today).slice(0, 8)}01`, to: iso(today) }
		default: return { from: query.get('from') || daysAgo(29), to: query.get('to') || iso(today) }
	}
}

export function Savings() {
	const q = route.value.query
	const range = q.get('range') ?? 'month'
	const group = q.get('group') ?? 'project'
	const { from, to } = spanOf(range, q)
	const filter = { owner: q.get('owner') ?? '', project: q.get('project') ?? '' }
	const change = values => setQuery({ range: range === 'month' ? '' : range, group: group === 'project' ? '' : group, ...(range === 'range' ? { from, to } : {}), ...filter, ...values })
	const { data, error, missing, at, reload } = useResource('savings', { query: { from, to, group, ...filter }, every: 60_000 })
	const priced = data?.pricePerMinute > 0
	const cash = n => money(n, data?.currency)
	return html`
		<div class="page">
			<header class="page-head"><h1>Savings</h1>
				<div class="head-fields">
					<${Choice} legend="Time" name="range" value=${range} onChange=${v => change({ range: v === 'month' ? '' : v, ...(v === 'range' ? { from: from ?? daysAgo(29), to: to ?? iso(new Date()) } : { from: '', to: '' }) })}
						options=${[{ value: 'today', name: 'Today' }, { value: '7d', name: '7 days' }, { value: 'month', name: 'This month' }, { value: 'range', name: 'Range' }]} />
					${range === 'range' && html`<span class="dates"><label><span class="sr">From</span><input type="date" value=${from} max=${to} onChange=${e => change({ from: e.target.value })} /></label>–<label><span class="sr">To</span><input type="date" value=${to} min=${from} onChange=${e => change({ to: e.target.value })} /></label></span>`}
				</div>
			</header>
			${(filter.owner || filter.project) && html`<p class="tags">Only ${filter.owner || filter.project} <button type="button" class="link" onClick=${() => change({ owner: '', project: '' })}>Show all</button></p>`}
			${missing && html`<${Empty} icon="chart" title="This Sandman does not count savings">It is older than this page. What each sandbox ran and slept is on the sandbox’s own page.</${Empty}>`}
			${error?.status === 403 && html`<${Empty} icon="lock" title="Not for this token">${error.message}</${Empty}>`}
			${error && !missing && error.status !== 403 && html`<${Failure} error=${error} at=${at} retry=${reload} />`}
			${!data && !error && html`<${Loading} />`}
			${data && !missing && html`
				<${Total} total=${data.total} price=${data.pricePerMinute} cash=${cash} timeout=${data.hostTimeout} />
				${(data.days ?? []).length > 1 && html`<${Section} id="days" title="Day by day"><${Plot} days=${data.days} priced=${priced} cash=${cash} /></${Section}>`}
				<${Groups} groups=${data.groups ?? []} group=${group} priced=${priced} cash=${cash} change=${change} filter=${filter} />`}
		</div>`
}

function Total({ total, price, cash, timeout }) {
	const host = `The host’s own timeout${timeout ? ` (${shortDuration(timeout)})` : ''}`
	const priced = price > 0
	const rows = priced
		? [['With Sandman', total.cost, 'own'], [host, total.hostTimeoutCost, 'host'], ['Always on', total.alwaysOnCost, 'always']]
		: [['With Sandman', total.runningMs, 'own'], [host, total.hostTimeoutMs, 'host'], ['Always on', total.alwaysOnMs, 'always']]
	const most = Math.max(...rows.map(r => r[1]), 1e-9)
	const show = priced ? cash : hours
	const saved = priced ? total.saved : total.alwaysOnMs - total.runningMs
	return html`
		<section class="card totals" aria-labelledby="saved">
			<div class="headline"><h2 id="saved">Saved</h2><p class="huge">${show(saved)}</p><p class="faint">${percent(saved, priced ? total.alwaysOnCost : total.alwaysOnMs)} of what always on would ${priced ? 'cost' : 'run'}</p></div>
			<dl class="compare">${rows.map(([name, value, kind]) => html`
				<div key=${name}><dt>${name}</dt><dd><span class="track" aria-hidden="true"><i class=${kind} style=${{ width: `${100 * value / most}%` }}></i></span><b>${show(value)}</b></dd></div>`)}</dl>
			<p class="faint foot">Ran ${hours(total.runningMs)}, slept ${hours(total.pausedMs)}. ${priced ? `At ${cash(price)} a minute of running, as price_per_minute says.` : html`Hours only: the Caddyfile gives no <code>price_per_minute</code>.`}</p>
		</section>`
}

const series = ['With Sandman', 'The host’s own timeout', 'Always on']
const names = { owner: 'Owner', project: 'Project', sandbox: 'Sandbox' }

function Groups({ groups, group, priced, cash, change, filter }) {
	const heads = ['Ran', 'Slept', ...(priced ? ['Cost', 'Host’s timeout', 'Always on', 'Saved'] : []), 'Share']
	const cells = g => [hours(g.runningMs), hours(g.pausedMs), ...(priced ? [g.cost, g.hostTimeoutCost, g.alwaysOnCost, g.saved].map(cash) : []),
		priced ? percent(g.saved, g.alwaysOnCost) : percent(g.pausedMs, g.alwaysOnMs)]
	return html`
		<${Section} id="groups" title=${`By ${group}`} aside=${html`<${Choice} legend="Group by" name="group" value=${group} kind="small" onChange=${v => change({ group: v === 'project' ? '' : v })} options=${Object.entries(names).map(([value, name]) => ({ value, name }))} />`}>
			${!groups.length ? html`<p class="nothing">Nothing ran or slept in this time.</p>` : html`
			<div class="scroll" tabindex="0" role="region" aria-label=${`By ${group}, in numbers`}><table class="plain numbers stack" role="table">
				<thead role="rowgroup"><tr role="row">${[names[group], ...heads].map(h => html`<th key=${h} role="columnheader" scope="col">${h}</th>`)}</tr></thead>
				<tbody role="rowgroup">${groups.slice(0, 200).map(g => html`
					<tr key=${g.name} role="row"><th role="rowheader" scope="row" class="name">${g.name ? group === 'sandbox' ? html`<a class="mono" href=${link(`/sandboxes/${g.name}`)}>${g.name}</a>` : html`<button type="button" class="link" onClick=${() => change({ ...filter, [group]: g.name, group: 'sandbox' })}>${g.name}</button>` : html`<span class="faint">no ${group}</span>`}</th>
						${cells(g).map((value, i) => html`<td key=${heads[i]} role="cell" data-head=${heads[i]}>${heads[i] === 'Saved' ? html`<b>${value}</b>` : value}</td>`)}</tr>`)}</tbody></table></div>
			${groups.length > 200 && html`<p class="faint">The first 200 of ${count(groups.length)}.</p>`}`}
		</${Section}>`
}

// Plot draws with uPlot, which is loaded only here, and is told again in a table for who can't see it.
function Plot({ days, priced, cash }) {
	const box = useRef()
	const failed = useSignal(false)
	const pointed = useSignal(null)
	const fields = priced ? ['cost', 'hostTimeoutCost', 'alwaysOnCost'] : ['runningMs', 'hostTimeoutMs', 'alwaysOnMs']
	const show = priced ? cash : hours
	useEffect(() => {
		const element = box.current // it is gone before its observer is
		let plot
		let gone = false
		let redraw = () => {}
		const draw = async () => {
			const { default: UPlot } = await loadPlot()
			if (gone) return
			redraw = () => {
				plot?.destroy()
				plot = new UPlot(plotOptions(UPlot, element, priced && cash, i => { pointed.value = i }), plotData(days, fields, priced), element)
			}
			redraw()
		}
		draw().catch(() => { failed.value = true })
		const resize = new ResizeObserver(() => plot?.setSize({ width: element.clientWidth, height: 240 }))
		resize.observe(element)
		const dark = matchMedia('(prefers-color-scheme: dark)')
		const again = () => redraw()
		dark.addEventListener('change', again)
		addEventListener('themechange', again)
		return () => {
			gone = true
			resize.disconnect()
			dark.removeEventListener('change', again)
			removeEventListener('themechange', again)
			plot?.destroy()
		}
	}, [JSON.stringify(days), priced])
	return html`
		<ul class="legend" aria-hidden="true">${['own', 'host', 'always'].map((kind, i) => html`<li key=${kind} class=${kind}>${series[i]}${days[pointed.value] && html` <b>${show(days[pointed.value][fields[i]])}</b>`}</li>`)}
			${days[pointed.value] && html`<li class="day">${days[pointed.value].day}</li>`}</ul>
		<div class="plot" ref=${box} role="img" aria-label="Each day: with Sandman, with the host’s own timeout, and always on. The table below has the same numbers."></div>
		${failed.value && html`<p class="faint">The plot could not be loaded; the numbers are below.</p>`}
		<details><summary>The numbers</summary>
			<div class="scroll" tabindex="0" role="region" aria-label="Day by day, in numbers"><table class="plain numbers"><thead><tr><th scope="col">Day</th><th scope="col">With Sandman</th><th scope="col">Host’s timeout</th><th scope="col">Always on</th></tr></thead>
				<tbody>${days.map(d => html`<tr key=${d.day}><th scope="row">${d.day}</th>${fields.map(f => html`<td key=${f}>${show(d[f])}</td>`)}</tr>`)}</tbody></table></div></details>`
}

let loading
function loadPlot() {
	loading ??= new Promise((done, fail) => {
		const style = Object.assign(document.createElement('link'), { rel: 'stylesheet', href: 'vendor/uplot/uPlot.min.css' })
		style.onload = () => import('../../vendor/uplot/uPlot.esm.js').then(done, fail)
		style.onerror = fail
		document.head.append(style)
	})
	return loading
}

const plotData = (days, fields, priced) => [days.map(d => Date.parse(`${d.day}T00:00:00`) / 1000), ...fields.map(f => days.map(d => priced ? d[f] : d[f] / 3_600_000))]

// plotOptions draws into box, in hours unless there is cash, and tells point which day is pointed at.
function plotOptions(UPlot, box, cash, point) {
	const style = getComputedStyle(box)
	const color = name => style.getPropertyValue(name).trim()
	const axis = { stroke: resolve(box, '--faint'), grid: { stroke: resolve(box, '--line'), width: 1 }, ticks: { show: false }, font: `12px ${color('font-family') || 'sans-serif'}` }
	const bars = UPlot.paths.bars({ size: [0.6, 40], radius: 0.15 })
	return {
		hooks: { setCursor: [plot => point(plot.cursor.idx ?? null)] },
		width: box.clientWidth, height: 240, cursor: { points: { show: false }, drag: { x: false, y: false } }, legend: { show: false },
		scales: { x: { time: true, range: (_, min, max) => [min - 43_200, max + 43_200] }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
		axes: [{ ...axis, grid: { show: false }, space: 70, size: 30, values: (_, ticks) => ticks.map(t => new Date(t * 1000).toLocaleDateString(undefined, { month: 'short', day: 'numeric' })) },
			{ ...axis, size: 66, values: (_, ticks) => ticks.map(v => cash ? cash(v) : `${v}h`) }],
		series: [{}, { fill: resolve(box, '--accent'), stroke: resolve(box, '--accent'), width: 0, paths: bars, points: { show: false } },
			{ stroke: resolve(box, '--host'), width: 2, points: { size: 5, fill: resolve(box, '--host') } },
			{ stroke: resolve(box, '--always'), width: 2, dash: [5, 4], points: { show: false } }],
	}
}

// resolve gives the color that a variable means here; a canvas knows no variables.
function resolve(box, name) {
	const probe = box.appendChild(document.createElement('i'))
	probe.style.color = `var(${name})`
	const color = getComputedStyle(probe).color
	probe.remove()
	return color
}
