// A highlighter that knows words, strings, numbers and comments, and no
// grammar: enough to read by.

const words = {
  js: 'async await break case catch class const continue default delete do else export extends false finally for from function if import in instanceof let new null of return static super switch this throw true try typeof undefined var void while yield',
  py: 'and as assert async await break class continue def del elif else except False finally for from global if import in is lambda None nonlocal not or pass raise return True try while with yield self',
  go: 'break case chan const continue default defer else fallthrough false for func go goto if import interface map nil package range return select struct switch true type var string int int64 bool byte error any',
  sh: 'if then else elif fi for in do done while until case esac function return exit echo export local set unset cd alias',
  json: 'true false null',
  css: '',
}
const kinds = {
  js: 'js', mjs: 'js', cjs: 'js', ts: 'js', tsx: 'js', jsx: 'js', py: 'py', go: 'go', json: 'json', css: 'css',
  sh: 'sh', bash: 'sh', bashrc: 'sh', profile: 'sh', md: 'md', html: 'html', htm: 'html', svg: 'html', xml: 'html',
}
const comments = {
  js: '\\/\\/[^\\n]*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)', go: '\\/\\/[^\\n]*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)', css: '\\/\\*[\\s\\S]*?(?:\\*\\/|$)',
  py: '#[^\\n]*', sh: '(?<=^|\\s)#[^\\n]*',
}
const strings = {
  js: '`(?:\\\\[\\s\\S]|[^`\\\\])*`?|', go: '`[^`]*`?|', py: '"""[\\s\\S]*?(?:"""|$)|\'\'\'[\\s\\S]*?(?:\'\'\'|$)|',
}
const plainStrings = '"(?:\\\\.|[^"\\\\\\n])*"?|\'(?:\\\\.|[^\'\\\\\\n])*\'?'

const escapes = { '&': '&amp;', '<': '&lt;', '>': '&gt;' }
const escape = s => s.replace(/[&<>]/g, c => escapes[c])
const span = (kind, s) => `<span class="${kind}">${escape(s)}</span>`

const compiled = new Map()

function pattern(kind) {
  if (!compiled.has(kind)) {
    const parts = [comments[kind] ?? '(?!)', (strings[kind] ?? '') + plainStrings, '\\b\\d[\\w.]*', '[A-Za-z_]\\w*']
    compiled.set(kind, new RegExp(parts.map(p => `(${p})`).join('|'), 'gm'))
  }
  return compiled.get(kind)
}

function code(kind, text) {
  const keywords = new Set(words[kind].split(' '))
  let html = '', at = 0
  for (const m of text.matchAll(pattern(kind))) {
    html += escape(text.slice(at, m.index))
    const style = m[1] ? 'c' : m[2] ? 's' : m[3] ? 'n' : keywords.has(m[0]) ? 'k' : ''
    html += style ? span(style, m[0]) : escape(m[0])
    at = m.index + m[0].length
  }
  return html + escape(text.slice(at))
}

function rules(text, expression, style) {
  let html = '', at = 0
  for (const m of text.matchAll(expression)) {
    html += escape(text.slice(at, m.index)) + span(style(m), m[0])
    at = m.index + m[0].length
  }
  return html + escape(text.slice(at))
}

const markdown = text => rules(text, /^(#{1,6} .*)$|(`[^`\n]+`|^(?: {4}|\t).*$)|(\*\*[^*\n]+\*\*)|^(\s*(?:[-*+]|\d+\.)(?= ))/gm,
  m => m[1] ? 'h' : m[2] ? 's' : m[3] ? 'k' : 'n')
const markup = text => rules(text, /(<!--[\s\S]*?(?:-->|$))|(<\/?[\w:-]+|\/?>)|("[^"\n]*")/g, m => m[1] ? 'c' : m[2] ? 't' : 's')

// highlight gives HTML for text, or null for a kind of file that it doesn't know.
export function highlight(path, text) {
  const kind = kinds[path.split('/').pop().split('.').pop().toLowerCase()]
  switch (kind) {
    case undefined: return null
    case 'md': return markdown(text)
    case 'html': return markup(text)
    default: return code(kind, text)
  }
}
