// The libraries under one roof, so that no other file knows where they lie.
import { h } from '../vendor/preact/preact.mjs'
import htm from '../vendor/htm/htm.mjs'

export { Fragment, render } from '../vendor/preact/preact.mjs'
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from '../vendor/preact/hooks.mjs'
export { batch, computed, effect, signal, useComputed, useSignal } from '../vendor/signals/signals.mjs'

export const html = htm.bind(h)

// memo leaves what is drawn as it is while no property has changed.
export function memo(draw) {
	return function Memo(props) {
		this.shouldComponentUpdate = next => Object.keys({ ...next, ...this.props }).some(k => next[k] !== this.props[k])
		return html`<${draw} ...${props} />`
	}
}
