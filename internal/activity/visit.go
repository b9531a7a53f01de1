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
// the one that serves it. Once it has ended, all of them do nothing: bytes that
// come late keep nothing awake.
type Visit struct {
	use      atomic.Pointer[use]
	kind     string                 // of the request
	stream   atomic.Pointer[string] // kind of the long connection that it became
	mode     atomic.Int32
	last     atomic.Int64 // tracker time of its last counted byte
	counting atomic.Bool  // presence is held for it
	ended    atomic.Bool
	cut      func() // guarded by use.mu
}

// Try makes the visit count if memory alone says that it may: presence is in
// the store and its lease alive. It is the fast path of every request.
func (v *Visit) Try() bool {
	u := v.lock()
	defer u.mu.Unlock()
	return u.unsyncedUsable() && u.unsyncedJoin(v)
}

// Enter makes the visit count by putting presence under revision rev of a
// RUNNING record. It fails where the record has moved on (the error is a
// session.ErrConflict), or the store does not answer.
func (v *Visit) Enter(ctx context.Context, rev int64) error {
	u := v.lock()
	if v.ended.Load() || (u.unsyncedUsable() && u.unsyncedJoin(v)) {
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
	if u.unsyncedJoin(v) && !u.unsyncedUsable() {
		u.t.lookAt(u)
	}
}

// OnCut sets what ends the visit when a pause is forced: at once where it has
// been. It is called at most a few times, must not block, and not call the
// visit.
func (v *Visit) OnCut(cut func()) {
	u := v.lock()
	defer u.mu.Unlock()
	v.cut = cut
	if _, ok := u.visits[v]; ok && u.cutting {
		u.unsyncedCut(v)
	}
}

// Answer tells that the answer has begun: from here on the visit counts only
// while bytes move.
func (v *Visit) Answer() {
	v.mode.CompareAndSwap(modeRequest, modeAnswer)
	v.Bump()
}

// Stream tells that the visit is a long connection of the given kind, such as
// "websocket": it counts while Bump is called, and no pause by hand waits for
// it, nor for one that is under way.
func (v *Visit) Stream(kind string) {
	u := v.lock()
	defer u.mu.Unlock()
	v.stream.Store(&kind)
	v.mode.Store(modeStream)
	v.Bump()
	if u.draining {
		u.unsyncedDormant(v)
		u.unsyncedLeaveSoon()
	}
}

// Bump notes that a byte which counts has passed. It returns false if the
// visit is dormant: no presence is held for it, and the caller must make it
// count again (Try, Enter) before it forwards the byte.
func (v *Visit) Bump() bool {
	if v.ended.Load() {
		return false
	}
	v.touch()
	return v.counting.Load()
}

// Counting tells whether the visit counts right now.
func (v *Visit) Counting() bool { return v.counting.Load() }

func (v *Visit) touch() {
	u := v.use.Load()
	now := u.t.now()
	v.last.Store(now)
	kind := v.kind
	if stream := v.stream.Load(); stream != nil {
		kind = *stream
	}
	u.bump(now, kind)
}

// End ends the visit. If it counted, the idle time starts here. It may be
// called again.
func (v *Visit) End() {
	u := v.lock()
	defer u.mu.Unlock()
	if v.counting.Load() && v.mode.Load() != modeStream {
		v.Bump()
	}
	v.ended.Store(true)
	delete(u.visits, v)
	u.unsyncedDormant(v)
	u.unsyncedLeaveSoon()
}

// lock locks the use that the visit belongs to, which a visit that came late
// finds replaced.
func (v *Visit) lock() *use {
	for {
		u := v.use.Load()
		u.mu.Lock()
		if !u.dead {
			return u
		}
		u.mu.Unlock()
		v.use.CompareAndSwap(u, u.t.use(u.id))
	}
}
