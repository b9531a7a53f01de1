package activity

import (
	"context"
	"sync/atomic"
)

// What a visit is decides when it stops counting by itself.
const (
	modeRequest int32 = iota // counts until its answer begins, however long that takes
	modeAnswer               // counts while bytes move; a pause by hand waits for it
	modeStream               // counts while bytes move; a pause by hand does not wait for it
)

// Visit is one request or one long connection at one sandbox. Its methods may
// be called by several goroutines, but for Try, Enter and End, which belong to
// the one that serves it.
type Visit struct {
	use      *use
	kind     string
	mode     atomic.Int32
	last     atomic.Int64 // tracker time of its last counted byte
	counting atomic.Bool  // presence is held for it
	cut      func()       // guarded by use.mu
}

// Try makes the visit count if memory alone says that it may: presence is in
// the store and its lease alive. It is the fast path of every request.
func (v *Visit) Try() bool {
	u := v.lock()
	defer u.mu.Unlock()
	if !u.unsyncedUsable() {
		return false
	}
	u.unsyncedJoin(v)
	v.touch()
	return true
}

// Enter makes the visit count by putting presence under revision rev of a
// RUNNING record. It fails where the record has moved on, or the store does
// not answer.
func (v *Visit) Enter(ctx context.Context, rev int64) error {
	u := v.lock()
	if u.unsyncedUsable() {
		u.unsyncedJoin(v)
		v.touch()
		u.mu.Unlock()
		return nil
	}
	call := u.unsyncedEnter(rev, v, v.kind)
	u.mu.Unlock()
	return u.wait(ctx, call, v)
}

// Force makes the visit count without presence, for as long as the store can't
// be reached. The tracker asks for presence (Config.Lost) as soon as it can.
func (v *Visit) Force() {
	u := v.lock()
	defer u.mu.Unlock()
	u.unsyncedJoin(v)
	v.touch()
}

// OnCut sets what ends the visit when a pause is forced. It is called at most
// a few times, must not block, and not call the visit.
func (v *Visit) OnCut(cut func()) {
	u := v.lock()
	defer u.mu.Unlock()
	v.cut = cut
}

// Answer tells that the answer has begun: from here on the visit counts only
// while bytes move.
func (v *Visit) Answer() { v.mode.CompareAndSwap(modeRequest, modeAnswer); v.touch() }

// Stream tells that the visit is a long connection of the given kind, such as
// "websocket": it counts while Bump is called, and no pause by hand waits for
// it.
func (v *Visit) Stream(kind string) {
	u := v.lock()
	v.kind = kind
	u.mu.Unlock()
	v.mode.Store(modeStream)
	v.touch()
}

// Bump notes that a byte which counts has passed. It returns false if the
// visit is dormant: no presence is held for it, and the caller must make it
// count again (Try, Enter) before it forwards the byte.
func (v *Visit) Bump() bool {
	v.touch()
	return v.counting.Load()
}

func (v *Visit) touch() {
	now := v.use.t.now()
	v.last.Store(now)
	v.use.bump(now, v.kind)
}

// End ends the visit. If it counted, the idle time starts here. It may be
// called again.
func (v *Visit) End() {
	u := v.lock()
	defer u.mu.Unlock()
	if _, ok := u.visits[v]; !ok {
		return
	}
	if v.counting.Load() && v.mode.Load() != modeStream {
		v.touch()
	}
	delete(u.visits, v)
	u.unsyncedDormant(v)
	u.unsyncedLeaveSoon()
}

// lock locks the use that the visit belongs to, which a visit that came late
// finds replaced.
func (v *Visit) lock() *use {
	for {
		u := v.use
		u.mu.Lock()
		if !u.dead {
			return u
		}
		u.mu.Unlock()
		v.use = u.t.use(u.id)
	}
}
