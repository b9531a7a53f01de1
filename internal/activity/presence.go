package activity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sandman-proxy/sandman/internal/failpoint"
	"github.com/sandman-proxy/sandman/internal/session"
)

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
	u.linger = time.AfterFunc(linger, u.lingered)
}

// lingered leaves if it has been quiet for the linger by now. The timer goes on
// through the visits that come meanwhile: most end while it runs.
func (u *use) lingered() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.linger = nil
	if u.counting == 0 && u.inside && u.last.Load() == 0 {
		u.unsyncedOweLeave() // nothing ever counted, so no quiet can be measured
		return
	}
	u.unsyncedLeaveSoon()
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
