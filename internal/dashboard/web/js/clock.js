// The time of day as a signal, so that countdowns move by themselves. It is the server's time.
import { signal } from './lib.js'
import { skew } from './api.js'

export const serverNow = () => Date.now() + skew.peek()
export const now = signal(serverNow())

function tick() {
	now.value = serverNow()
	setTimeout(tick, 1000 - now.peek() % 1000 + 5)
}
tick()
document.addEventListener('visibilitychange', () => { now.value = serverNow() })
