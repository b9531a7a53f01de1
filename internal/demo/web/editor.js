// The text editor: a text area with line numbers and colours behind it.
import { Doc } from './document.js'
import { highlight } from './highlight.js'
import { $, say, toast } from './ui.js'

// above this, colours cost more time than they are worth
const maxPainted = 150_000

const words = {
  saved: ['Saved', 'good'],
  unsaved: ['Unsaved', 'warn'],
  saving: ['Saving…', 'busy'],
  slow: ['Saving, the sandbox is waking…', 'busy'],
  failed: ['Not saved yet, trying again', 'bad'],
  conflict: ['Not saved', 'bad'],
}

export class Editor {
  constructor() {
    this.docs = new Map() // all that are open or not saved yet, by path
    this.doc = null
    this.text = $('text')
    this.text.addEventListener('input', () => this.changed())
    this.text.addEventListener('scroll', () => this.scrolled())
    this.text.addEventListener('keydown', e => this.key(e))
    this.text.addEventListener('blur', () => { this.leaving = false })
    $('keep-mine').addEventListener('click', () => this.settle(d => d.keepMine()))
    $('take-theirs').addEventListener('click', () => this.settle(d => d.takeTheirs()))
    addEventListener('keydown', e => {
      if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === 's') { e.preventDefault(); this.save() }
    })
    addEventListener('online', () => this.each(d => d.save()))
    addEventListener('beforeunload', e => {
      if (this.each(d => d.dirty).some(Boolean)) e.preventDefault()
    })
    new ResizeObserver(() => this.layout()).observe($('code'))
  }

  each(f) { return [...this.docs.values()].map(f) }

  async open(path) {
    if (this.doc?.path === path) return
    let doc = this.docs.get(path)
    this.opening = path
    if (!doc) {
      doc = new Doc(path, d => this.stateOf(d))
      try {
        await doc.load()
      } catch (err) {
        if (this.opening === path) this.showNothing('This can’t be edited here', sentence(err.message), path)
        return
      }
      this.docs.set(path, doc)
    }
    if (this.opening !== path) return // another one was chosen meanwhile
    this.leave()
    this.doc = doc
    localStorage.setItem('open', path)
    this.show()
  }

  // leave lets go of a file that is saved; one that isn't goes on being saved.
  leave() {
    const d = this.doc
    this.doc = null
    if (!d) return
    if (d.dirty || d.busy) d.save()
    else this.docs.delete(d.path)
  }

  show() {
    $('code').hidden = false
    $('no-file').hidden = true
    $('path').textContent = this.doc.path
    $('path').title = this.doc.path
    this.text.value = this.doc.text
    this.text.scrollTop = this.text.scrollLeft = 0
    this.text.setSelectionRange(0, 0)
    this.paint()
    this.stateOf(this.doc)
  }

  showNothing(title = 'Nothing open', text = 'Choose a file on the left, or make a new one.', path = 'No file open') {
    this.leave()
    $('code').hidden = true
    $('no-file').hidden = false
    $('conflict').hidden = true
    $('no-file-title').textContent = title
    $('no-file-text').textContent = text
    $('path').textContent = path
    say($('save'), '')
  }

  stateOf(doc) {
    if (doc !== this.doc) {
      if (doc.state === 'saved') this.docs.delete(doc.path)
      return
    }
    say($('save'), ...words[doc.state])
    $('save').title = doc.state === 'failed' ? doc.message : ''
    $('conflict').hidden = doc.state !== 'conflict'
  }

  changed() {
    this.doc.edit(this.text.value)
    this.paint()
  }

  save() {
    if (!this.doc) return
    if (!this.doc.dirty) this.stateOf(this.doc)
    this.doc.save()
  }

  async settle(how) {
    const doc = this.doc
    try {
      await how(doc)
    } catch (err) {
      toast(sentence(err.message), true)
    }
    if (doc === this.doc && this.text.value !== doc.text) this.show()
  }

  async lookAgain() {
    const doc = this.doc
    if (!doc) return
    try {
      if (!await doc.lookAgain() || doc !== this.doc) return
    } catch {
      return // it is gone or out of reach: nothing changes here until somebody saves
    }
    const { selectionStart, selectionEnd, scrollTop } = this.text
    this.show()
    this.text.setSelectionRange(selectionStart, selectionEnd)
    this.text.scrollTop = scrollTop
  }

  // moved follows a renamed file, or folder of files.
  moved(from, to) {
    for (const [path, doc] of [...this.docs]) {
      if (path !== from && !path.startsWith(from + '/')) continue
      this.docs.delete(path)
      doc.rename(to + path.slice(from.length))
      this.docs.set(doc.path, doc)
    }
    if (this.doc) { $('path').textContent = this.doc.path; localStorage.setItem('open', this.doc.path) }
  }

  deleted(gone) {
    for (const [path, doc] of [...this.docs]) {
      if (path !== gone && !path.startsWith(gone + '/')) continue
      doc.discard()
      this.docs.delete(path)
      if (doc === this.doc) { this.doc = null; this.showNothing() }
    }
  }

  focus() { (this.doc ? this.text : $('new-file')).focus() }

  // --- typing

  key(e) {
    if (e.key === 'Escape') { this.leaving = true; return }
    if (e.key === 'Tab' && !this.leaving && !e.ctrlKey && !e.altKey && !e.metaKey) {
      e.preventDefault()
      this.indent(e.shiftKey)
    } else if (e.key === 'Enter' && !e.isComposing) {
      const before = this.text.value.slice(0, this.text.selectionStart)
      const space = /[^\S\n]*/.exec(before.slice(before.lastIndexOf('\n') + 1))[0]
      if (space) { e.preventDefault(); insert('\n' + space) }
    }
    if (e.key !== 'Shift') this.leaving = false
  }

  indent(out) {
    const t = this.text
    const unit = /^\t/m.test(t.value) ? '\t' : /^ {4}/m.test(t.value) ? '    ' : '  '
    const { selectionStart: from, selectionEnd: to, value } = t
    if (!out && from === to) { insert(unit); return }
    const start = value.lastIndexOf('\n', from - 1) + 1
    const lines = value.slice(start, to)
    const changed = out ? lines.replace(new RegExp(`^(?:\t| {1,${unit === '\t' ? 4 : unit.length}})`, 'gm'), '') : lines.replace(/^(?=[^\n])/gm, unit)
    if (changed === lines) return
    t.setSelectionRange(start, to)
    insert(changed)
    t.setSelectionRange(from === to ? Math.max(start, from + changed.length - lines.length) : start, start + changed.length)
  }

  // --- drawing

  paint() {
    const text = this.text.value
    const html = text.length <= maxPainted ? highlight(this.doc.path, text) : null
    this.text.classList.toggle('plain', html === null)
    $('paint').innerHTML = html === null ? '' : html + '\n'
    const lines = text.split('\n').length
    if (lines !== this.lines) {
      this.lines = lines
      $('gutter').textContent = Array.from({ length: lines }, (_, i) => i + 1).join('\n')
    }
    this.scrolled()
  }

  scrolled() {
    const { scrollTop, scrollLeft } = this.text
    $('gutter').style.transform = `translateY(${-scrollTop}px)`
    $('paint').style.transform = `translate(${-scrollLeft}px, ${-scrollTop}px)`
  }

  layout() { if (this.doc) this.scrolled() }
}

// insert keeps the browser's undo, which setting the value would end.
function insert(text) {
  document.execCommand('insertText', false, text)
}

function sentence(s) { return s.charAt(0).toUpperCase() + s.slice(1) + '.' }
