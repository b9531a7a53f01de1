// The demo's page as a person uses it: node demo.mjs <editor's URL> <URL of the sandbox's record> <token>.
// Ends with an error, and says which, where something is not as it was before the sleep.
import assert from 'node:assert/strict'
import { chromium } from 'playwright-core'

const [page, record, token] = process.argv.slice(2)
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
const patience = 30_000

async function state() {
  const res = await fetch(record, { headers: { authorization: `Bearer ${token}` } })
  assert.equal(res.status, 200)
  return (await res.json()).state
}

async function until(what, done) {
  for (const end = Date.now() + patience; !await done(); await new Promise(r => setTimeout(r, 100))) {
    assert(Date.now() < end, `still not: ${what}`)
  }
}

const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
})
try {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } })
  const tab = await context.newPage()
  tab.setDefaultTimeout(patience)
  const wrong = []
  tab.on('pageerror', err => wrong.push(String(err)))
  tab.on('console', m => m.type() === 'error' && wrong.push(m.text()))
  const requests = []
  tab.on('request', r => requests.push(`${r.method()} ${new URL(r.url()).pathname}`))

  const shows = text => tab.waitForFunction(t => [...document.querySelectorAll('.xterm-rows > div')].some(d => d.textContent.trimEnd() === t), text)
  const saved = () => tab.waitForFunction(() => document.querySelector('#save').textContent === 'Saved')
  const kept = () => tab.evaluate(() => ['memory', 'disk', 'pid', 'started', 'disk-started'].map(id => document.getElementById(id).textContent))

  await tab.goto(page)
  await tab.waitForFunction(() => document.querySelector('#text').value.includes('sleeps'))
  await tab.click('#text')
  await tab.keyboard.press('Control+Home')
  await tab.keyboard.type('written awake\n')
  assert.equal(await tab.textContent('#save'), 'Unsaved')
  await tab.keyboard.press('Control+s')
  await saved()
  for (const n of ['1', '2']) {
    await tab.click('#count')
    await tab.waitForFunction(n => document.querySelector('#disk').textContent === n, n)
  }
  await tab.click('.xterm')
  await tab.keyboard.type('head -n 1 welcome.md; touch made-here; ./ticker.sh\n')
  await shows('written awake')
  await tab.waitForSelector('[data-path="made-here"]')
  const before = await kept()

  // nobody touches the page any more: it neither asks nor keeps the sandbox awake, though the ticker prints
  requests.length = 0
  await until('PAUSED', async () => await state() === 'PAUSED')
  for (const end = Date.now() + 4000; Date.now() < end; await new Promise(r => setTimeout(r, 100))) {
    assert.equal(await state(), 'PAUSED') // the editor takes more than 3 s without a tick for a sleep
  }
  assert.deepEqual(requests, [])

  await tab.keyboard.press('Control+c') // the first key
  await tab.keyboard.type('echo wo"ken"\n')
  await shows('woken')
  assert.equal(await state(), 'RUNNING')
  await tab.waitForSelector('#naps li')
  assert.match(await tab.textContent('#toasts'), /^Slept for \d+s\./)
  assert.deepEqual(await kept(), before)

  // what is typed into a sleeping sandbox's file is held, and saved when it has woken
  await until('PAUSED again', async () => await state() === 'PAUSED')
  await tab.click('#text')
  await tab.keyboard.press('Control+Home')
  await tab.keyboard.type('written asleep\n')
  await saved()
  await tab.click('.xterm')
  await tab.keyboard.type('clear; head -n 1 welcome.md\n')
  await shows('written asleep')
  assert.deepEqual(wrong, [])

  // a phone
  await tab.setViewportSize({ width: 390, height: 844 })
  for (const view of ['files', 'editor', 'terminal', 'life']) {
    await tab.click(`.views [data-view="${view}"]`)
    assert(await tab.isVisible(`[data-panel="${view}"]`), `${view} can't be seen on a phone`)
    assert.equal(await tab.evaluate(() => document.documentElement.scrollWidth), 390)
  }
} finally {
  await browser.close()
}
