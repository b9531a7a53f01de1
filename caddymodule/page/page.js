
(() => {
  'use strict'
  const at = id => document.getElementById(id)
  const main = document.querySelector('main'), form = at('wake'), button = at('button')
  const words = button.textContent
  let version = main.dataset.version, since = performance.now() - Number(main.dataset.elapsed), sent = false
  const sleep = ms => new Promise(done => setTimeout(done, ms))
  const say = (id, text) => {
    const e = at(id)
    if (e.textContent !== text) e.textContent = text // a live region is read out at each change
    e.hidden = !text
  }
  const tick = () => {
    const s = Math.floor((performance.now() - since) / 1000)
    at('elapsed').textContent = s < 60 ? s + ' s' : Math.floor(s / 60) + ' min ' + s % 60 + ' s'
  }
  const show = s => {
    version = s.version
    main.dataset.state = s.state
    main.dataset.mood = s.mood
    document.title = s.title
    say('title', s.title)
    say('detail', s.detail)
    say('reason', s.reason || '')
    since = performance.now() - s.elapsedMs
    at('clock').hidden = !s.waking
    form.hidden = !s.button
    if (!sent) button.textContent = s.button || words
    tick()
  }
  const follow = async () => {
    for (;;) {
      let s
      try {
        const res = await fetch('/.well-known/sandman/state?after=' + encodeURIComponent(version), { cache: 'no-store' })
        s = await res.json()
        if (res.status === 404) { location.reload(); return }
        if (!res.ok) throw new Error(s.detail)
      } catch {
        await sleep(2000)
        continue
      }
      show(s)
      if (s.state === 'RUNNING') { location.reload(); return }
    }
  }
  form.addEventListener('submit', e => {
    if (sent) { e.preventDefault(); return }
    sent = true
    button.setAttribute('aria-disabled', 'true')
    button.textContent = 'Waking…'
  })
  addEventListener('pageshow', e => {
    if (!e.persisted) return
    location.reload() // from the back-forward cache: the page tells of another time
  })
  tick()
  setInterval(tick, 1000)
  follow()
})()
