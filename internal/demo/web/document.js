// A file that is being edited: its text, and the care that no change of it is
// lost. It lives on until it is saved, whatever is shown meanwhile.
import { APIError, call } from './ui.js'

const autosaveAfter = 800
const firstRetry = 1000
const lastRetry = 30_000
const slowAfter = 1200

const draftKey = path => `draft:${path}`

function keepDraft(path, text, version) {
  try {
    localStorage.setItem(draftKey(path), JSON.stringify({ text, version }))
  } catch {
    // storage is full or forbidden: the draft lives in this page only
  }
}

function draftOf(path) {
  try {
    return JSON.parse(localStorage.getItem(draftKey(path)))
  } catch {
    return null
  }
}

export class Doc {
  // states: saved, unsaved, saving, slow, failed, conflict
  constructor(path, onState) {
    this.path = path
    this.onState = onState
    this.state = 'saved'
    this.text = ''
    this.version = null // as on disk; null: not there yet
    this.saved = ''     // the text of version
  }

  get dirty() { return this.text !== this.saved }

  setState(state) {
    this.state = state
    this.onState(this)
  }

  // load reads the file. A draft that an earlier page could not save is taken up.
  async load() {
    const { text, version } = await this.fetch()
    this.text = this.saved = text
    this.version = version
    const draft = draftOf(this.path)
    if (!draft || draft.text === text) {
      localStorage.removeItem(draftKey(this.path))
      return
    }
    this.text = draft.text
    if (draft.version === version) this.touch()
    else this.setState('conflict')
  }

  async fetch() {
    const res = await call('GET', 'file', { query: { path: this.path } })
    const raw = await res.text()
    // a text area knows one kind of line end only
    this.crlf = /\r\n/.test(raw)
    return { text: raw.replace(/\r\n?/g, '\n'), version: res.headers.get('ETag') }
  }

  edit(text) {
    this.text = text
    if (this.state !== 'conflict') this.touch()
    else keepDraft(this.path, text, this.version)
  }

  touch() {
    clearTimeout(this.timer)
    if (!this.dirty && !this.busy) {
      localStorage.removeItem(draftKey(this.path))
      this.setState('saved')
      return
    }
    keepDraft(this.path, this.text, this.version)
    if (!this.busy) this.setState('unsaved')
    this.delay = firstRetry
    this.timer = setTimeout(() => this.save(), autosaveAfter)
  }

  // save sends what is there now, one request at a time. What was typed
  // meanwhile follows; what failed is tried again, later and later.
  async save() {
    clearTimeout(this.timer)
    if (this.busy || !this.dirty || this.state === 'conflict' || this.gone) return
    this.busy = true
    const text = this.text
    const slow = setTimeout(() => this.setState('slow'), slowAfter)
    this.setState('saving')
    try {
      const headers = this.version ? { 'If-Match': this.version } : { 'If-None-Match': '*' }
      const body = this.crlf ? text.replace(/\n/g, '\r\n') : text
      const res = await call('PUT', 'file', { query: { path: this.path }, headers, body, attempts: 1 })
      this.version = res.headers.get('ETag')
      this.saved = text
      this.delay = firstRetry
    } catch (err) {
      this.failure = err
    } finally {
      clearTimeout(slow)
      this.busy = false
    }
    this.afterSave()
  }

  afterSave() {
    const err = this.failure
    this.failure = null
    if (this.gone) return
    if (!err) {
      if (this.dirty) this.touch()
      else { localStorage.removeItem(draftKey(this.path)); this.setState('saved') }
    } else if (err instanceof APIError && err.status === 412) {
      this.setState('conflict')
    } else {
      this.message = err.message
      this.setState('failed')
      this.delay = Math.min(lastRetry, (this.delay ?? firstRetry) * 2)
      this.timer = setTimeout(() => this.save(), this.delay)
    }
  }

  // keepMine saves over what is on disk now.
  async keepMine() {
    try {
      this.version = (await this.fetch()).version
    } catch (err) {
      if (!(err instanceof APIError && err.status === 404)) throw err
      this.version = null
    }
    this.saved = null
    this.state = 'unsaved'
    await this.save()
  }

  async takeTheirs() {
    localStorage.removeItem(draftKey(this.path))
    const { text, version } = await this.fetch()
    this.text = this.saved = text
    this.version = version
    this.setState('saved')
  }

  // lookAgain takes over what a program has written, unless there are changes
  // here that it would undo.
  async lookAgain() {
    if (this.dirty || this.busy || this.state === 'conflict') return false
    const before = this.text
    const { text, version } = await this.fetch()
    if (version === this.version || this.dirty || this.busy || this.text !== before) return false
    this.text = this.saved = text
    this.version = version
    return true
  }

  rename(path) {
    localStorage.removeItem(draftKey(this.path))
    this.path = path
    if (this.dirty) this.touch()
  }

  // discard forgets the file: it was deleted by hand.
  discard() {
    this.gone = true
    clearTimeout(this.timer)
    localStorage.removeItem(draftKey(this.path))
  }
}
