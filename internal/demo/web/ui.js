// Small things that all parts use.

export const $ = id => document.getElementById(id)

export function el(tag, properties = {}, ...children) {
  const e = document.createElement(tag)
  for (const [k, v] of Object.entries(properties)) {
    if (k in e) e[k] = v
    else e.setAttribute(k, v)
  }
  e.append(...children)
  return e
}

export function icon(name, className = '') {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  svg.setAttribute('aria-hidden', 'true')
  if (className) svg.setAttribute('class', className)
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use')
  use.setAttribute('href', `#i-${name}`)
  svg.append(use)
  return svg
}

export function toast(text, bad = false) {
  const t = el('div', { className: bad ? 'toast bad' : 'toast', textContent: text })
  $('toasts').append(t)
  setTimeout(() => t.remove(), 7000)
}

export function say(element, text, tone = '') {
  if (element.textContent !== text) element.textContent = text
  element.dataset.tone = tone
}

export function duration(ms) {
  const s = Math.round(ms / 1000)
  if (s < 60) return `${s}s`
  const m = Math.floor(s / 60)
  if (m < 60) return s % 60 ? `${m}m ${s % 60}s` : `${m}m`
  const h = Math.floor(m / 60)
  return m % 60 ? `${h}h ${m % 60}m` : `${h}h`
}

export async function confirmed(title, text) {
  const dialog = $('confirm')
  $('confirm-title').textContent = title
  $('confirm-text').textContent = text
  dialog.returnValue = 'no'
  dialog.showModal()
  await new Promise(done => dialog.addEventListener('close', done, { once: true }))
  return dialog.returnValue === 'yes'
}

// APIError is an answer of the server that is no success; a request that got
// none is a TypeError of fetch.
export class APIError extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

// call asks the server. A request that meets a sleeping sandbox is held by the
// proxy, so it has no timeout here. Problems of the way (502, 503, 504) are
// tried again where repeating does no harm.
export async function call(method, path, { query = {}, headers = {}, body, attempts = 4 } = {}) {
  const url = `/api/${path}${Object.keys(query).length ? '?' + new URLSearchParams(query) : ''}`
  for (let n = 1; ; n++) {
    let res
    try {
      res = await fetch(url, { method, headers, body })
    } catch (err) {
      if (n >= attempts || method === 'POST') throw err
    }
    if (res?.ok) return res
    if (res && !(res.status >= 502 && res.status <= 504 && n < attempts)) throw await errorOf(res)
    await new Promise(done => setTimeout(done, 300 * 2 ** n))
  }
}

async function errorOf(res) {
  const body = await res.json().catch(() => ({}))
  return new APIError(res.status, body.error ?? body.detail ?? `the answer was ${res.status}`)
}
