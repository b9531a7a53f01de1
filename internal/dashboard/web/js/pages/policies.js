// The settings of owners and projects, which hold for their sandboxes unless these have their own.
import { html, useSignal } from '../lib.js'
import { call, whyNot } from '../api.js'
import { parseDuration, plural, shortDuration } from '../format.js'
import { sandboxes, version } from '../live.js'
import { Ago, Button, Choice, Dialog, Empty, Failure, Icon, Loading, Note, toast, useResource } from '../ui.js'

const kinds = { owners: 'Owner', projects: 'Project' }
const pathOf = p => `policies/${p.kind}/${encodeURIComponent(p.name)}`

// flat makes one list of the two.
const flat = data => [...(data?.owners ?? []).map(p => ({ ...p, kind: 'owners' })), ...(data?.projects ?? []).map(p => ({ ...p, kind: 'projects' }))]

// holds says what is true of all sandboxes.
function holds({ idleTimeout, limits }) {
	const most = limits?.maxIdleTimeout
	return `The configured default is ${shortDuration(idleTimeout)}; an idle timeout is at least ${shortDuration(limits.minIdleTimeout)}${most ? ` and at most ${shortDuration(most)}` : ''}.`
}

export function Policies() {
	const { data, error, missing, at, reload } = useResource('policies', { every: 30_000 })
	const editing = useSignal(null)
	const no = whyNot('admin')
	const all = flat(data)
	version.value
	const has = p => [...sandboxes.values()].filter(sb => sb.state !== 'KILLED' && sb[p.kind === 'owners' ? 'owner' : 'project'] === p.name).length
	const remove = async p => {
		await call('DELETE', pathOf(p))
		toast(`The policy of ${p.name} is gone.`)
		await reload()
	}
	if (error?.status === 403) return html`<div class="page"><header class="page-head"><h1>Policies</h1></header><${Empty} icon="lock" title="Not for this token">${whyNot('operator') || error.message}</${Empty}></div>`
	return html`
		<div class="page">
			<header class="page-head"><h1>Policies</h1>${!missing && html`<${Button} kind="primary" icon="plus" role="admin" act=${() => { editing.value = { kind: 'owners', name: '', fresh: true } }}>New policy</${Button}>`}</header>
			<p class="lead faint">A sandbox’s own settings come first, then its project’s, then its owner’s, then the configured default; all within the operator’s limits. ${data?.limits && holds(data)}</p>
			${missing && html`<${Empty} icon="sliders" title="This Sandman knows no policies">It is older than this page. Each sandbox has its own settings on its page.</${Empty}>`}
			${error && !missing && html`<${Failure} error=${error} at=${at} retry=${reload} />`}
			${!data && !error && html`<${Loading} />`}
			${no && data && html`<p class="denied"><${Icon} name="lock" />${no}</p>`}
			${data && (all.length === 0 ? html`<${Empty} icon="sliders" title="No policies yet">All sandboxes go by the configured defaults, or by their own settings.</${Empty}>` : html`
				<div class="card scroll" tabindex="0" role="region" aria-label="All policies"><table class="plain stack" role="table">
					<thead role="rowgroup"><tr role="row">${['Name', 'Of', 'Idle timeout', 'At most', 'Woken by', 'Sandboxes', 'Changed'].map(h => html`<th key=${h} role="columnheader" scope="col">${h}</th>`)}<th role="columnheader" scope="col"><span class="sr">Actions</span></th></tr></thead>
					<tbody role="rowgroup">${all.map(p => html`
						<tr key=${p.kind + p.name} role="row"><th role="rowheader" scope="row" class="name">${p.name}</th><td role="cell" data-head="Of"><span class="tag">${kinds[p.kind] ?? p.kind}</span></td><td role="cell" data-head="Idle timeout">${p.idleTimeout ? shortDuration(p.idleTimeout) : html`<span class="faint">default</span>`}</td><td role="cell" data-head="At most">${p.maxIdleTimeout ? shortDuration(p.maxIdleTimeout) : html`<span class="faint">–</span>`}</td>
							<td role="cell" data-head="Woken by">${p.wakePolicy || html`<span class="faint">default</span>`}</td><td role="cell" data-head="Sandboxes">${plural(has(p), 'sandbox', 'sandboxes')}</td><td role="cell" data-head="Changed"><${Ago} at=${p.updatedAt} never="–" /> <span class="faint">${p.updatedBy}</span></td>
							<td role="cell" class="row-actions name"><${Button} kind="small" role="admin" label=${`Change the policy of ${p.name}`} act=${() => { editing.value = p }}>Change</${Button}><${Button} kind="small ghost icon-only" icon="trash" role="admin" label=${`Delete the policy of ${p.name}`} act=${() => remove(p)} /></td></tr>`)}</tbody></table></div>`)}
			${editing.value && html`<${Edit} policy=${editing.value} onClose=${() => { editing.value = null }} done=${reload} />`}
		</div>`
}

