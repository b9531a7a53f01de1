// The terminal. Its protocol is drawn in attach.go: input is kept until the
// server has acknowledged it, so that no key is lost on the way, and none is
// typed twice.
import { FitAddon } from '/vendor/addon-fit/addon-fit.mjs'
import { Terminal } from '/vendor/xterm/xterm.mjs'
import { $, duration, say } from './ui.js'

const slowAfter = 500         // an unanswered key shows that the sandbox is waking
const deadAfter = 35_000      // longer than a proxy holds: a new connection is tried
const recentUse = 30_000      // a connection that breaks in use is made again at once
const settleAfter = 500       // output that is quiet for so long is at its end, maybe
const maxTries = 8            // of a page that only wants to be connected
const maxTriesWithKeys = 60   // of one whose keys wait, a quarter of an hour
const longestRetry = 15_000
const maxChunk = 16_384

const themes = {
  light: {
    scrollbarSliderBackground: '#00000022', scrollbarSliderHoverBackground: '#00000038', scrollbarSliderActiveBackground: '#00000050',
    background: '#ffffff', foreground: '#1c1d21', cursor: '#4a4ad0', cursorAccent: '#ffffff', selectionBackground: '#cfcff7',
    black: '#1c1d21', red: '#b3261e', green: '#14734a', yellow: '#8f5a00', blue: '#3a46c4', magenta: '#8127b5', cyan: '#0b6f86', white: '#64656c',
    brightBlack: '#8a8b90', brightRed: '#c8372d', brightGreen: '#1a8a59', brightYellow: '#a86d00', brightBlue: '#4a4ad0', brightMagenta: '#9a3fd0', brightCyan: '#0f87a3', brightWhite: '#1c1d21',
  },
  dark: {
    scrollbarSliderBackground: '#ffffff22', scrollbarSliderHoverBackground: '#ffffff38', scrollbarSliderActiveBackground: '#ffffff50',
    background: '#15171b', foreground: '#e9eaed', cursor: '#9a9bff', cursorAccent: '#15171b', selectionBackground: '#3a3c74',
    black: '#272b32', red: '#ff8a80', green: '#5fd39b', yellow: '#f0b85a', blue: '#8aa4ff', magenta: '#c59bff', cyan: '#6fd0e0', white: '#c9ccd3',
    brightBlack: '#70757f', brightRed: '#ffa79f', brightGreen: '#86e3b5', brightYellow: '#f7cd86', brightBlue: '#9a9bff', brightMagenta: '#d9bdff', brightCyan: '#98e2ee', brightWhite: '#ffffff',
  },
}

