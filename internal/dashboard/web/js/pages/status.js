// How Sandman itself is doing.
import { html } from '../lib.js'
import { capital, count, parseDuration, span } from '../format.js'
import { Failure, Icon, Loading, Note, Section, states, State, useResource } from '../ui.js'

const Sign = ({ ok, text }) => html`<span class=${`sign ${ok ? 'ok' : 'bad'}`}><${Icon} name=${ok ? 'check' : 'alert'} />${text ?? (ok ? 'works' : 'does not work')}</span>`

export function Status() {
	const { data: s, error, at, reload } = useResource('status', { every: 5000 })
	return html`
		<div class="page">
			<header class="page-head"><h1>Status</h1></header>
			${error && html`<${Failure} error=${error} at=${at} retry=${reload} />`}
			${!s && !error && html`<${Loading} />`}
			${s && html`
				<section class=${`card verdict ${s.status}`} aria-labelledby="verdict"><${Icon} name=${s.status === 'ok' ? 'check' : 'alert'} />
					<div><h2 id="verdict">${s.status === 'ok' ? 'All is well' : 'Something does not work'}</h2><p class="faint">Sandman ${s.version}, up for ${span(parseDuration(s.uptime))}, this is proxy <span class="mono">${s.node}</span></p></div></section>
				<div class="columns even">
					<${Section} id="store" title="Session store" aside=${html`<${Sign} ok=${s.store.ok} />`}>
						${s.store.error ? html`<${Note} kind="error">${capital(s.store.error)}</${Note}><p class="faint">Running sandboxes are served, sleeping ones are resumed through their host, and nothing is paused until it is back.</p>` : html`<p class="nothing">Etcd answers.</p>`}
						${s.brokenRecords > 0 && html`<${Note} kind="error">${count(s.brokenRecords)} stored records can’t be read.</${Note}>`}
					</${Section}>
					<${Section} id="leader" title="Leader" aside=${html`<${Sign} ok=${!!s.leader.node} text=${s.leader.node ? (s.leader.me ? 'this proxy' : 'another proxy') : 'nobody'} />`}>
						<p class="nothing">${s.leader.node ? html`<span class="mono">${s.leader.node}</span> puts idle sandboxes to sleep.` : 'Until somebody leads, nothing is put to sleep. A new leader is elected within the lease’s time.'}</p>
					</${Section}>
					<${Section} id="hosts" title="Hosts">
						<ul class="lines">${s.hosts.map(h => html`<li key=${h.name}><div class="line-head"><b>${h.name}</b><${Sign} ok=${h.ok} />${h.freezer && html`<span class="faint">pauses by ${h.freezer}</span>`}</div>${h.error && html`<p>${capital(h.error)}</p>`}</li>`)}</ul>
						${!s.hosts.length && html`<p class="nothing">None is configured.</p>`}
					</${Section}>
					${s.nodes && html`<${Section} id="nodes" title="Proxies" aside=${html`<span class="faint">${count(s.nodes.length)}</span>`}>
						<ul class="lines">${s.nodes.map(n => { const name = n.node ?? n.name ?? n; return html`<li key=${name}><div class="line-head"><span class="mono">${name}</span>${name === s.node && html`<span class="tag">this one</span>`}${name === s.leader.node && html`<span class="tag">leads</span>`}</div></li>` })}</ul>
					</${Section}>`}
					${s.sandboxes && html`<${Section} id="counts" title="Sandboxes"><dl class="facts">${Object.keys(states).map(state => html`<div key=${state}><dt><${State} state=${state} /></dt><dd>${count(s.sandboxes[state] ?? 0)}</dd></div>`)}</dl></${Section}>`}
				</div>`}
		</div>`
}
