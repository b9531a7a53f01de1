// What can be done to a sandbox. Each says what came of it.
import { call, one } from './api.js'
import { put } from './live.js'
import { hourMinute } from './format.js'
import { toast } from './ui.js'

export async function pause(id, force = false) {
	try {
		const { data } = await call('POST', `${one(id)}/pause`, { query: force ? { force: true } : {} })
		put(data)
		toast(`${id} is paused.`)
	} catch (err) {
		if (err.code !== 'in-use' || force) throw err
		toast(`${id} is in use: ${(err.problem.inFlight ?? []).join(', ') || 'somebody works with it'}.`, 'error',
			{ name: 'Cut them off and pause', act: () => pause(id, true).catch(e => toast(e.message, 'error')) })
	}
}

export async function resume(id) {
	const { data } = await call('POST', `${one(id)}/resume`)
	put(data)
	toast(`${id} is awake.`)
}

const holdName = 'dashboard'

// keepAwake puts a hold, which wakes a sandbox that sleeps.
export async function keepAwake(id, duration) {
	try {
		const { data } = await call('PUT', `${one(id)}/holds/${holdName}`, { body: { for: duration, reason: 'kept awake in the dashboard' } })
		toast(`${id} is kept awake until ${hourMinute(data.expiresAt)}.`)
	} catch (err) {
		if (err.isMissingRoute) throw new Error('This Sandman can’t keep sandboxes awake: it is older than the dashboard’s button.')
		throw err
	}
}

export async function release(id, name) {
	await call('DELETE', `${one(id)}/holds/${encodeURIComponent(name)}`)
	toast(`The hold “${name}” on ${id} has ended.`)
}

export async function kill(id) {
	await call('DELETE', one(id))
	toast(`${id} was ended for good.`)
}
