// A list of thousands of which only what can be seen is in the page.
import { html, useEffect, useLayoutEffect, useRef, useSignal } from './lib.js'

const margin = 8 // rows beyond the edges, so that a quick scroll shows no gap

// Rows draws rows of one height, each as a Row with the properties item, index and height. Its element needs
// what place gives.
export function Rows({ items, keyOf, height, Row, label }) {
	const box = useRef()
	const view = useSignal({ top: 0, height: 800 })
	const focused = useSignal(null) // the key whose row stays while the focus is in it

	useLayoutEffect(() => {
		const measure = () => {
			view.value = { top: box.current.scrollTop, height: box.current.clientHeight }
			// the heads of the columns stand above the columns, and not above the scroll bar
			box.current.parentElement.style.setProperty('--bar', `${box.current.offsetWidth - box.current.clientWidth}px`)
		}
		const observer = new ResizeObserver(measure)
		observer.observe(box.current)
		measure()
		return () => observer.disconnect()
	}, [])
	useEffect(() => { // the list got shorter than where we are
		if (box.current.scrollTop !== view.value.top) view.value = { ...view.value, top: box.current.scrollTop }
	}, [items.length, height])

	const first = Math.max(0, Math.floor(view.value.top / height) - margin)
	const last = Math.min(items.length, Math.ceil((view.value.top + view.value.height) / height) + margin)
	const shown = []
	for (let i = first; i < last; i++) shown.push(i)
	if (focused.value !== null) {
		const at = items.findIndex(item => keyOf(item) === focused.value)
		if (at >= 0 && (at < first || at >= last)) shown.push(at)
	}

	const step = event => {
		const by = { ArrowDown: 1, ArrowUp: -1 }[event.key]
		const row = event.target.closest('[data-index]')
		if (!by || !row) return
		const next = Number(row.dataset.index) + by
		if (next < 0 || next >= items.length) return
		event.preventDefault()
		const top = next * height
		if (top < box.current.scrollTop) box.current.scrollTop = top
		if (top + height > box.current.scrollTop + box.current.clientHeight) box.current.scrollTop = top + height - box.current.clientHeight
		view.value = { ...view.value, top: box.current.scrollTop }
		requestAnimationFrame(() => box.current?.querySelector(`[data-index="${next}"] a`)?.focus({ preventScroll: true }))
	}

	return html`
		<div class="rows" ref=${box} role="rowgroup" tabindex="0" aria-label=${label} onKeyDown=${step}
			onScroll=${() => { view.value = { ...view.value, top: box.current.scrollTop } }}
			onFocusIn=${event => { focused.value = event.target.closest('[data-key]')?.dataset.key ?? null }}
			onFocusOut=${event => { if (!box.current?.contains(event.relatedTarget)) focused.value = null }}>
			<div class="rows-all" role="presentation" style=${{ height: `${items.length * height}px` }}>
				${shown.map(i => html`<${Row} key=${keyOf(items[i])} item=${items[i]} index=${i} height=${height} />`)}
			</div>
		</div>`
}

// place is where a row stands, for the eye and for screen readers, which would not know it otherwise: most
// rows are not there. The first one of the table is its head.
export const place = (key, index, height) => ({ 'data-key': key, 'data-index': index, 'aria-rowindex': index + 2, style: { transform: `translateY(${index * height}px)`, height: `${height}px` } })
