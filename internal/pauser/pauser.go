// Package pauser puts sandboxes to sleep.
//
// One process leads. It keeps a deadline for each running session, moved by
// what the store's watch tells, and nothing else: no polling, no scan. At the
// deadline:
//
//	SLEEP    RUNNING → PAUSING, one Txn: the record, the activity, no
//	         presence, no hold and the leadership are as they were seen
//	fence    op deadline, lease, contact with the store since the decision
//	pause    the host's call, sent once
//	end      PAUSING → PAUSED, or what the host says it is
//
// It also settles ops whose owner is gone, closes visits whose proxy vanished
// (LAPSED), and sweeps: every record against the host's own list. After any
// loss of contact with the store it drops its decisions and waits for a settle
// period, while proxies ENTER again all that they are serving.
//
// Any process may pause by hand: the session drains first, see Pause.
package pauser

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

// Defaults of Config.
const (
	DefaultIdleTimeout = 10 * time.Minute
	DefaultCheckEvery  = 5 * time.Minute
	DefaultDrain       = 5 * time.Second
	DefaultCut         = 15 * time.Second
	DefaultCallTimeout = 75 * time.Second
	DefaultCallWithin  = 2 * time.Second
	DefaultGrace       = 15 * time.Second
	DefaultKeepKilled  = 30 * 24 * time.Hour
)

// Store is what pausing needs of the session store. Writes whose compares fail
// return an error that is session.ErrConflict, and by then Get shows why.
type Store interface {
	// Get gives the session as this process knows it; nil if it does not.
	Get(id string) *session.Snapshot
	// All gives every session as this process knows it.
	All() []*session.Snapshot
	// Until waits until cond holds for the session (nil: it is not there).
	Until(ctx context.Context, id string, cond func(*session.Snapshot) bool) (*session.Snapshot, error)
	// Watch calls changed for each session now, and at each change. It must
	// not block.
	Watch(changed func(id string)) (stop func())
	// Lapsed closes a visit whose proxy vanished: SLEEP's idle time starts here.
	Lapsed(ctx context.Context, s *session.Snapshot) error
	// Drain begins a pause by hand; by then Get shows it. An op that comes with
	// an error may have begun or not: it can only be ended.
	Drain(ctx context.Context, next session.Record) (Op, error)
	// Settle writes the host's word over a session that nobody works on.
	Settle(ctx context.Context, next session.Record) error
	// Adopt stores the record of a session that had none.
	Adopt(ctx context.Context, rec session.Record) error
	// Remove forgets a session and its history.
	Remove(ctx context.Context, s *session.Snapshot) error
	// Abandoned tells whether the op of a busy session may be settled: its
	// owner is gone or its deadline has passed.
	Abandoned(s *session.Snapshot) bool
	// SettledAt is when this process may pause again after it lost contact
	// with the store; epoch is raised by each loss.
	SettledAt() (at time.Time, epoch uint64)
	// InReach tells whether there is contact with the store now.
	InReach() bool
}

// Term is one leadership. It ends with the context that comes with it.
type Term interface {
	// Sleep begins the pause of an idle session, with all the compares of
	// SLEEP, and gives the op to work under. As with Drain, an op may come with
	// an error.
	Sleep(ctx context.Context, next session.Record, activityRevision int64) (Op, error)
}

// Op is a pause that belongs to the caller.
type Op interface {
	// Valid tells, by the monotonic clock, whether the host may still be
	// called: neither the op's deadline has passed nor the lease ended that it
	// began under.
	Valid() bool
	// Advance moves a pause by hand to its next phase. Calling compares that
	// nobody is present and the last visit was closed at activityRevision.
	Advance(ctx context.Context, phase session.Phase, activityRevision int64) error
	// End closes the op with what step makes of the record, again where only
	// settings have changed.
	End(ctx context.Context, step func(session.Record) (session.Record, error)) error
}

// Host reaches the sandboxes' hosts.
type Host interface {
	// Pause pauses the sandbox. The error is ErrGone only for a clear "no such
	// sandbox".
	Pause(ctx context.Context, rec session.Record) error
	// State asks for the sandbox's state: Running or Paused; ErrGone as above.
	State(ctx context.Context, rec session.Record) (session.State, error)
	// Remaining asks how long the host will let the sandbox run on by itself;
	// ErrGone as above, also for one that does not run.
	Remaining(ctx context.Context, rec session.Record) (time.Duration, error)
	// Extend makes the host let a running sandbox run for d from now.
	Extend(ctx context.Context, rec session.Record, d time.Duration) error
	// Lists gives, by host name, the records of all that the hosts know, not
	// stored yet; a host that can't be listed is an error under its name.
	Lists(ctx context.Context) map[string]List
}

