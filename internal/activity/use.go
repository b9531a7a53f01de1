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
