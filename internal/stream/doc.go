// Package stream knows what the bytes of a long connection mean. It knows no
// store, no host and no proxy: its owner hands it a body, and is told by
// callbacks when somebody is there.
//
//	Body    an upgraded connection: WebSocket frames, or raw bytes
//	Meter   an ordinary request's or response's body
//	Replay  a request's body that may have to be sent again
//
// A proxy copies an upgraded connection between two ends, and never notices
// the Body between them:
//
//	client ── bytes ──> proxy ── Write ──> Body ──> upstream
//	                                        │ Count, before a message goes on
//	client <── bytes ── proxy <── Read ─── Body <── upstream
//	                                        │ a close frame, at a frame boundary
//
// The bytes that are forwarded are the client's own. While a stream counts they
// go on as they come, and its messages are read beside that, up to 4 KiB each:
//
//	live      everything goes on at once
//	dormant   a message is held until it is judged: what counts goes through Count
//	          first, noise and control frames go on
//	parked    nothing goes on: pings are answered, noise is kept for later, what
//	          counts goes through Count, which ends the parking
//	severed   parked, and the upstream's connection has gone: closed with 1012
//	          once the parking ends
package stream
