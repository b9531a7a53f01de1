// One sandbox: its state and why, when it will sleep, what can be done, its settings and its past.
import { html, useSignal } from '../lib.js'
import { get, one, whyNot } from '../api.js'
import { put, sandbox } from '../live.js'
import { go, link } from '../route.js'
import { now } from '../clock.js'
import { capital, count, fullTime, hourMinute, moment, parseDuration, percent, plural, span } from '../format.js'
import { keepAwake, kill, pause, release, resume } from '../actions.js'
import { Ago, Button, CopyButton, Countdown, Dialog, Empty, Failure, For, Icon, Loading, Note, Section, State, useResource } from '../ui.js'
import { Settings } from './settings.js'
import { Past } from './past.js'

export function Sandbox({ id }) {
	const live = sandbox(id)
	const first = useResource(one(id), { every: live ? 0 : 15_000, deps: [] })
	const sb = live ?? first.data
	// what is asked besides follows each change of the record, and of what goes on through the proxies
	const step = sb ? `${sb.state} ${sb.since} ${sb.lastError?.at} ${sb.pauseAt} ${sb.awakeBecause?.join()}` : ''
	const why = useResource(sb && `${one(id)}/why`, { every: 10_000, deps: [step] })
	const streams = useResource(sb && `${one(id)}/streams`, { every: 10_000, deps: [step] })
	if (!sb) return html`<div class="page">${first.error ? html`<${Missing} id=${id} error=${first.error} />` : html`<${Loading} />`}</div>`
	return html`
		<article class="page one" data-sandbox=${id} data-state=${sb.state}>
			<${Head} sb=${sb} />
			<div class="columns">
				<div class="column">
					<${Now} sb=${sb} why=${why} />
					<${Past} id=${id} step=${`${sb.state} ${sb.since} ${sb.lastError?.at}`} sb=${sb} />
					<${Streams} streams=${streams} why=${why.data} sb=${sb} />
					<${Refused} why=${why.data} />
					<${Repeats} why=${why.data} />
				</div>
				<div class="column side-column">
					<${Settings} sb=${sb} why=${why.data} />
					<${Holds} sb=${sb} />
					<${Facts} sb=${sb} />
				</div>
			</div>
		</article>`
}

function Missing({ id, error }) {
	if (error.status !== 404) return html`<h1 class="mono">${id}</h1><${Failure} error=${error} />`
	return html`<${Empty} icon="search" level=${1} title=${`There is no sandbox ${id}`}><p>Or none that your token may see.</p><p><a href=${link('/')}>All sandboxes</a></p></${Empty}>`
}

function Head({ sb }) {
	return html`
		<header class="page-head one-head">
			<div>
				<a class="back" href=${link('/')}><${Icon} name="back" />Sandboxes</a>
				<h1><span class="mono">${sb.sandboxID}</span><${CopyButton} text=${sb.sandboxID} what="the sandbox’s ID" /></h1>
				<p class="tags">
					${sb.owner && html`<a href=${link('/', { owner: sb.owner })}><span class="faint">owner</span> ${sb.owner}</a>`}
					${sb.project && html`<a href=${link('/', { project: sb.project })}><span class="faint">project</span> ${sb.project}</a>`}
					${sb.template && html`<span><span class="faint">template</span> ${sb.template}</span>`}
					<span><span class="faint">host</span> ${sb.host}</span>
				</p>
			</div>
			<${Actions} sb=${sb} />
		</header>`
}

const spans = [['15m', '15 min'], ['1h', '1 hour'], ['4h', '4 hours']]

function Actions({ sb }) {
	const id = sb.sandboxID
	const length = useSignal('1h')
	const alive = sb.state !== 'KILLED'
	const busy = sb.state === 'PAUSING' || sb.state === 'RESUMING'
	const reason = alive ? 'It is changing right now.' : 'It has ended for good.'
	const no = whyNot('operator')
	return html`
		<div class="actions" role="group" aria-label="Actions">
			${sb.state === 'RUNNING' || sb.state === 'RESUMING'
				? html`<${Button} icon="pause" role="operator" disabled=${sb.state !== 'RUNNING'} reason=${reason} describedby=${no ? 'no-permission' : undefined} act=${() => pause(id)}>Pause</${Button}>`
				: html`<${Button} kind=${sb.state === 'PAUSED' ? 'primary' : ''} icon="play" role="operator" disabled=${sb.state !== 'PAUSED'} reason=${reason} describedby=${no ? 'no-permission' : undefined} act=${() => resume(id)}>Resume</${Button}>`}
			<span class="split">
				<${Button} icon="cup" role="operator" disabled=${!alive || busy} reason=${reason} describedby=${no ? 'no-permission' : undefined} act=${() => keepAwake(id, length.value)}>Keep awake</${Button}>
				<label class="select"><span class="sr">For how long</span>
					<select value=${length.value} disabled=${!!no || !alive} onChange=${e => { length.value = e.target.value }}>${spans.map(([v, name]) => html`<option key=${v} value=${v}>for ${name}</option>`)}</select></label>
			</span>
			${no && html`<p class="denied" id="no-permission"><${Icon} name="lock" />${no}</p>`}
		</div>`
}

