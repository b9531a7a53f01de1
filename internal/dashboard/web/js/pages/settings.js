// The settings of one sandbox. What others change meanwhile is never written over unseen.
import { html, useRef, useSignal } from '../lib.js'
import { call, one, whyNot } from '../api.js'
import { put } from '../live.js'
import { parseDuration, shortDuration } from '../format.js'
import { Icon, Note, Section, toast } from '../ui.js'

const policies = { any: 'any request', intent: 'people and programs (intent)', manual: 'only by hand' }
const sources = { sandbox: 'its own', project: 'by its project’s policy', owner: 'by its owner’s policy', default: 'the default', site: 'by its site' }

// values are the settings as the form has them; what is not the sandbox's own is empty.
function values(sb, source) {
	const own = from => !from || from === 'sandbox'
	return { idleTimeout: own(source) ? shortDuration(sb.idleTimeout) : '', wakePolicy: own(sb.wakePolicyFrom) ? sb.wakePolicy ?? '' : '', owner: sb.owner ?? '', project: sb.project ?? '' }
}

export function Settings({ sb, why }) {
	const setting = why?.settings.find(s => s.name === 'idleTimeout')
	const source = sb.idleTimeoutFrom ?? setting?.source
	const now = values(sb, source)
	const edited = useSignal({}) // only what was typed
	const began = useRef(null) // what was there when the typing began
	const problem = useSignal(null)
	const busy = useSignal(false)
	const no = whyNot('operator') || (sb.state === 'KILLED' ? 'It has ended for good.' : '')
	const form = { ...now, ...edited.value }
	const dirty = Object.keys(edited.value).some(k => edited.value[k] !== now[k])

	const type = (name, value) => {
		began.current ??= now
		edited.value = { ...edited.value, [name]: value }
	}
	const reset = () => {
		edited.value = {}
		began.current = null
		problem.value = null
	}
	const save = async event => {
		event.preventDefault()
		if (form.idleTimeout && !Number.isFinite(parseDuration(form.idleTimeout))) {
			problem.value = { text: 'Give the idle timeout as a duration such as 90s, 10m or 1h30m, or nothing for the default.', field: 'idleTimeout' }
			return
		}
		busy.value = true
		problem.value = null
		try {
			put(await patch(sb.sandboxID, edited.value, began.current ?? now, source))
			reset()
			toast('The settings are saved.')
		} catch (err) {
			if (err.seen) began.current = err.seen
			problem.value = { text: err.message, field: err.problem?.errors?.[0]?.location?.replace('body.', '') }
		}
		busy.value = false
	}
	const field = (name, label, hint, input) => html`
		<div class=${`field ${problem.value?.field === name ? 'wrong' : ''}`}><label for=${`set-${name}`}>${label}</label>${input}${hint && html`<p class="faint" id=${`hint-${name}`}>${hint}</p>`}</div>`
	const inherited = sb.wakePolicyFrom && sb.wakePolicyFrom !== 'sandbox' && sb.wakePolicy ? `${policies[sb.wakePolicy]}, ${sources[sb.wakePolicyFrom]}` : 'as its project, owner or site says'
	const text = (name, placeholder) => html`<input id=${`set-${name}`} value=${form[name]} disabled=${!!no} placeholder=${placeholder} autocomplete="off" spellcheck="false" aria-describedby=${`hint-${name}`} onInput=${e => type(name, e.target.value)} />`
	return html`
		<${Section} id="settings" title="Settings">
			${no && html`<p class="denied"><${Icon} name="lock" />${no}</p>`}
			<form class="settings" onSubmit=${save}>
				${field('idleTimeout', 'Idle timeout', source && source !== 'sandbox' ? `Now ${shortDuration(sb.idleTimeout)}, ${sources[source]}.` : 'Empty it to go by the default.', text('idleTimeout', shortDuration(sb.idleTimeout)))}
				${field('wakePolicy', 'Woken by', '', html`<div class="select"><select id="set-wakePolicy" value=${form.wakePolicy} disabled=${!!no} onChange=${e => type('wakePolicy', e.target.value)}>${Object.entries({ '': inherited, ...policies }).map(([v, name]) => html`<option key=${v} value=${v}>${name}</option>`)}</select></div>`)}
				${field('owner', 'Owner', '', text('owner', 'nobody'))}
				${field('project', 'Project', '', text('project', 'none'))}
				${problem.value && html`<${Note} kind="error" role="alert">${problem.value.text}</${Note}>`}
				<footer>${dirty && html`<button type="button" class="button ghost" onClick=${reset}>Discard</button>`}
					<button class="button primary" disabled=${!dirty || busy.value || !!no} aria-busy=${busy.value ? 'true' : undefined}>Save</button></footer>
			</form>
		</${Section}>`
}

// patch writes what was typed, if the settings still are what the visitor saw. The record's revision changes
// with each pause and wake as well; those don't matter here.
async function patch(id, edited, began, source) {
	const body = Object.fromEntries(Object.entries(edited).map(([name, value]) => [name, value.trim() === '' ? null : value.trim()]))
	for (let tries = 0; ; tries++) {
		const { data, etag } = await call('GET', one(id))
		const there = values(data, data.idleTimeoutFrom ?? source)
		const others = Object.keys(edited).filter(name => there[name] !== began[name])
		if (others.length) {
			put(data)
			throw Object.assign(new Error(`Somebody has changed ${others.join(' and ')} meanwhile, to ${others.map(n => `“${there[n] || 'the default'}”`).join(' and ')}. Discard yours, or save again to replace it.`), { seen: there })
		}
		try {
			return (await call('PATCH', one(id), { body, headers: { 'If-Match': etag } })).data
		} catch (err) {
			if (err.status !== 412 || tries > 3) throw err
		}
	}
}
