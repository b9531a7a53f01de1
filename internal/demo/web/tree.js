// The file tree: one folder after the other is asked for when it is opened.
import { $, call, confirmed, el, icon, toast } from './ui.js'

const parentOf = path => path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : ''
const join = (dir, name) => dir ? `${dir}/${name}` : name

export class Tree {
  constructor({ onOpen, onMoved, onDeleted }) {
    Object.assign(this, { onOpen, onMoved, onDeleted })
    this.folders = new Map() // path → entries, of the folders that are open
    this.expanded = new Set()
    this.selected = null
    this.root = $('tree')
    this.root.addEventListener('click', e => this.click(e))
    this.root.addEventListener('keydown', e => this.key(e))
    $('new-file').addEventListener('click', () => this.create(false))
    $('new-folder').addEventListener('click', () => this.create(true))
    $('refresh').addEventListener('click', () => this.refresh())
  }

  // refresh asks for all open folders again. One at a time: what is asked for
  // meanwhile is asked for afterwards, once.
  async refresh() {
    if (this.refreshing) { this.again = true; return this.refreshing }
    this.refreshing = this.fetchAll()
    try {
      await this.refreshing
    } finally {
      this.refreshing = null
    }
    if (this.again) { this.again = false; await this.refresh() }
  }

  async fetchAll() {
    try {
      await Promise.all(['', ...this.expanded].map(p => this.fetch(p)))
    } catch (err) {
      toast(`The files could not be listed: ${err.message}`, true)
    }
    if (!this.naming) this.render()
  }

  async fetch(path) {
    try {
      const { entries } = await (await call('GET', 'files', { query: { path } })).json()
      this.folders.set(path, entries.map(e => ({ ...e, path: join(path, e.name) })))
    } catch (err) {
      if (err.status !== 404 || path === '') throw err
      this.expanded.delete(path)
      this.folders.delete(path)
    }
  }

  has(path) { return Boolean(path) && [...this.folders.values()].some(list => list.some(e => e.path === path)) }

  find(path) { return this.folders.get(parentOf(path))?.find(e => e.path === path) }

  select(path) {
    this.selected = path
    this.render()
  }

  focus() { (this.root.querySelector('[tabindex="0"]') ?? $('new-file')).focus() }

  // --- drawing

  render() {
    const focused = this.root.contains(document.activeElement) ? document.activeElement.dataset?.path : undefined
    const top = this.folders.get('') ?? []
    this.root.replaceChildren(...this.items('', 0))
    $('tree-empty').hidden = top.length > 0
    const current = this.item(focused ?? this.selected) ?? this.root.querySelector('[role="treeitem"]')
    if (current) current.tabIndex = 0
    if (focused !== undefined) current?.focus()
  }

  items(folder, depth) {
    return (this.folders.get(folder) ?? []).map(e => this.drawn(e, depth))
  }

  drawn(entry, depth) {
    const row = el('div', { className: 'row' })
    row.style.setProperty('--depth', depth)
    const twist = icon('chevron', 'twist')
    if (!entry.folder) twist.style.visibility = 'hidden'
    row.append(twist, icon(entry.folder ? 'folder' : 'file'), el('span', { className: 'name', textContent: entry.name, title: entry.name }),
      this.action('pen', 'rename', `Rename ${entry.name}`), this.action('trash', 'delete', `Delete ${entry.name}`))
    const item = el('li', { role: 'treeitem', tabIndex: -1 }, row)
    item.dataset.path = entry.path
    item.setAttribute('aria-selected', String(entry.path === this.selected))
    item.setAttribute('aria-level', String(depth + 1))
    item.setAttribute('aria-label', entry.name)
    if (entry.folder) {
      const open = this.expanded.has(entry.path)
      item.setAttribute('aria-expanded', String(open))
      if (open) item.append(el('ul', { role: 'group' }, ...this.items(entry.path, depth + 1)))
    }
    return item
  }

  action(iconName, name, label) {
    const b = el('button', { className: 'icon', type: 'button', title: label, tabIndex: -1 }, icon(iconName))
    b.setAttribute('aria-label', label)
    b.dataset.action = name
    return b
  }

  item(path) { return path ? this.root.querySelector(`[data-path="${CSS.escape(path)}"]`) : null }

  // --- use

  click(e) {
    const item = e.target.closest('[role="treeitem"]')
    if (!item || e.target.closest('input')) return
    const action = e.target.closest('[data-action]')?.dataset.action
    const path = item.dataset.path
    if (action === 'rename') this.rename(path)
    else if (action === 'delete') this.delete(path)
    else this.activate(path)
  }

  async activate(path) {
    const entry = this.find(path)
    if (!entry) return
    this.selected = path
    if (!entry.folder) {
      this.render()
      this.onOpen(path)
    } else if (this.expanded.delete(path)) {
      this.folders.delete(path)
      this.render()
    } else {
      this.expanded.add(path)
      await this.fetch(path).catch(err => { this.expanded.delete(path); toast(`The folder could not be opened: ${err.message}`, true) })
      this.render()
    }
  }

