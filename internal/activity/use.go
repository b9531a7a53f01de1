package activity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandman-proxy/sandman/internal/failpoint"
	"github.com/sandman-proxy/sandman/internal/session"
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
	leftTo   int64      // a LEAVE was sent for all presence up to this revision
	owed     bool       // a LEAVE is owed or under way
	draining bool       // a pause by hand is under way
	cutting  bool       // it is forced: requests end
	doubted  bool       // the record or the host contradicts our presence
	doubts   int        // counts doubts, so that an older ENTER can't clear a newer one
	dead     bool       // dropped from the tracker's map
	counting int        // visits that count
	visits   map[*Visit]struct{}
	linger   *time.Timer
	entering *entering // the ENTER under way that visits may join
	enters   int       // all ENTERs under way
	lost     bool      // Config.Lost is being called
	lostNext int64     // tracker time before which it is not called again
}

// entering is one ENTER that any number of visits wait for. They count from
// the moment that it succeeds, under the same lock: no LEAVE can come between.
// Should one have been sent before (the watch showed the presence earlier than
// the answer came, and nobody was known to stand behind it), the ENTER has
// failed.
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

var (
	errTakenBack = fmt.Errorf("the presence is being taken back: %w", session.ErrConflict)
	errDraining  = fmt.Errorf("a pause by hand has begun: %w", session.ErrConflict)
	errLapsed    = errors.New("the lease may have ended before presence was known to stand")
	errClosed    = errors.New("the proxy is shutting down")
)

// entered takes over presence that was put. An error says that it does not
// protect: a LEAVE may delete it, or its lease may have ended. u.mu must be
// held.
func (u *use) unsyncedEntered(p Presence, kind string) error {
	if p.Revision > u.presence.Revision { // answers may come out of order
		u.presence = p
	}
	switch {
	case p.Revision <= u.leftTo:
		return errTakenBack
	case !u.t.store.Alive(p.Lease):
		return errLapsed
	}
	u.inside = true
	if kind != "" {
		u.kind.store(kind)
	}
	return nil
}

// join makes v count; false where it must not: it has ended, or a pause by hand
// waits for its kind no more. u.mu must be held.
func (u *use) unsyncedJoin(v *Visit) bool {
	if v.ended.Load() || (u.draining && v.mode.Load() == modeStream) {
		return false
	}
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
	v.touch()
	return true
}

// enter puts presence under revision rev for v, joining an ENTER that is under
// way for the same revision. The Txn does not end with its callers: its outcome
// must become known. u.mu must be held.
func (u *use) unsyncedEnter(rev int64, v *Visit, kind string) *entering {
	call := u.entering
	if call == nil || call.rev != rev {
		call = &entering{rev: rev, waiters: make(map[*Visit]struct{}), done: make(chan struct{})}
		u.entering = call
		doubts := u.doubts
		u.enters++
		if !u.t.spawn(func() { u.runEnter(call, doubts, kind) }) {
			u.unsyncedEnd(call, errClosed)
		}
	}
	call.waiters[v] = struct{}{}
	return call
}

// wait awaits the end of an ENTER that v waits for. nil means that v counts.
func (u *use) wait(ctx context.Context, call *entering, v *Visit) error {
	select {
	case <-call.done:
		if call.err == nil && !v.counting.Load() && !v.ended.Load() {
			return errDraining
		}
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
	failpoint.Hit(failpoint.EnterDone)
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		err = u.unsyncedEntered(p, kind)
	}
	if err == nil {
		u.doubted = u.doubted && u.doubts != doubts
		for v := range call.waiters {
			u.unsyncedJoin(v)
		}
		u.unsyncedLeaveSoon()
	}
	u.unsyncedEnd(call, err)
}

// end tells an ENTER's outcome. u.mu must be held.
func (u *use) unsyncedEnd(call *entering, err error) {
	u.enters--
	if u.entering == call {
		u.entering = nil
	}
	call.err = err
	close(call.done)
}

// leaveSoon leaves, if nothing counts any more, once it has been quiet for the
// linger: a stream that has just become dormant has been for long. u.mu must be
// held.
func (u *use) unsyncedLeaveSoon() {
	if u.counting > 0 || !u.inside || u.linger != nil {
		return
	}
	linger := u.t.cfg.Linger(u.id) - u.quiet()
	if u.draining || linger <= 0 {
		u.unsyncedOweLeave()
		return
	}
	u.linger = time.AfterFunc(linger, u.leaveNow)
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
	u.owed = u.t.spawn(u.runLeave) // at the end the lease's own end does it
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
		failpoint.Hit(failpoint.LeaveBegin)
		err := u.t.store.Leave(ctx, u.id, p.Revision, u.quiet(), u.kind.load())
		failpoint.Hit(failpoint.LeaveDone)
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

// leavable gives the presence that a LEAVE is owed for, if any still is. From
// here on that presence protects nobody: the LEAVE may land at any time.
func (u *use) leavable() (Presence, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.inside { // entered again
		u.owed = false
		return u.presence, false
	}
	u.leftTo = max(u.leftTo, u.presence.Revision)
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
	u.cutting = true
	for v := range u.visits {
		u.unsyncedCut(v)
	}
}

// cut ends v if it is a request: streams don't count any more, and are parked.
// u.mu must be held.
func (u *use) unsyncedCut(v *Visit) {
	if v.mode.Load() != modeStream && v.cut != nil {
		v.cut()
	}
}

func (u *use) undrain() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.draining, u.cutting = false, false
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
		u.presence.Revision = max(rev, u.presence.Revision)
		u.unsyncedOweLeave()
	}
	if u.counting == 0 {
		u.unsyncedLeaveSoon()
	} else {
		u.unsyncedRecover(ctx, now)
	}
	if len(u.visits) == 0 && !u.inside && !u.owed && u.enters == 0 && now-u.last.Load() > int64(time.Minute) {
		u.dead = true
		u.t.uses.CompareAndDelete(u.id, u)
	}
}

// stray gives the revision of presence that stands in the store though nobody
// here put it, as far as is known: an ENTER or a wake whose answer was lost, or
// is late. While something counts it is the ENTER that is due that replaces it.
// u.mu must be held.
func (u *use) unsyncedStray() int64 {
	if u.inside || u.owed || u.enters > 0 || u.counting > 0 {
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

// lostRetry is how long after a vain call of Config.Lost the next one is made.
const lostRetry = 500 * time.Millisecond

// recover asks the owner to put presence for what counts without it. u.mu must
// be held.
func (u *use) unsyncedRecover(ctx context.Context, now int64) {
	if (u.inside && !u.doubted) || u.draining || u.lost || u.enters > 0 || now < u.lostNext {
		return
	}
	u.lost = u.t.spawn(func() {
		u.t.cfg.Lost(ctx, u.id)
		u.mu.Lock()
		defer u.mu.Unlock()
		u.lost = false
		if !u.inside {
			u.lostNext = u.t.now() + int64(lostRetry)
		}
	})
}
