// Package activity knows who is using what right now.
//
// A visit is one request, or one long connection, at one sandbox. While a
// sandbox has visits that count, this proxy's presence stands in the store,
// and no pause can begin: presence is the readers' lock of the protocol.
//
//	first visit after quiet    ENTER   one Txn, under a RUNNING record
//	further visits, bytes              memory only
//	last visit ended           linger, then LEAVE
//	a visit quiet for the      dormant: it counts no more, and must ENTER
//	  idle timeout               again before its next byte is forwarded
//
// What is held in memory is void once the node's lease may have ended, by this
// process's own clock.
package activity

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Presence is what ENTER puts into the store: proof, for as long as Alive says
// so, that this proxy may be forwarding.
type Presence struct {
	Revision int64 // mod revision of the key, which LEAVE compares
	Lease    int64 // lease that it is bound to
}

// Bump is one sandbox's latest sign of use, for the store.
type Bump struct {
	ID    string
	Quiet time.Duration // age of the last counted byte
	Kind  string
}

// Store is what the tracker needs of the session store. All methods may block
// on the network and are bounded by their context.
type Store interface {
	// Enter puts presence if the record still has revision rev and is RUNNING.
	Enter(ctx context.Context, id string, rev int64, kind string) (Presence, error)
	// Leave takes presence back if it still is the one of revision presenceRev,
	// and records how long the sandbox has been quiet. It returns nil also when
	// there was nothing to take back.
	Leave(ctx context.Context, id string, presenceRev int64, quiet time.Duration, kind string) error
	// Flush records bumps of visits that are open.
	Flush(ctx context.Context, bumps []Bump) error
	// Alive tells, from memory and by the monotonic clock, whether presence
	// bound to this lease still stands.
	Alive(lease int64) bool
	// Present gives, from memory, the revision of this node's presence at a
	// sandbox as the store's watch last told it; 0 where there is none.
	Present(id string) int64
}

// Config is what a Tracker goes by.
type Config struct {
	// Resolution is how often activity is written, at most, for one sandbox.
	// 0 writes each change at once.
	Resolution time.Duration
	// Idle gives a sandbox's idle timeout.
	Idle func(id string) time.Duration
	// Linger gives how long presence outlives the last visit of a sandbox.
	Linger func(id string) time.Duration
	// Lost is called, from a goroutine of the tracker, for a sandbox that has
	// visits in flight but whose presence is gone: its owner must ENTER again,
	// with a visit of its own, or wake the sandbox. The call is repeated until
	// presence is back or the visits have ended.
	Lost   func(ctx context.Context, id string)
	Logger *zap.Logger
}

// Tracker keeps the visits of this process. Its zero value is not usable; Run
// must be running for anything to leave.
type Tracker struct {
	cfg   Config
	store Store
	start time.Time // base of the monotonic times below
	uses  sync.Map  // sandbox ID -> *use
	kick  chan struct{}
	sight chan *use // to be looked at now, not at the next tick

	leaving context.Context // of the Txns; it ends a little after Run's
	stop    context.CancelFunc

	mu         sync.Mutex     // guards the following fields; taken after use.mu
	closed     bool           // nothing is begun any more
	background sync.WaitGroup // ENTERs, LEAVEs, flushes and calls of Lost
}

// New gives a tracker that writes to store.
func New(store Store, cfg Config) *Tracker {
	t := &Tracker{cfg: cfg, store: store, start: time.Now(), kick: make(chan struct{}, 1), sight: make(chan *use, 64)}
	t.leaving, t.stop = context.WithCancel(context.Background())
	return t
}

// now is the time since the tracker was made, by the monotonic clock, in ns.
// It is never 0, so that 0 can mean "never".
func (t *Tracker) now() int64 { return int64(time.Since(t.start)) + 1 }

func (t *Tracker) use(id string) *use {
	if u, ok := t.uses.Load(id); ok {
		return u.(*use)
	}
	u, _ := t.uses.LoadOrStore(id, &use{t: t, id: id})
	return u.(*use)
}

// Begin gives a new visit of a sandbox. It counts for nothing until Try or
// Enter has succeeded. The caller must End it.
func (t *Tracker) Begin(id, kind string) *Visit {
	v := &Visit{kind: kind}
	v.use.Store(t.use(id))
	return v
}

// Entered takes over presence that a wake has put in the same Txn as its
// RUNNING record, so that the requests that waited for it need no Txn.
func (t *Tracker) Entered(id string, p Presence, kind string) {
	u := t.Begin(id, kind).lock()
	defer u.mu.Unlock()
	if u.unsyncedEntered(p, kind) != nil {
		return // whoever waits goes through ENTER
	}
	u.doubted = false
	u.bump(t.now(), kind)
	u.unsyncedLeaveSoon()
}

// Observe is called when the store's watch shows presence of this node: if
// nobody here knows of it, a LEAVE is owed.
func (t *Tracker) Observe(id string) { t.use(id) }