function Edit({ policy, onClose, done }) {
	const kind = useSignal(policy.kind)
	const problem = useSignal('')
	const busy = useSignal(false)
	const save = async event => {
		event.preventDefault()
		const form = new FormData(event.target)
		const name = policy.fresh ? form.get('name').trim() : policy.name
		const body = {}
		for (const field of ['idleTimeout', 'maxIdleTimeout', 'wakePolicy']) {
			const value = form.get(field).trim()
			if (value) body[field] = value
			if (value && field !== 'wakePolicy' && !Number.isFinite(parseDuration(value))) {
				problem.value = `“${value}” is no duration. Write 90s, 10m or 1h30m.`
				return
			}
		}
		busy.value = true
		problem.value = ''
		try {
			const path = pathOf({ kind: kind.value, name })
			const headers = {}
			// what somebody else has set or changed since the list was read is not written over
			const there = await call('GET', path).catch(err => {
				if (err.status === 404) return null
				throw err
			})
			if (policy.fresh && there) throw new Error(`There is a policy of ${name} already, by ${there.data.updatedBy}. Change that one.`)
			if (!policy.fresh && there?.data.updatedAt !== policy.updatedAt) throw new Error(`${there?.data.updatedBy ?? 'Somebody'} has changed it meanwhile. Close this and look again.`)
			if (there) headers['If-Match'] = there.etag
			await call('PUT', path, { body, headers })
			toast(`The policy of ${name} is saved.`)
			await done()
			onClose()
		} catch (err) {
			problem.value = err.message
			busy.value = false
		}
	}
	return html`
		<${Dialog} title=${policy.fresh ? 'New policy' : `Policy of ${policy.name}`} onClose=${onClose}>
			<form onSubmit=${save}>
				${policy.fresh && html`
					<${Choice} legend="Of" name="policy-kind" value=${kind.value} onChange=${v => { kind.value = v }} options=${[{ value: 'owners', name: 'An owner' }, { value: 'projects', name: 'A project' }]} />
					<label for="policy-name">${kinds[kind.value]}</label><input id="policy-name" name="name" required autocomplete="off" spellcheck="false" maxlength="256" />`}
				<label for="policy-idle">Idle timeout</label><input id="policy-idle" name="idleTimeout" defaultValue=${policy.idleTimeout ? shortDuration(policy.idleTimeout) : ''} placeholder="the default" autocomplete="off" />
				<label for="policy-max">At most, for their sandboxes’ own settings</label><input id="policy-max" name="maxIdleTimeout" defaultValue=${policy.maxIdleTimeout ? shortDuration(policy.maxIdleTimeout) : ''} placeholder="the operator’s limit" autocomplete="off" />
				<label for="policy-wake">Woken by</label><div class="select"><select id="policy-wake" name="wakePolicy">${[['', 'the default'], ['any', 'any request'], ['intent', 'people and programs (intent)'], ['manual', 'only by hand']].map(([v, n]) => html`<option key=${v} value=${v} selected=${v === (policy.wakePolicy ?? '')}>${n}</option>`)}</select></div>
				${problem.value && html`<${Note} kind="error" role="alert">${problem.value}</${Note}>`}
				<footer><button type="button" class="button" onClick=${onClose}>Cancel</button><button class="button primary" disabled=${busy.value} aria-busy=${busy.value ? 'true' : undefined}>Save</button></footer>
			</form>
		</${Dialog}>`
}