// List is what one host knows.
type List struct {
	Sandboxes map[string]session.Record // by ID
	Err       error
}

// ErrGone: the host says clearly that it knows no such sandbox.
var ErrGone = errors.New("the host knows no such sandbox")

// Config is what a Pauser goes by. Zero values mean the defaults.
type Config struct {
	Node        string
	IdleTimeout func(session.Record) time.Duration // that holds for it, within all limits
	CheckEvery  time.Duration                      // between two sweeps
	Drain       time.Duration                      // how long a pause by hand waits for what is in flight
	Cut         time.Duration                      // how long a forced one then waits for the proxies; longer than a lease, for one that has died
	CallTimeout time.Duration                      // one pause call
	CallWithin  time.Duration                      // from sending SLEEP to sending the pause call
	KeepKilled  time.Duration                      // how long a KILLED record is kept
	Grace       time.Duration                      // how long Wait lets pause calls go on
	// InUse says in words what is in flight at this process, for the answer to
	// a refused pause.
	InUse func(id string) []string
	// Streams tells how many long connections are open, for the record of the
	// pause: their clients will come again by themselves. nil: as the snapshot
	// says.
	Streams func(s *session.Snapshot) int
	// Ran is told of each sweep, and of what came due within a minute. It must
	// not block. Optional.
	Ran    func(session.Run)
	Logger *zap.Logger
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{
		{&c.CheckEvery, DefaultCheckEvery},
		{&c.Drain, DefaultDrain},
		{&c.Cut, DefaultCut},
		{&c.CallTimeout, DefaultCallTimeout},
		{&c.CallWithin, DefaultCallWithin},
		{&c.KeepKilled, DefaultKeepKilled},
		{&c.Grace, DefaultGrace},
	} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	if c.Ran == nil {
		c.Ran = func(session.Run) {}
	}
	if c.Streams == nil {
		c.Streams = (*session.Snapshot).Streams
	}
	return c
}

// Pauser puts sandboxes to sleep.
type Pauser struct {
	cfg   Config
	store Store
	host  Host

	quit  context.Context // ends when Wait is called: no further host is called
	stop  context.CancelFunc
	calls context.Context // ends when the grace after that is over
	cut   context.CancelFunc

	again chan struct{} // all deadlines are to be worked out anew

	mu     sync.Mutex // guards the following fields
	closed bool       // nothing is begun any more
	ops    sync.WaitGroup
	hands  map[string]*hand
	sweep  Sweep
}

// New gives a Pauser.
func New(store Store, host Host, cfg Config) *Pauser {
	p := &Pauser{cfg: cfg.withDefaults(), store: store, host: host, again: make(chan struct{}, 1), hands: make(map[string]*hand)}
	p.quit, p.stop = context.WithCancel(context.Background())
	p.calls, p.cut = context.WithCancel(context.Background())
	return p
}

// Wait ends the pausing: nothing is begun any more, what has not called its
// host yet is given up, and pause calls under way have Config.Grace to end.
// What has not ended by then stays PAUSING, and is settled by the host's word
// once this node is gone: a slow snapshot must not keep a process from ending.
func (p *Pauser) Wait() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	grace := time.AfterFunc(p.cfg.Grace, p.cut)
	defer grace.Stop()
	p.ops.Wait()
	p.cut()
}

// Reschedule has the leader work all deadlines out anew. It must be called when
// Config.IdleTimeout has begun to say another one for reasons that Store.Watch
// does not tell of. It does not block.
func (p *Pauser) Reschedule() {
	select {
	case p.again <- struct{}{}:
	default: // to be done as it is
	}
}

// ErrShuttingDown: nothing is begun any more. The same request succeeds at the
// next process.
var ErrShuttingDown = errors.New("the proxy is shutting down")

// spawn runs f in a goroutine that Wait awaits; false if it is too late for
// that.
func (p *Pauser) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unsyncedSpawn(f)
}

// p.mu must be held.
func (p *Pauser) unsyncedSpawn(f func()) bool {
	if p.closed {
		return false
	}
	p.ops.Go(f)
	return true
}

// detach gives a context that no caller ends, only the end of the grace.
func (p *Pauser) detach(ctx context.Context) (context.Context, context.CancelFunc) {
	return with(context.WithoutCancel(ctx), p.calls)
}

// with gives ctx with a second reason to end.
func with(ctx, end context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(end, func() { cancel(ErrShuttingDown) })
	return ctx, func() { stop(); cancel(nil) }
}