// Now is what people come for: the state, when it will sleep, and why.
function Now({ sb, why }) {
	const w = why.data
	return html`
		<section class=${`card now now-${sb.state}`} aria-labelledby="now">
			<h2 class="sr" id="now">Now</h2>
			<div class="now-top">
				<div><${State} state=${sb.state} large /><p class="faint">for <${For} since=${sb.since} /></p></div>
				<${Sleep} sb=${sb} />
			</div>
			${sb.lastError && html`<${Note} kind="error"><b>The last ${sb.lastError.op} failed</b>, <${Ago} at=${sb.lastError.at} />: ${sb.lastError.message}${sb.lastError.retryAt && html` It is tried again at ${moment(sb.lastError.retryAt)}.`}</${Note}>`}
			${w && html`<div class="why"><h3>Why</h3><ul>${w.words.map(line => html`<li key=${line}>${line}</li>`)}</ul></div>`}
			${why.error && !why.missing && html`<${Failure} error=${why.error} at=${why.at} />`}
			${!w && !why.error && html`<${Loading} />`}
			${why.missing && html`<p>${sb.reason}</p>`}
		</section>`
}

function Sleep({ sb }) {
	if (sb.state === 'RUNNING' && sb.storeAway) {
		return html`<div class="sleep"><p class="faint">Sleeps</p><p class="because">not while the session store is out of reach</p></div>`
	}
	if (sb.state === 'RUNNING' && sb.pauseAt) {
		const whole = parseDuration(sb.idleTimeout)
		const left = Math.max(0, Math.min(1, (Date.parse(sb.pauseAt) - now.value) / whole))
		return html`
			<div class="sleep"><p class="faint">Sleeps in</p><p class="big"><${Countdown} until=${sb.pauseAt} /></p>
				<div class="gauge" aria-hidden="true"><i style=${{ transform: `scaleX(${left})` }}></i></div>
				<p class="faint">unless somebody uses it</p></div>`
	}
	const until = Math.max(...(sb.holds ?? []).map(h => Date.parse(h.expiresAt)))
	if (sb.state === 'RUNNING' && until > now.value) {
		const users = (sb.awakeBecause ?? []).filter(b => !b.startsWith('hold '))
		return html`<div class="sleep"><p class="faint">Kept awake until</p><p class="big">${hourMinute(until)}</p><p class="faint">${users.length ? `and in use: ${users.join(', ')}` : `by ${plural(sb.holds.length, 'hold')}`}</p></div>`
	}
	if (sb.state === 'RUNNING') {
		const because = sb.awakeBecause ?? []
		return html`<div class="sleep"><p class="faint">Kept awake by</p><p class="because">${because.length ? because.join(', ') : 'something that just ended'}</p></div>`
	}
	if (sb.state === 'PAUSED') return html`<div class="sleep"><p class="faint">Reason</p><p class="because">${capital(sb.reason)}</p></div>`
	return html`<div class="sleep"><p class="faint">Reason</p><p class="because">${capital(sb.reason)}</p></div>`
}

function Streams({ streams, why, sb }) {
	const open = streams.data?.streams ?? []
	const n = why?.streams
	const aside = n && html`<span class="faint">${[[n.active, 'active'], [n.dormant, 'dormant'], [n.parked, 'parked'], [n.unnamed, 'more elsewhere']].filter(([k]) => k).map(([k, name]) => `${count(k)} ${name}`).join(' · ')}</span>`
	if (streams.missing) return null
	const nodes = [...new Set(open.map(s => s.node))]
	return html`
		<${Section} id="streams" title="Open streams" aside=${aside}>
			${streams.error && html`<${Failure} error=${streams.error} at=${streams.at} />`}
			${streams.data && !open.length && html`<p class="nothing">No WebSocket or event stream is open${sb.state === 'PAUSED' && sb.parked ? `; ${plural(sb.parked, 'was', 'were')} open when it was paused, and their pages reconnect by themselves` : ''}.</p>`}
			${nodes.map(node => html`
				<table class="plain streams" key=${node}><caption>through proxy <span class="mono">${node}</span></caption>
					<thead><tr><th scope="col">State</th><th scope="col">Stream</th><th scope="col">Open for</th><th scope="col">Last use</th></tr></thead>
					<tbody>${open.filter(s => s.node === node).map((s, i) => html`
						<tr key=${i}><td><span class=${`tag tag-${s.state}`} title=${streamStates[s.state]}>${s.state}</span></td>
							<td><span class="mono clip" title=${s.path}>${s.path || '/'}</span><span class="faint clip">${s.kind}${s.preset ? `, ${s.preset}` : ''}</span></td>
							<td><${For} since=${s.since} /></td><td><${Ago} at=${s.lastCounted} /></td></tr>`)}</tbody>
				</table>`)}
		</${Section}>`
}

