// Package session is what a sandbox session is: its record, its states, the
// transitions between them and the deadlines that follow from them.
//
//	          idle, or by hand             the host's answer
//	RUNNING ───────────────────▶ PAUSING ───────────────────▶ PAUSED
//	   ▲  ▲                         │                          │  ▲
//	   │  └── still in use, failed ─┘                  request │  │ failed
//	   │                                                       ▼  │
//	   └───────────────────── connected ◀───────────────── RESUMING
//
//	any of them ── the host says 404 ──▶ KILLED ── it knows it after all ──▶ RUNNING, PAUSED
//
// The package is pure: no I/O, no clock, no goroutine. Times come in as
// arguments, and a transition gives a new Record instead of changing one.
// Which transition wins is decided by the store's compares, not here.
package session
