// All sandboxes: filters, search, and a live table of thousands.
import { computed, html, memo, signal, useEffect, useRef, useSignal } from '../lib.js'
import { call, one, whyNot, who } from '../api.js'
import { connection, loaded, put, sandboxes, totals, version } from '../live.js'
import { go, link, route, setQuery } from '../route.js'
import { count, plural } from '../format.js'
import { keepAwake, pause, resume } from '../actions.js'
import { Ago, Button, Choice, CountdownOf, Dialog, Empty, Icon, Loading, Note, State, states, toast } from '../ui.js'
import { place, Rows } from '../virtual.js'

const order = ['RUNNING', 'RESUMING', 'PAUSING', 'PAUSED', 'KILLED']
const narrow = matchMedia('(max-width: 760px)')
const isNarrow = signal(narrow.matches)
narrow.addEventListener('change', () => { isNarrow.value = narrow.matches })

// what the visitor looks for is part of the address, so that it can be sent to somebody
const query = computed(() => {
	const q = route.value.query
	const [by, down] = (q.get('sort') ?? 'state').split('-')
	return { state: q.get('state') ?? '', owner: q.get('owner') ?? '', project: q.get('project') ?? '', host: q.get('host') ?? '', text: q.get('q') ?? '', by, down: down === 'down' }
})

function change(values) {
	const { state, owner, project, host, text, by, down } = { ...query.peek(), ...values }
	const sort = by === 'state' && !down ? '' : by + (down ? '-down' : '')
	setQuery({ state, owner, project, host, q: text, sort })
}

const texts = new WeakMap() // an object that changes is another object
function textOf(sb) {
	let text = texts.get(sb)
	if (text === undefined) {
		text = [sb.sandboxID, sb.owner, sb.project, sb.template, ...Object.entries(sb.metadata ?? {}).flat()].join('\n').toLowerCase()
		texts.set(sb, text)
	}
	return text
}

const compare = (a, b) => a < b ? -1 : a > b ? 1 : 0
const sorts = {
	state: sb => order.indexOf(sb.state),
	id: sb => sb.sandboxID,
	owner: sb => `${sb.owner ?? '\uffff'}\n${sb.project ?? ''}`,
	used: sb => sb.lastActivity ? -Date.parse(sb.lastActivity) : Infinity,
	sleep: sb => sb.pauseAt ? Date.parse(sb.pauseAt) : sb.state === 'RUNNING' ? 1e15 : Infinity,
}

const found = computed(() => {
	version.value
	const { state, owner, project, host, text, by, down } = query.value
	const words = text.toLowerCase().split(/\s+/).filter(Boolean)
	const all = []
	for (const sb of sandboxes.values()) {
		if (state ? sb.state !== state : sb.state === 'KILLED') continue
		if (owner && sb.owner !== owner || project && sb.project !== project || host && sb.host !== host) continue
		if (words.length && !words.every(w => textOf(sb).includes(w))) continue
		all.push(sb)
	}
	const key = sorts[by] ?? sorts.state
	const keys = new Map(all.map(sb => [sb, key(sb)]))
	all.sort((a, b) => (down ? -1 : 1) * compare(keys.get(a), keys.get(b)) || compare(a.sandboxID, b.sandboxID))
	return all
})

const options = computed(() => {
	version.value
	const names = { owner: new Set(), project: new Set(), host: new Set() }
	for (const sb of sandboxes.values()) for (const field in names) if (sb[field]) names[field].add(sb[field])
	return Object.fromEntries(Object.entries(names).map(([field, set]) => [field, [...set].sort()]))
})

export function List() {
	const creating = useSignal(false)
	version.value // the map is no signal itself
	const none = loaded.value && sandboxes.size === 0
	return html`
		<div class="page list">
			<header class="page-head">
				<h1>Sandboxes</h1>
				<${Button} kind="primary" icon="plus" role="operator" act=${() => { creating.value = true }}>New sandbox</${Button}>
			</header>
			${!loaded.value && (connection.value.state === 'lost' ? html`<${Empty} icon="unplug" title="Nothing can be shown yet">As soon as Sandman answers, its sandboxes are here.</${Empty}>` : html`<${Loading} what="Reading all sandboxes…" />`)}
			${none && html`<${NoneYet} create=${() => { creating.value = true }} />`}
			${loaded.value && !none && html`<${Filters} /><${Table} />`}
			${creating.value && html`<${Create} onClose=${() => { creating.value = false }} />`}
		</div>`
}

