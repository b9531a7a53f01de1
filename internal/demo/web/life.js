// What a sleep keeps: the counters, the process, and when it slept.
import { $, call, duration, el, toast } from './ui.js'

const time = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const day = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric' })

function when(iso) {
  const d = new Date(iso)
  const today = d.toDateString() === new Date().toDateString()
  return today ? time.format(d) : `${day.format(d)}, ${time.format(d)}`
}

export class Life {
  constructor() {
    $('count').addEventListener('click', () => this.count())
  }

  async refresh() {
    try {
      this.render(await (await call('GET', 'state')).json())
    } catch (err) {
      toast(`The counters could not be read: ${err.message}`, true)
    }
  }

  async count() {
    $('count').setAttribute('aria-busy', 'true')
    try {
      this.render(await (await call('POST', 'count')).json())
    } catch (err) {
      toast(`It was not counted: ${err.message}`, true)
    } finally {
      $('count').removeAttribute('aria-busy')
    }
  }

  render(s) {
    $('memory').textContent = s.memory
    $('disk').textContent = s.disk?.count ?? 0
    $('pid').textContent = s.pid
    $('started').textContent = when(s.startedAt)
    $('disk-started').textContent = s.disk ? when(s.disk.startedAt) : 'not yet'
    $('awake').textContent = duration(s.awakeMs)
    $('asleep').textContent = duration(s.asleepMs)
    const share = 100 * s.awakeMs / Math.max(1, s.awakeMs + s.asleepMs)
    $('meter-awake').style.width = `${share}%`
    $('meter').setAttribute('aria-label', `${Math.round(share)} % of the time awake`)
    $('napped').textContent = s.napped
    $('napped').hidden = !s.napped
    $('no-naps').hidden = s.napped > 0
    $('naps').replaceChildren(...(s.naps ?? []).map(n =>
      el('li', {}, el('span', { textContent: `${when(n.from)} – ${when(n.to)}` }), duration(n.ms))))
  }
}
