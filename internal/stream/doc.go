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
// Payloads are neither copied, changed nor delayed: only the headers of frames
// are looked at, wherever the reads and writes happen to cut them.
package stream