function Filters() {
	const search = useRef()
	useEffect(() => {
		const slash = event => {
			if (event.key !== '/' || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return
			event.preventDefault()
			search.current.focus()
		}
		addEventListener('keydown', slash)
		return () => removeEventListener('keydown', slash)
	}, [])
	const { state, text } = query.value
	const n = totals.value
	const alive = n.RUNNING + n.PAUSING + n.PAUSED + n.RESUMING
	const choices = [{ value: '', name: 'All', count: count(alive) },
		...order.filter(s => n[s] || s === 'RUNNING' || s === 'PAUSED' || s === state).map(s => ({ value: s, name: states[s].name, icon: states[s].icon, count: count(n[s]) }))]
	return html`
		<div class="filters">
			<${Choice} legend="State" name="state" kind="states" value=${state} options=${choices} onChange=${value => change({ state: value })} />
			<div class="filter-fields">
				<label class="search"><${Icon} name="search" /><span class="sr">Search</span>
					<input ref=${search} type="search" placeholder="Search" value=${text} title="By ID, owner, project, template and metadata. Press / to come here." onInput=${event => change({ text: event.target.value })} /><kbd aria-hidden="true">/</kbd></label>
				${['owner', 'project', 'host'].map(field => html`<${Select} key=${field} field=${field} />`)}
			</div>
		</div>`
}

function Select({ field }) {
	const names = options.value[field]
	const value = query.value[field]
	if (!value && names.length < (field === 'host' ? 2 : 1)) return null
	return html`
		<label class="select"><span class="sr">${field}</span>
			<select value=${value} onChange=${event => change({ [field]: event.target.value })}>
				<option value="">Any ${field}</option>
				${!names.includes(value) && value && html`<option value=${value}>${value}</option>`}
				${names.map(name => html`<option key=${name} value=${name}>${name}</option>`)}
			</select></label>`
}

const columns = [['state', 'State'], ['id', 'Sandbox'], ['owner', 'Owner and project'], ['used', 'Last used'], ['sleep', 'Sleeps in'], ['', 'Actions']]

function Table() {
	const items = found.value
	const { by, down } = query.value
	const height = isNarrow.value ? 148 : 56
	return html`
		<div class="table" role="table" aria-label="Sandboxes" aria-rowcount=${items.length + 1} aria-colcount=${columns.length}>
			<div role="rowgroup" class="thead">
				<div role="row" aria-rowindex="1" class="row head">
					${columns.map(([key, name]) => html`
						<div key=${name} role="columnheader" class=${`cell c-${key || 'act'}`} aria-sort=${key && by === key ? (down ? 'descending' : 'ascending') : undefined}>
							${key ? html`<button type="button" class="sort" onClick=${() => change({ by: key, down: by === key && !down })}>${name}${by === key && html`<span aria-hidden="true">${down ? ' ↓' : ' ↑'}</span>`}</button>` : html`<span class="sr">${name}</span>`}
						</div>`)}
				</div>
			</div>
			${items.length ? html`<${Rows} items=${items} keyOf=${sb => sb.sandboxID} height=${height} label=${plural(items.length, 'sandbox', 'sandboxes')} Row=${Row} />`
				: html`<div role="rowgroup" class="rows-none"><div role="row"><div role="cell"><${Empty} icon="search" title="No sandbox matches">
					<button type="button" class="link" onClick=${() => change({ state: '', owner: '', project: '', host: '', text: '' })}>Show all again</button></${Empty}></div></div></div>`}
		</div>
		<p class="foot faint" role="status">${items.length === sandboxes.size ? plural(items.length, 'sandbox', 'sandboxes') : `${count(items.length)} of ${plural(sandboxes.size, 'sandbox', 'sandboxes')}`}</p>`
}

const Row = memo(({ item: sb, index, height }) => {
	const id = sb.sandboxID
	const name = `name-${id}`
	return html`
		<div ...${place(id, index, height)} role="row" class="row" data-sandbox=${id} data-state=${sb.state} onClick=${event => { if (!event.target.closest('a,button,time') && !String(getSelection())) go(`/sandboxes/${id}`) }}>
			<div role="cell" class="cell c-state"><${State} state=${sb.state} /></div>
			<div role="cell" class="cell c-id"><a id=${name} href=${link(`/sandboxes/${id}`)}>${id}</a><span class="faint">${sb.template || sb.host}</span></div>
			<div role="cell" class="cell c-owner"><span>${sb.owner || html`<span class="faint">no owner</span>`}</span><span class="faint">${sb.project}</span></div>
			<div role="cell" class="cell c-used"><${Ago} at=${sb.lastActivity} never="–" /></div>
			<div role="cell" class="cell c-sleep"><${CountdownOf} sb=${sb} />${sb.lastError && html`<span class="error-mark" title=${sb.lastError.message}><${Icon} name="alert" />failed</span>`}</div>
			<div role="cell" class="cell c-act">
				${sb.state === 'RUNNING' && html`<${Button} kind="small" icon="pause" role="operator" describedby=${name} act=${() => pause(id)}>Pause</${Button}>`}
				${sb.state === 'PAUSED' && html`<${Button} kind="small" icon="play" role="operator" describedby=${name} act=${() => resume(id)}>Resume</${Button}>`}
				${(sb.state === 'RUNNING' || sb.state === 'PAUSED') && html`<${Button} kind="small ghost" icon="cup" role="operator" describedby=${name} act=${() => keepAwake(id, '1h')} label="Keep awake"><span class="wide-only">Keep awake</span></${Button}>`}
			</div>
		</div>`
})

function NoneYet({ create }) {
	const origin = location.origin
	return html`
		<${Empty} icon="moon" title=${who.value?.owner ? `${who.value.owner} has no sandboxes yet` : 'No sandboxes yet'}>
			<p>Make one here, or with the E2B SDK pointed at Sandman. One that the host has already is taken in when somebody first opens its address.</p>
			<pre tabindex="0"><code>${`export E2B_API_URL=${origin}/e2b\nexport E2B_SANDBOX_URL=${origin}`}</code></pre>
			<p><${Button} kind="primary" icon="plus" role="operator" act=${create}>New sandbox</${Button}></p>
			${whyNot('operator') && html`<p class="faint">${whyNot('operator')}</p>`}
		</${Empty}>`
}

// metadataOf reads lines such as name=value.
function metadataOf(text) {
	const lines = text.split('\n').map(line => line.trim()).filter(Boolean)
	const wrong = lines.find(line => line.indexOf('=') < 1)
	if (wrong) throw new Error(`“${wrong}” is no metadata. Write name=value, one on each line.`)
	return Object.fromEntries(lines.map(line => [line.slice(0, line.indexOf('=')).trim(), line.slice(line.indexOf('=') + 1).trim()]))
}

// make creates or registers a sandbox, and then says whose it is: under which metadata the host would keep
// that is for the configuration to say.
async function make(how, form) {
	const field = name => (form.get(name) ?? '').trim()
	const body = how === 'template' ? { template: field('what') } : { sandboxID: field('what') }
	const metadata = metadataOf(field('metadata'))
	if (Object.keys(metadata).length) body.metadata = metadata
	const { data } = await call('POST', 'sandboxes', { body, headers: { 'Idempotency-Key': crypto.randomUUID?.() ?? String(Math.random()) } })
	put(data)
	const settings = Object.fromEntries(['owner', 'project'].map(name => [name, field(name)]).filter(([, value]) => value))
	if (Object.keys(settings).length) {
		await call('PATCH', one(data.sandboxID), { body: settings }).then(answer => put(answer.data),
			err => toast(`${data.sandboxID} is there, but its ${Object.keys(settings).join(' and ')} could not be set: ${err.message}`, 'error'))
	}
	return data.sandboxID
}

function Create({ onClose }) {
	const how = useSignal('template')
	const error = useSignal('')
	const busy = useSignal(false)
	const form = useRef()
	const submit = async event => {
		event.preventDefault()
		busy.value = true
		error.value = ''
		try {
			const id = await make(how.value, new FormData(form.current))
			toast(how.value === 'template' ? `${id} was made.` : `${id} is known now.`)
			onClose()
			go(`/sandboxes/${id}`)
		} catch (err) {
			error.value = err.message
			busy.value = false
		}
	}
	return html`
		<${Dialog} title="New sandbox" onClose=${onClose}>
			<form ref=${form} onSubmit=${submit}>
				<${Choice} legend="How" name="how" value=${how.value} onChange=${v => { how.value = v }} options=${[{ value: 'template', name: 'From a template' }, { value: 'register', name: 'One that the host has' }]} />
				<label for="what">${how.value === 'template' ? 'Template' : 'Sandbox ID'}</label>
				<input id="what" name="what" required key=${how.value} defaultValue=${how.value === 'template' ? 'base' : ''} pattern=${how.value === 'template' ? undefined : '[a-z0-9]{1,64}'} autocomplete="off" spellcheck="false" autofocus />
				<div class="pair">
					${!who.value?.owner && html`<div><label for="new-owner">Owner</label><input id="new-owner" name="owner" maxlength="256" placeholder="nobody" autocomplete="off" spellcheck="false" /></div>`}
					<div><label for="new-project">Project</label><input id="new-project" name="project" maxlength="256" placeholder="none" autocomplete="off" spellcheck="false" /></div>
				</div>
				${how.value === 'template' && html`<label for="new-metadata">Metadata</label><textarea id="new-metadata" name="metadata" rows="3" placeholder="name=value, one on each line" spellcheck="false"></textarea>`}
				${error.value && html`<${Note} kind="error" role="alert">${error.value}</${Note}>`}
				<footer><button type="button" class="button" onClick=${onClose}>Cancel</button>
				<button class="button primary" aria-busy=${busy.value ? 'true' : undefined} disabled=${busy.value}>${busy.value ? 'Working…' : how.value === 'template' ? 'Create' : 'Register'}</button></footer>
			</form>
		</${Dialog}>`
}
