// Drives a host of sandboxes with an official E2B SDK, as an app would.
//
//   node flow.mjs <package>      the name under which package.json has the SDK
//
// Where the host is comes from the SDK's own variables: E2B_API_URL, E2B_API_KEY
// and, for its data plane, E2B_SANDBOX_URL or E2B_DOMAIN. Every step checks what
// came of it; the first that is wrong ends the flow with exit code 1.
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'

const sdk = await import(process.argv[2])
const { Sandbox, CommandExitError, NotFoundError, TimeoutError } = sdk
const decode = (bytes) => new TextDecoder().decode(bytes)
const encode = (text) => new TextEncoder().encode(text)

// until waits for something that the sandbox does in its own time
async function until(what, check, ms = 10_000) {
  const end = Date.now() + ms
  for (;;) {
    const value = await check()
    if (value) return value
    if (Date.now() > end) throw new Error(`timed out: ${what}`)
    await sleep(20)
  }
}

async function step(name, f) {
  const started = performance.now()
  const value = await f()
  console.log(`ok ${name} (${Math.round(performance.now() - started)} ms)`)
  return value
}

// 2.6 has pausing under other names
const old = !Sandbox.prototype.pause
const create = (opts) => (old ? Sandbox.betaCreate(opts) : Sandbox.create(opts))
const pause = (sandbox) => (old ? sandbox.betaPause() : sandbox.pause())

const tag = `flow-${process.pid}-${Date.now()}`
const sbx = await step('create', () => create({ metadata: { flow: tag, odd: 'a b&c=d' }, envs: { GREETING: 'hello' }, timeoutMs: 300_000 }))
assert.match(sbx.sandboxId, /^[a-z0-9]+$/)

try {
  await commands()
  await files()
  await lifetime()
  await sleepAndWake()
} finally {
  await step('kill', async () => assert.equal(await Sandbox.kill(sbx.sandboxId), true))
}

await step('kill again', async () => assert.equal(await Sandbox.kill(sbx.sandboxId), false))
await step('connect to a killed one', () => assert.rejects(Sandbox.connect(sbx.sandboxId), NotFoundError))
await step('isRunning of a killed one', async () => assert.equal(await sbx.isRunning(), false))

async function commands() {
  await step('run', async () => {
    const out = await sbx.commands.run('echo "$GREETING $NAME"; echo oops >&2', { envs: { NAME: 'you' } })
    assert.deepEqual([out.exitCode, out.stdout, out.stderr], [0, 'hello you\n', 'oops\n'])
  })
  await step('run in a folder', async () => {
    assert.equal((await sbx.commands.run('pwd', { cwd: '/tmp' })).stdout, '/tmp\n')
    const home = await sbx.commands.run('pwd; echo $HOME', { cwd: '/home/user' })
    assert.equal(new Set(home.stdout.trim().split('\n')).size, 1)
  })
  await step('run with an error', () =>
    assert.rejects(sbx.commands.run('echo out; exit 7'), (e) => e instanceof CommandExitError && e.exitCode === 7 && e.stdout === 'out\n'))
  await step('run too long', () => assert.rejects(sbx.commands.run('sleep 60', { timeoutMs: 300 }), TimeoutError))
  await step('much output', async () => {
    const out = await sbx.commands.run('head -c 3000000 /dev/zero | tr "\\0" x')
    assert.equal(out.stdout.length, 3_000_000)
  })
  await step('background, stdin, list, kill', background)
  await step('pty', pty)
}

async function background() {
  let seen = ''
  const cat = await sbx.commands.run('cat', { background: true, stdin: true, onStdout: (s) => (seen += s) })
  await sbx.commands.sendStdin(cat.pid, 'one\n')
  await until('cat to answer', () => seen === 'one\n')
  assert.ok((await sbx.commands.list()).some((p) => p.pid === cat.pid))

  let followed = ''
  const second = await sbx.commands.connect(cat.pid, { onStdout: (s) => (followed += s) })
  await sbx.commands.sendStdin(cat.pid, 'two\n')
  await until('both to hear', () => seen === 'one\ntwo\n' && followed === 'two\n')
  await second.disconnect()

  assert.equal(await sbx.commands.kill(cat.pid), true)
  await assert.rejects(cat.wait(), CommandExitError)
  await until('it to leave the list', async () => !(await sbx.commands.list()).some((p) => p.pid === cat.pid))
  assert.equal(await sbx.commands.kill(cat.pid), false)
}

async function pty() {
  let screen = ''
  const term = await sbx.pty.create({ cols: 81, rows: 25, onData: (d) => (screen += decode(d)), timeoutMs: 0 })
  await sbx.pty.sendInput(term.pid, encode('stty size\n'))
  await until('the size', () => screen.includes('25 81'))
  await sbx.pty.resize(term.pid, { cols: 99, rows: 30 })
  await sbx.pty.sendInput(term.pid, encode('stty size\n'))
  await until('the new size', () => screen.includes('30 99'))
  await sbx.pty.sendInput(term.pid, encode('exit 3\n'))
  await assert.rejects(term.wait(), (e) => e instanceof CommandExitError && e.exitCode === 3)
}