// Doubt makes the next visit go through the store: the host has answered
// "paused" to a request that presence should have protected.
func (t *Tracker) Doubt(id string) {
	if u, ok := t.uses.Load(id); ok {
		u.(*use).doubt()
	}
}

// Drain is called when a pause by hand has begun: new visits must wait, long
// connections stop counting, and presence goes as soon as no request is in
// flight.
func (t *Tracker) Drain(id string) {
	if u, ok := t.uses.Load(id); ok {
		u.(*use).drain()
	}
}

// Cut ends all requests of a sandbox, for a pause that has been forced.
func (t *Tracker) Cut(id string) {
	if u, ok := t.uses.Load(id); ok {
		u.(*use).drain()
		u.(*use).cut()
	}
}

// Resume is called when the record is RUNNING (again): what Drain began is
// over.
func (t *Tracker) Resume(id string) {
	if u, ok := t.uses.Load(id); ok {
		u.(*use).undrain()
	}
}

// InUse tells what is being served of a sandbox right now: requests, which a
// pause would break, and streams that count.
func (t *Tracker) InUse(id string) (requests, streams int) {
	u, ok := t.uses.Load(id)
	if !ok {
		return 0, 0
	}
	return u.(*use).count()
}

// Last tells when the last counted byte of a sandbox passed this proxy, by the
// wall clock, and what it was; ok is false when none did.
func (t *Tracker) Last(id string) (at time.Time, kind string, ok bool) {
	v, found := t.uses.Load(id)
	if !found {
		return time.Time{}, "", false
	}
	u := v.(*use)
	last := u.last.Load()
	if last == 0 {
		return time.Time{}, "", false
	}
	ago := time.Duration(t.now() - last) // the wall clock may have been set since the start
	return time.Now().Add(-ago).Round(0), u.kind.load(), true
}

// tick is how often visits are looked over for silence and lost presence.
const tick = 250 * time.Millisecond

// Run writes what happens to the store until ctx is done. Then it takes all
// presence back, within a second where the store answers, and returns.
func (t *Tracker) Run(ctx context.Context) {
	look := time.NewTicker(tick)
	defer look.Stop()
	var due <-chan time.Time
	var flushing <-chan struct{}
	for {
		kick := t.kick
		if due != nil || flushing != nil {
			kick = nil // it stays in the channel
		}
		select {
		case <-ctx.Done():
			t.close()
			return
		case <-look.C:
			t.look(ctx)
		case u := <-t.sight:
			u.look(ctx, t.now())
		case <-kick: // the first change since the last flush
			due = time.After(t.cfg.Resolution)
		case <-due:
			due, flushing = nil, t.startFlush(ctx)
		case <-flushing:
			flushing = nil
		}
	}
}

// look makes quiet visits dormant, repeats what the store has not answered,
// and drops what nobody uses.
func (t *Tracker) look(ctx context.Context) {
	now := t.now()
	t.uses.Range(func(_, v any) bool {
		v.(*use).look(ctx, now)
		return true
	})
}

// lookAt has one sandbox looked at without delay. A full channel is no harm:
// the tick comes.
func (t *Tracker) lookAt(u *use) {
	select {
	case t.sight <- u:
	default:
	}
}

// spawn runs f in a goroutine that close awaits; false if it is too late for
// that.
func (t *Tracker) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.background.Go(f)
	return true
}

// startFlush flushes beside Run's loop: a store that hangs must not keep it
// from looking.
func (t *Tracker) startFlush(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	if !t.spawn(func() { defer close(done); t.flush(ctx) }) {
		close(done)
	}
	return done
}

const flushTimeout = 5 * time.Second

func (t *Tracker) flush(ctx context.Context) {
	var bumps []Bump
	now := t.now()
	t.uses.Range(func(_, v any) bool {
		if b, ok := v.(*use).dirty(now); ok {
			bumps = append(bumps, b)
		}
		return true
	})
	if len(bumps) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := t.store.Flush(ctx, bumps); err != nil && ctx.Err() == nil {
		// not lost: LEAVE brings the last one, and presence keeps it awake
		t.cfg.Logger.Warn("writing activity failed", zap.Int("sandboxes", len(bumps)), zap.Error(err))
	}
}

// changed asks for a flush.
func (t *Tracker) changed() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

const closeTimeout = time.Second

// close takes back what presence there is and awaits all goroutines.
func (t *Tracker) close() {
	t.uses.Range(func(_, v any) bool {
		v.(*use).leaveNow()
		return true
	})
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	stopped := time.AfterFunc(closeTimeout, t.stop)
	defer stopped.Stop()
	t.background.Wait()
	t.stop()
}

// atomicString is a string that is written rarely and read without a lock.
type atomicString struct{ p atomic.Pointer[string] }

func (a *atomicString) store(s string) {
	if old := a.p.Load(); old == nil || *old != s {
		fresh := s // of its own, or each call would put s on the heap
		a.p.Store(&fresh)
	}
}

func (a *atomicString) load() string {
	if s := a.p.Load(); s != nil {
		return *s
	}
	return ""
}
