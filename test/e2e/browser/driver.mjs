// A browser that does what it is told: each line of standard input is {"code": …}, the body of an async
// function of (page, context, kept), and each line of standard output is {"value": …} or {"error": …}.
// kept is an object that lives as long as the browser; kept.log has what went wrong in the page, and
// kept.requests what it asked for. With a folder as its argument the browser leaves screenshots there.
import readline from 'node:readline'
import { chromium } from 'playwright-core'

const patience = 60_000
const AsyncFunction = (async () => {}).constructor

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
})
const context = await browser.newContext({ viewport: { width: 1280, height: 800 } })
const page = await context.newPage()
page.setDefaultTimeout(patience)
const kept = { log: [], requests: [] }
page.on('pageerror', err => kept.log.push(String(err)))
page.on('request', r => kept.requests.push(`${r.method()} ${new URL(r.url()).pathname}`))
page.on('framenavigated', f => f === page.mainFrame() && kept.requests.push(`navigated ${new URL(f.url()).pathname}`))

for await (const line of readline.createInterface({ input: process.stdin })) {
  let answer
  try {
    answer = { value: await new AsyncFunction('page', 'context', 'kept', JSON.parse(line).code)(page, context, kept) ?? null }
  } catch (err) {
    answer = { error: String(err?.stack ?? err) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
await browser.close()