const streamStates = {
	active: 'It keeps the sandbox awake.',
	dormant: 'It has carried nothing that counts for the idle timeout, and does not keep the sandbox awake.',
	parked: 'It waits for the sandbox, which sleeps.',
}

function Refused({ why }) {
	if (!why?.refused.length) return null
	return html`
		<${Section} id="refused" title="Did not wake it" aside=${html`<span class="faint">the last ${why.refused.length}</span>`}>
			<ul class="lines">${why.refused.map((r, i) => html`
				<li key=${i}><div class="line-head"><span class="mono clip" title=${r.what}>${r.what}</span><span class="tag">${r.reason}</span><span class="faint">${r.count > 1 ? `${count(r.count)} times, ` : ''}<${Ago} at=${r.at} /></span></div>
					<p>${r.words}</p><p class="faint">${r.change}</p></li>`)}</ul>
		</${Section}>`
}

function Repeats({ why }) {
	if (!why?.repeats.length) return null
	return html`
		<${Section} id="repeats" title="Comes like clockwork">
			<ul class="lines">${why.repeats.map((r, i) => html`
				<li key=${i}><div class="line-head"><span class="mono clip" title=${r.what}>${r.path || ''} ${r.what}</span><span class="tag">${r.kind}</span><span class="faint">every ${span(parseDuration(r.every))}, ${count(r.count)} times</span></div>
					<p>${r.rule ? 'It comes like clockwork, and counts as use. If no person sends it, add this rule to the site’s noise:' : r.words}</p>
					${r.rule && html`<div class="code"><code tabindex="0">${r.rule}</code><${CopyButton} text=${r.rule} what="the rule" /></div>`}</li>`)}</ul>
		</${Section}>`
}

function Holds({ sb }) {
	if (!sb.holds) return null // an older Sandman
	return html`
		<${Section} id="holds" title="Kept awake">
			${!sb.holds.length && html`<p class="nothing">No hold: it sleeps when nobody uses it.</p>`}
			<ul class="lines">${sb.holds.map(h => html`
				<li key=${h.name} class="hold"><div><b>${h.name}</b><p class="faint" title=${fullTime(h.expiresAt)}>${h.reason}${h.by ? `${h.reason ? ', ' : ''}by ${h.by}` : ''}, <${Left} until=${h.expiresAt} /></p></div>
					<${Button} kind="small" icon="cross" role="operator" label=${`End the hold ${h.name}`} act=${() => release(sb.sandboxID, h.name)}>End</${Button}></li>`)}</ul>
		</${Section}>`
}

const Left = ({ until }) => html`<span class="tabular">for ${span(Math.max(0, Date.parse(until) - now.value))} more</span>`

function Facts({ sb }) {
	const ending = useSignal(false)
	const uncounted = Math.max(0, now.value - Date.parse(sb.countedTo ?? sb.since)) // by the totals
	const ran = (sb.totals?.runningMs ?? 0) + (['RUNNING', 'PAUSING', 'RESUMING'].includes(sb.state) ? uncounted : 0)
	const slept = (sb.totals?.pausedMs ?? 0) + (sb.state === 'PAUSED' ? uncounted : 0)
	const facts = [
		['Last used', sb.activityKind === 'adopted' ? html`<span class="faint">not since it was first seen, <${Ago} at=${sb.lastActivity} /></span>` : html`<${Ago} at=${sb.lastActivity} />${sb.activityKind ? html` <span class="faint">${sb.activityKind}</span>` : ''}`],
		['Known since', html`<time datetime=${sb.createdAt} title=${fullTime(sb.createdAt)}>${moment(sb.createdAt)}</time>`],
		['Ran in all', span(ran)], ['Slept in all', `${span(slept)} (${percent(slept, ran + slept)})`],
		['Pauses', count(sb.totals?.pauses ?? 0)], ['Wakes', count(sb.totals?.wakes ?? 0)],
	]
	return html`
		<${Section} id="facts" title="Facts">
			<dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
				${Object.entries(sb.metadata ?? {}).map(([k, v]) => html`<div key=${`m-${k}`}><dt class="mono">${k}</dt><dd class="clip" title=${v}>${v}</dd></div>`)}</dl>
			${sb.state !== 'KILLED' && html`<p class="danger-zone"><${Button} kind="danger small" icon="trash" role="admin" act=${() => { ending.value = true }}>End for good…</${Button}></p>`}
			${ending.value && html`<${End} id=${sb.sandboxID} onClose=${() => { ending.value = false }} />`}
		</${Section}>`
}

function End({ id, onClose }) {
	return html`
		<${Dialog} title="End this sandbox for good?" onClose=${onClose}>
			<p><span class="mono">${id}</span> is killed at its host. Its memory, its processes and its files are gone, and nothing brings them back.</p>
			<footer><button type="button" class="button" onClick=${onClose}>Keep it</button>
				<${Button} kind="danger" icon="trash" act=${async () => { await kill(id); onClose(); get(one(id)).then(put, () => go('/')) }}>End it</${Button}></footer>
		</${Dialog}>`
}
