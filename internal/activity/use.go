package activity

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// use is what this process knows of one sandbox's use.
type use struct {
	t  *Tracker
	id string

	last    atomic.Int64 // tracker time of the last counted byte, 0: none yet
	kind    atomicString // what it was
	unsaved atomic.Bool  // last has moved since the last flush

	mu       sync.Mutex // guards the following fields
	inside   bool       // presence is in the store, as far as we know
	presence Presence   // what was put last
	owed     bool       // a LEAVE is owed or under way
	draining bool       // a pause by hand is under way
	doubted  bool       // the record or the host contradicts our presence
	doubts   int        // counts doubts, so that an older ENTER can't clear a newer one
	dead     bool       // dropped from the tracker's map
	counting int        // visits that count
	visits   map[*Visit]struct{}
	linger   *time.Timer
	entering *entering // the ENTER under way
	lost     bool      // Config.Lost is being called
}

// entering is one ENTER that any number of visits wait for. They count from
// the moment that it succeeds, under the same lock: no LEAVE can come between.
type entering struct {
	rev     int64
	waiters map[*Visit]struct{} // guarded by use.mu
	done    chan struct{}       // closed once err is set
	err     error
}

// usable tells whether a visit may begin by memory alone. u.mu must be held.
func (u *use) unsyncedUsable() bool {
	return u.inside && !u.draining && !u.doubted && u.t.store.Alive(u.presence.Lease)
}

func (u *use) unsyncedEntered(p Presence, kind string) {
	u.inside = true
	if p.Revision >= u.presence.Revision { // answers may come out of order
		u.presence = p
	}
	if kind != "" {
		u.kind.store(kind)
	}
}

// join makes v count. u.mu must be held.
func (u *use) unsyncedJoin(v *Visit) {
	if u.visits == nil {
		u.visits = make(map[*Visit]struct{})
	}
	u.visits[v] = struct{}{}
	if !v.counting.Swap(true) {
		u.counting++
	}
	if u.linger != nil {
		u.linger.Stop()
		u.linger = nil
	}
}

// enter puts presence under revision rev for v (nil: for the visits that
// count already), joining an ENTER that is under way for the same revision.
// The Txn goes on if ctx ends: its outcome must become known.
func (u *use) unsyncedEnter(rev int64, v *Visit, kind string) *entering {
	call := u.entering
	if call == nil || call.rev != rev {
		call = &entering{rev: rev, waiters: make(map[*Visit]struct{}), done: make(chan struct{})}
		u.entering = call
		doubts := u.doubts
		u.t.background.Go(func() { u.runEnter(call, doubts, kind) })
	}
	if v != nil {
		call.waiters[v] = struct{}{}
	}
	return call
}

// wait awaits the end of an ENTER that v waits for.
func (u *use) wait(ctx context.Context, call *entering, v *Visit) error {
	select {
	case <-call.done:
		return call.err
	case <-ctx.Done():
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(call.waiters, v)
		return ctx.Err()
	}
}

const enterTimeout = 2 * time.Second

func (u *use) runEnter(call *entering, doubts int, kind string) {
	ctx, cancel := context.WithTimeout(u.t.leaving, enterTimeout)
	defer cancel()
	p, err := u.t.store.Enter(ctx, u.id, call.rev, kind)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.entering == call {
		u.entering = nil
	}
	if err == nil {
		u.unsyncedEntered(p, kind)
		u.doubted = u.doubted && u.doubts != doubts
		for v := range call.waiters {
			u.unsyncedJoin(v)
			v.touch()
		}
		u.unsyncedLeaveSoon()
	}
	call.err = err
	close(call.done)
}

// leaveSoon starts the linger if nothing counts any more. u.mu must be held.
func (u *use) unsyncedLeaveSoon() {
	if u.counting > 0 || !u.inside || u.linger != nil {
		return
	}
	if u.draining {
		u.unsyncedOweLeave()
		return
	}
	u.linger = time.AfterFunc(u.t.cfg.Linger(u.id), u.leaveNow)
}

// leaveNow sends LEAVE unless something counts again.
func (u *use) leaveNow() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.linger = nil
	if u.counting == 0 && u.inside {
		u.unsyncedOweLeave()
	}
}

// oweLeave sends LEAVE until the store has answered. u.mu must be held.
func (u *use) unsyncedOweLeave() {
	u.inside = false
	if u.owed {
		return
	}
	u.owed = true
	u.t.background.Go(u.runLeave)
}

const (
	leaveTimeout = 2 * time.Second
	leaveRetry   = 200 * time.Millisecond
)