export class TerminalPanel {
  constructor({ onSettled, onConnected, onWoke }) {
    Object.assign(this, { onSettled, onConnected, onWoke })
    this.page = [...crypto.getRandomValues(new Uint8Array(12))].map(b => b.toString(16).padStart(2, '0')).join('')
    this.seq = 0        // of the last input
    this.waiting = []   // input that is not acknowledged
    this.offset = 0     // of the output that has come
    this.tries = 0
    this.lastKey = 0
    this.term = new Terminal({
      fontFamily: getComputedStyle(document.documentElement).getPropertyValue('--mono'), fontSize: 13, lineHeight: 1.25,
      cursorBlink: false, cursorStyle: 'bar', cursorWidth: 2, scrollback: 5000, macOptionIsMeta: true,
    })
    this.fitter = new FitAddon()
    this.term.loadAddon(this.fitter)
    this.term.open($('screen'))
    this.term.textarea.setAttribute('aria-label', 'Terminal input. F6 leaves the terminal.')
    this.term.attachCustomKeyEventHandler(e => e.key !== 'F6' && !((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === 's' && e.metaKey))
    this.term.onData(data => this.input(data))
    this.term.onResize(() => this.resized())
    new ResizeObserver(() => this.fit()).observe($('screen'))
  }

  setDark(dark) { this.term.options.theme = themes[dark ? 'dark' : 'light'] }
  focus() { this.term.focus() }
  fit() { if ($('screen').offsetWidth) this.fitter.fit() }

  // --- the connection

  connect() {
    clearTimeout(this.retry)
    this.retry = null
    this.socket?.close()
    this.fit()
    const url = new URL('/api/terminal', location.href)
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
    url.search = new URLSearchParams({ page: this.page, since: this.offset, cols: this.term.cols, rows: this.term.rows })
    const socket = new WebSocket(url)
    socket.binaryType = 'arraybuffer'
    this.socket = socket
    this.ready = false
    socket.onmessage = e => { if (socket === this.socket) this.receive(e.data) }
    socket.onclose = () => { if (socket === this.socket) this.closed() }
    if (this.tries || this.wasConnected) say($('link'), 'Connecting…', 'busy')
    this.watchWaiting()
  }

  closed() {
    this.socket = null
    this.ready = false
    clearTimeout(this.slow)
    clearTimeout(this.dead)
    const inUse = Date.now() - this.lastKey < recentUse || !this.wasConnected
    if (this.tries < (this.waiting.length ? maxTriesWithKeys : inUse ? maxTries : 0)) {
      say($('link'), this.waiting.length ? 'Connecting, your keys are kept…' : 'Connecting…', 'busy')
      this.retry = setTimeout(() => this.connect(), Math.min(longestRetry, 250 * 2 ** this.tries++))
      return
    }
    // nobody is here: it would only wake the sandbox, or keep it awake
    this.tries = 0
    say($('link'), this.waiting.length ? 'Out of reach. Your keys are kept; press one to try again' : 'Disconnected. Your next key reconnects', 'warn')
  }

  receive(data) {
    if (typeof data !== 'string') { this.output(new Uint8Array(data)); return }
    const m = JSON.parse(data)
    switch (m.type) {
      case 'hello': this.hello(m); break
      case 'ack': this.acknowledge(m.seq); break
      case 'reset': this.term.reset(); this.offset = m.at; break
      case 'exit': this.exited(); break
      case 'woke': this.onWoke(duration(m.ms)); break
    }
  }

  hello(m) {
    if ((m.at ?? 0) !== this.offset) { this.term.reset(); this.offset = m.at ?? 0 }
    // what a former connection or page has shown already asks the terminal nothing
    this.replayTo = m.end ?? 0
    this.replaying = this.offset < this.replayTo
    this.waiting = this.waiting.filter(i => i.seq > (m.seq ?? 0))
    this.ready = true
    this.ended = false
    const again = this.wasConnected
    this.wasConnected = true
    this.tries = 0
    if (again) say($('link'), 'Reconnected', 'good')
    else say($('link'), '')
    clearTimeout(this.quiet)
    this.quiet = setTimeout(() => { if (this.ready && !this.waiting.length) say($('link'), '') }, 3000)
    for (const i of this.waiting) this.send(i)
    this.resized()
    this.watchWaiting()
    this.onConnected(again)
  }

  // --- output

  output(bytes) {
    this.offset += bytes.length
    const until = this.offset
    this.term.write(bytes, () => { if (until >= this.replayTo) this.replaying = false })
    this.stale = true
    clearTimeout(this.settle)
    this.settle = setTimeout(() => {
      // once for each command: a program that goes on printing is no use of the sandbox
      if (this.entered) this.caughtUp()
    }, settleAfter)
  }

  // caughtUp tells that programs may have changed files since somebody looked.
  caughtUp() {
    if (!this.stale) return
    this.stale = this.entered = false
    this.onSettled()
  }

  exited() {
    this.ended = true
    this.waiting = []
    this.watchWaiting()
    this.term.write('\r\n\x1b[2mThe shell has ended. Press Enter for a new one.\x1b[0m\r\n')
  }

  // --- input

  input(data) {
    if (this.replaying) return // the terminal's own answer to old output
    this.lastKey = Date.now()
    if (this.ended && this.ready) {
      if (data === '\r') { this.ended = false; this.socket.send(JSON.stringify({ type: 'start' })) }
      return
    }
    if (data.includes('\r')) this.entered = true
    for (let at = 0; at < data.length;) {
      // no chunk may end between the halves of one character
      let end = Math.min(data.length, at + maxChunk)
      if (end < data.length && /[\uD800-\uDBFF]/.test(data[end - 1])) end--
      const i = { type: 'input', seq: ++this.seq, data: data.slice(at, end) }
      this.waiting.push(i)
      if (this.ready) this.send(i)
      at = end
    }
    if (this.socket) this.watchWaiting()
    else if (!this.retry) this.connect()
  }

  send(m) { if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(m)) }

  acknowledge(seq) {
    this.waiting = this.waiting.filter(i => i.seq > seq)
    this.watchWaiting(true)
  }

  // watchWaiting shows that keys wait for the sandbox, and gives up a connection
  // over which none arrive any more.
  watchWaiting(progress = false) {
    if (progress || !this.waiting.length) {
      clearTimeout(this.slow)
      clearTimeout(this.dead)
      this.slow = this.dead = null
      if (this.waking) { this.waking = false; say($('link'), '') }
    }
    if (!this.waiting.length || this.slow) return
    this.slow = setTimeout(() => { this.waking = true; say($('link'), 'Waking, your keys are kept…', 'busy') }, slowAfter)
    this.dead = setTimeout(() => { this.slow = null; this.connect() }, deadAfter)
  }

  resized() {
    const { cols, rows } = this.term
    if (!this.ready || (this.sentCols === cols && this.sentRows === rows)) return
    this.sentCols = cols
    this.sentRows = rows
    this.send({ type: 'size', cols, rows })
  }
}