async function files() {
  await step('write and read', async () => {
    const info = await sbx.files.write('/home/user/a.txt', 'first')
    assert.equal(info.path, '/home/user/a.txt')
    assert.equal(await sbx.files.read('a.txt'), 'first')
    assert.equal((await sbx.commands.run('cat a.txt')).stdout, 'first')
    await sbx.files.write('empty', '')
    assert.equal(await sbx.files.read('empty'), '')
    const bytes = crypto.getRandomValues(new Uint8Array(60_000))
    await sbx.files.write('deep/er/b.bin', bytes.buffer)
    assert.deepEqual(await sbx.files.read('deep/er/b.bin', { format: 'bytes' }), bytes)
  })
  await step('write several', async () => {
    const infos = await sbx.files.write([{ path: 'm/1', data: 'one' }, { path: 'm/2', data: 'two' }])
    assert.equal(infos.length, 2)
    assert.equal(await sbx.files.read('m/2'), 'two')
  })
  await step('list, exists, info', async () => {
    const names = (await sbx.files.list('/home/user')).map((e) => `${e.type} ${e.path}`)
    assert.ok(names.includes('file /home/user/a.txt') && names.includes('dir /home/user/deep'), names.join())
    assert.equal(await sbx.files.exists('a.txt'), true)
    assert.equal(await sbx.files.exists('nope'), false)
    assert.equal((await sbx.files.getInfo('a.txt')).size, 5)
    await assert.rejects(sbx.files.read('nope'), NotFoundError)
  })
  await step('makeDir, rename, remove', async () => {
    assert.equal(await sbx.files.makeDir('d/e'), true)
    assert.equal(await sbx.files.makeDir('d/e'), false)
    assert.equal((await sbx.files.rename('a.txt', 'd/e/z.txt')).path, '/home/user/d/e/z.txt')
    assert.equal(await sbx.files.exists('a.txt'), false)
    await sbx.files.remove('d')
    assert.equal(await sbx.files.exists('d/e/z.txt'), false)
  })
  await step('watch', async () => {
    const events = []
    const watch = await sbx.files.watchDir('/home/user', (e) => events.push(e))
    await sbx.files.write('watched', 'x')
    await until('an event', () => events.some((e) => e.name === 'watched' && e.type === 'create'))
    await watch.stop()
  })
  await step('signed address', async () => {
    const url = new URL(await sbx.downloadUrl('deep/er/b.bin', { useSignatureExpiration: 60 }))
    assert.ok(url.searchParams.get('signature').startsWith('v1_'))
    if (process.env.E2B_SANDBOX_URL) return // a common address needs headers, which a link has none of
    const ok = await fetch(url)
    assert.deepEqual([ok.status, (await ok.arrayBuffer()).byteLength], [200, 60_000])
    url.searchParams.set('path', 'empty')
    assert.equal((await fetch(url)).status, 401)
  })
}

async function lifetime() {
  await step('getHost', () => assert.ok(sbx.getHost(3000).startsWith(`3000-${sbx.sandboxId}.`)))
  await step('setTimeout, getInfo', async () => {
    await sbx.setTimeout(600_000)
    const info = await sbx.getInfo()
    const left = info.endAt.getTime() - Date.now()
    assert.ok(left > 590_000 && left <= 601_000, `${left} ms left`)
    assert.equal(info.state, 'running')
    assert.equal(info.metadata.odd, 'a b&c=d')
  })
  await step('list by metadata', async () => assert.deepEqual(await listed(['running']), [sbx.sandboxId]))
}

async function listed(state) {
  const found = []
  const pages = Sandbox.list({ query: { state, metadata: { flow: tag, odd: 'a b&c=d' } }, limit: 1 })
  while (pages.hasNext) found.push(...(await pages.nextItems()))
  return found.map((s) => s.sandboxId)
}

async function sleepAndWake() {
  // a program whose state is in memory only, and which says who and how far it is
  const counter = await sbx.commands.run('n=0; while sleep 0.05; do n=$((n+1)); echo $$ $n > count.new; mv count.new count; done', { background: true, timeoutMs: 0 })
  const read = async () => (await sbx.files.read('count')).trim().split(' ').map(Number)
  await until('the counter', async () => (await sbx.files.exists('count')) && (await read())[1] > 3)
  assert.equal(await sbx.isRunning(), true)
  const [pid, before] = await read()
  await counter.disconnect()

  await step('pause', async () => assert.equal(await pause(sbx), true))
  await step('pause again', async () => assert.equal(await pause(sbx), false))
  await step('getInfo of a paused one', async () => assert.equal((await sbx.getInfo()).state, 'paused'))
  await step('list of paused ones', async () => {
    assert.deepEqual(await listed(['paused']), [sbx.sandboxId])
    assert.deepEqual(await listed(['running']), [])
  })
  await step('isRunning of a paused one', async () => assert.equal(await sbx.isRunning(), false))

  const again = await step('connect', () => Sandbox.connect(sbx.sandboxId, { timeoutMs: 300_000 }))
  await step('memory and process are kept', async () => {
    const goneOn = await until('the counter to go on', async () => {
      const [p, n] = (await again.files.read('count')).trim().split(' ').map(Number)
      return n > before + 3 && [p, n]
    })
    assert.equal(goneOn[0], pid)
    assert.ok((await again.commands.list()).some((p) => p.pid === counter.pid))
    assert.equal(await again.isRunning(), true)
    assert.equal(await again.commands.kill(counter.pid), true)
  })
}