// runLeave repeats LEAVE for the presence that was put last. A newer ENTER
// makes it pointless, and its compare keeps it from doing harm.
func (u *use) runLeave() {
	for {
		p, ok := u.leavable()
		if !ok {
			return
		}
		ctx, cancel := context.WithTimeout(u.t.leaving, leaveTimeout)
		err := u.t.store.Leave(ctx, u.id, p.Revision, u.quiet(), u.kind.load())
		cancel()
		if err == nil && u.left(p) {
			return
		}
		select {
		case <-u.t.leaving.Done():
			return
		case <-time.After(leaveRetry):
		}
	}
}

// leavable gives the presence that a LEAVE is owed for, if any still is.
func (u *use) leavable() (Presence, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.inside { // entered again
		u.owed = false
	}
	return u.presence, u.owed
}

// left notes that the LEAVE of p was answered; false if another is owed.
func (u *use) left(p Presence) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.inside && u.presence != p {
		return false
	}
	u.owed = false
	return true
}

func (u *use) quiet() time.Duration {
	last := u.last.Load()
	if last == 0 {
		return 0
	}
	return time.Duration(u.t.now() - last)
}

// bump notes a counted byte at tracker time now.
func (u *use) bump(now int64, kind string) {
	for {
		last := u.last.Load()
		if last >= now || u.last.CompareAndSwap(last, now) {
			break
		}
	}
	u.kind.store(kind)
	if !u.unsaved.Load() && !u.unsaved.Swap(true) {
		u.t.changed()
	}
}

// dirty gives what a flush should write.
func (u *use) dirty(now int64) (Bump, bool) {
	if !u.unsaved.Swap(false) {
		return Bump{}, false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.inside {
		return Bump{}, false // the LEAVE brings it
	}
	return Bump{ID: u.id, Quiet: time.Duration(now - u.last.Load()), Kind: u.kind.load()}, true
}

func (u *use) drain() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.draining = true
	for v := range u.visits {
		if v.mode.Load() == modeStream {
			u.unsyncedDormant(v)
		}
	}
	if u.linger != nil {
		u.linger.Stop()
		u.linger = nil
	}
	u.unsyncedLeaveSoon()
}

func (u *use) cut() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for v := range u.visits {
		if v.mode.Load() != modeStream && v.cut != nil {
			v.cut()
		}
	}
}

func (u *use) undrain() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.draining = false
}

func (u *use) doubt() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.doubted = true
	u.doubts++
}

func (u *use) count() (requests, streams int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for v := range u.visits {
		switch {
		case !v.counting.Load():
		case v.mode.Load() == modeStream:
			streams++
		default:
			requests++
		}
	}
	return requests, streams
}

// dormant makes v count no more. u.mu must be held.
func (u *use) unsyncedDormant(v *Visit) {
	if v.counting.Swap(false) {
		u.counting--
	}
}

// look makes quiet visits dormant, notices lost presence, and drops the use
// once nobody needs it.
func (u *use) look(ctx context.Context, now int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.visits) > 0 {
		u.unsyncedHush(now)
	}
	if u.inside && !u.t.store.Alive(u.presence.Lease) {
		u.inside = false
	}
	if rev := u.unsyncedStray(); rev != 0 {
		u.presence.Revision = rev
		u.unsyncedOweLeave()
	}
	switch {
	case u.counting == 0:
		u.unsyncedLeaveSoon()
	case (!u.inside || u.doubted) && !u.draining && !u.lost && u.entering == nil:
		u.lost = true
		u.t.background.Go(func() { u.recover(ctx) })
	}
	if len(u.visits) == 0 && !u.inside && !u.owed && u.entering == nil && now-u.last.Load() > int64(time.Minute) {
		u.dead = true
		u.t.uses.CompareAndDelete(u.id, u)
	}
}

// stray gives the revision of presence that stands in the store though nobody
// here put it, as far as is known: an ENTER or a wake whose answer was lost.
// u.mu must be held.
func (u *use) unsyncedStray() int64 {
	if u.inside || u.owed || u.entering != nil {
		return 0
	}
	return u.t.store.Present(u.id)
}

// hush makes the visits dormant that were quiet for the idle timeout. u.mu
// must be held.
func (u *use) unsyncedHush(now int64) {
	idle := int64(u.t.cfg.Idle(u.id))
	for v := range u.visits {
		if v.mode.Load() != modeRequest && now-v.last.Load() >= idle {
			u.unsyncedDormant(v)
		}
	}
}

func (u *use) recover(ctx context.Context) {
	u.t.cfg.Lost(ctx, u.id)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lost = false
}
