// The page: panels, theme, and what ties the parts to each other. Nothing here
// or in the parts asks the server for anything unless somebody did something.
import { Editor } from './editor.js'
import { Life } from './life.js'
import { TerminalPanel } from './terminal.js'
import { Tree } from './tree.js'
import { $, toast } from './ui.js'

const root = document.documentElement
const phone = matchMedia('(max-width: 760px)')
const darkSystem = matchMedia('(prefers-color-scheme: dark)')

const editor = new Editor()
const life = new Life()
const tree = new Tree({
  onOpen: path => { editor.open(path); show('editor') },
  onMoved: (from, to) => editor.moved(from, to),
  onDeleted: path => editor.deleted(path),
})
const terminal = new TerminalPanel({
  onSettled: () => { tree.refresh(); editor.lookAgain() },
  onConnected: again => { if (again) life.refresh() },
  onWoke: duration => {
    life.refresh()
    toast(`Slept for ${duration}. Memory, processes and files are as you left them.`)
  },
})

// whoever uses the files or the editor sees what programs have done meanwhile
for (const panel of ['files', 'editor']) {
  document.querySelector(`[data-panel=${panel}]`).addEventListener('click', () => terminal.caughtUp())
}

const label = location.hostname.split('.')[0]
const id = label.replace(/^\d+-/, '')
if (id !== label) {
  $('sandbox').textContent = id
  $('sandbox').hidden = false
  document.title = `${id} · Sandman demo`
}

// --- panels

const views = [...document.querySelectorAll('.views button')]

function show(view) {
  root.dataset.view = view
  for (const b of views) b.setAttribute('aria-current', String(b.dataset.view === view))
  if (view === 'terminal') terminal.fit()
  if (view === 'editor') editor.layout()
}
for (const b of views) b.addEventListener('click', () => { show(b.dataset.view); if (b.dataset.view === 'terminal') terminal.focus() })
show('editor')

const panels = [
  ['files', () => tree.focus()],
  ['editor', () => editor.focus()],
  ['terminal', () => terminal.focus()],
  ['life', () => $('count').focus()],
]
addEventListener('keydown', e => {
  if (e.key !== 'F6') return
  e.preventDefault()
  const here = document.activeElement?.closest('[data-panel]')?.dataset.panel
  const at = panels.findIndex(([name]) => name === here)
  const [name, focus] = panels[(at + (e.shiftKey ? panels.length - 1 : 1)) % panels.length] ?? panels[0]
  if (phone.matches) show(name)
  focus()
})

// --- theme

function isDark() {
  return root.dataset.theme ? root.dataset.theme === 'dark' : darkSystem.matches
}
function applyTheme() {
  document.querySelector('#theme use').setAttribute('href', isDark() ? '#i-sun' : '#i-moon')
  terminal.setDark(isDark())
}
const kept = localStorage.getItem('theme')
if (kept) root.dataset.theme = kept
darkSystem.addEventListener('change', applyTheme)
$('theme').addEventListener('click', () => {
  root.dataset.theme = isDark() ? 'light' : 'dark'
  localStorage.setItem('theme', root.dataset.theme)
  applyTheme()
})
applyTheme()

// --- the terminal's height

function setHeight(percent) {
  percent = Math.min(80, Math.max(15, percent))
  root.style.setProperty('--terminal', `${percent}%`)
  $('splitter').setAttribute('aria-valuenow', String(Math.round(percent)))
  return percent
}
let height = setHeight(Number(localStorage.getItem('terminal-height')) || 38)
const keepHeight = h => { height = setHeight(h); localStorage.setItem('terminal-height', String(height)) }
$('splitter').addEventListener('pointerdown', e => {
  e.target.setPointerCapture(e.pointerId)
  const move = m => setHeight((1 - (m.clientY - 48) / (innerHeight - 55)) * 100)
  e.target.addEventListener('pointermove', move)
  e.target.addEventListener('lostpointercapture', m => {
    e.target.removeEventListener('pointermove', move)
    keepHeight((1 - (m.clientY - 48) / (innerHeight - 55)) * 100)
  }, { once: true })
})
$('splitter').addEventListener('keydown', e => {
  const step = { ArrowUp: 3, ArrowDown: -3 }[e.key]
  if (step) { e.preventDefault(); keepHeight(height + step) }
})

// --- start

tree.refresh().then(() => {
  const last = localStorage.getItem('open')
  const first = tree.has(last) ? last : tree.has('welcome.md') ? 'welcome.md' : null
  if (first) { tree.select(first); editor.open(first) }
})
life.refresh()
terminal.connect()