  key(e) {
    const item = e.target.closest('[role="treeitem"]')
    if (!item || e.target !== item) return
    const path = item.dataset.path
    const items = [...this.root.querySelectorAll('[role="treeitem"]')]
    const move = to => to && (items.forEach(i => { i.tabIndex = -1 }), to.tabIndex = 0, to.focus())
    const at = items.indexOf(item)
    const open = item.getAttribute('aria-expanded')
    const does = {
      ArrowDown: () => move(items[at + 1]),
      ArrowUp: () => move(items[at - 1]),
      Home: () => move(items[0]),
      End: () => move(items.at(-1)),
      ArrowRight: () => open === 'false' ? this.activate(path) : open === 'true' && move(items[at + 1]),
      ArrowLeft: () => open === 'true' ? this.activate(path) : move(this.item(parentOf(path))),
      Enter: () => this.activate(path),
      ' ': () => this.activate(path),
      F2: () => this.rename(path),
      Delete: () => this.delete(path),
    }[e.key]
    if (!does || e.ctrlKey || e.metaKey || e.altKey) return
    e.preventDefault()
    does()
  }

  // --- changes

  // name asks for a name in place of a row. null: given up.
  name(row, initial) {
    const input = el('input', { value: initial, spellcheck: false })
    input.setAttribute('aria-label', 'Name')
    row.replaceChildren(...[...row.querySelectorAll('svg')].slice(0, 2), input)
    this.naming = true
    input.focus()
    const dot = initial.lastIndexOf('.')
    input.setSelectionRange(0, dot > 0 ? dot : initial.length)
    return new Promise(done => {
      const end = value => { if (this.naming) { this.naming = false; done(value) } }
      input.addEventListener('blur', () => end(input.value.trim() || null))
      input.addEventListener('keydown', e => {
        e.stopPropagation()
        if (e.key === 'Enter') end(input.value.trim() || null)
        if (e.key === 'Escape') end(null)
      })
    })
  }

  async create(folder) {
    if (this.naming) return
    const chosen = this.selected && this.find(this.selected)
    const dir = !chosen ? '' : chosen.folder ? chosen.path : parentOf(chosen.path)
    if (dir && !this.expanded.has(dir)) await this.activate(dir)
    const list = dir ? this.item(dir)?.querySelector('ul') ?? this.root : this.root
    $('tree-empty').hidden = true
    const row = el('div', { className: 'row' }, icon('chevron', 'twist'), icon(folder ? 'folder' : 'file'))
    row.firstChild.style.visibility = 'hidden'
    row.style.setProperty('--depth', dir ? dir.split('/').length : 0)
    list.prepend(el('li', { role: 'none' }, row))
    row.scrollIntoView({ block: 'nearest' })
    const name = await this.name(row, '')
    const path = name && join(dir, name)
    if (path && await this.change('It was not made', () => folder
      ? call('POST', 'folder', { query: { path } })
      : call('PUT', 'file', { query: { path }, headers: { 'If-None-Match': '*' }, body: '' }))) {
      this.selected = path
      if (folder) this.expanded.add(path)
    }
    await this.refresh()
    if (path && this.has(path)) { this.item(path)?.focus(); if (!folder && this.selected === path) this.onOpen(path) }
  }

  async rename(path) {
    const row = this.item(path)?.querySelector('.row')
    if (!row || this.naming) return
    const name = await this.name(row, path.slice(parentOf(path).length).replace('/', ''))
    const to = name && join(parentOf(path), name)
    if (to && to !== path && await this.change('It was not renamed', () => call('POST', 'rename', { query: { from: path, to } }))) {
      this.expanded = new Set([...this.expanded].map(p => p === path || p.startsWith(path + '/') ? to + p.slice(path.length) : p))
      if (this.selected === path) this.selected = to
      this.onMoved(path, to)
    }
    await this.refresh()
    this.item(to ?? path)?.focus()
  }

  async delete(path) {
    const entry = this.find(path)
    if (!entry || !await confirmed(`Delete ${entry.name}?`, entry.folder ? 'The folder and all that is in it will be gone.' : 'The file will be gone.')) return
    if (await this.change('It was not deleted', () => call('DELETE', 'file', { query: { path } }))) {
      this.expanded = new Set([...this.expanded].filter(p => p !== path && !p.startsWith(path + '/')))
      if (this.selected === path) this.selected = null
      this.onDeleted(path)
    }
    await this.refresh()
    this.focus()
  }

  async change(failed, does) {
    try {
      await does()
      return true
    } catch (err) {
      toast(`${failed}: ${err.message}.`, true)
      return false
    }
  }
}
