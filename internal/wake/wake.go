// Package wake leads from a request to a running sandbox.
//
//	RUNNING    ENTER, and the request goes on
//	PAUSING    wait for the end of the pause, then wake
//	PAUSED     WAKE: one proxy wins the Txn and calls connect, all others wait
//	RESUMING   wait for the winner; if it is gone, take its op over
//	KILLED     not found, unless the host knows the sandbox after all
//	unknown    ask the hosts, and adopt what one of them knows
//
// Calls to a host run on a context of their own: a visitor who leaves neither
// cancels a resume nor fails the others who wait for it.
package wake

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/patrickmn/go-cache"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/sandman-proxy/sandman/internal/session"
)

// Defaults of Config.
const (
	DefaultHold        = 30 * time.Second
	DefaultCallTimeout = 75 * time.Second
	DefaultEnterTries  = 4 * time.Second
	DefaultUnknownFor  = 5 * time.Second
	DefaultGrace       = 5 * time.Second
)

// Store is what waking needs of the session store. Writes whose compares fail
// return an error that is session.ErrConflict, and by then Get shows why.
type Store interface {
	// Get gives the session as this process knows it; nil if it does not.
	Get(id string) *session.Snapshot
	// Until waits until cond holds for the session (nil: it is not there).
	Until(ctx context.Context, id string, cond func(*session.Snapshot) bool) (*session.Snapshot, error)
	// Adopt stores the record of a session that had none.
	Adopt(ctx context.Context, rec session.Record) error
	// Settle writes the host's word over a session that nobody works on.
	Settle(ctx context.Context, next session.Record) error
	// Wake begins a resume, and gives the op to work under. An op that comes
	// with an error may have begun or not: it can only be ended.
	Wake(ctx context.Context, next session.Record) (Op, error)
	// Abandoned tells whether the op of a busy session may be taken over: its
	// owner is gone or its deadline has passed.
	Abandoned(s *session.Snapshot) bool
}

// Op is a resume that belongs to the caller.
type Op interface {
	// Valid tells, by the monotonic clock, whether the host may still be
	// called: neither the op's deadline has passed nor the lease ended that it
	// began under.
	Valid() bool
	// End closes the op with what step makes of the record, again where only
	// settings have changed. A RUNNING end puts this node's presence, too.
	End(ctx context.Context, step func(session.Record) (session.Record, error)) error
}

// Host reaches the sandboxes' hosts.
type Host interface {
	// Connect makes the sandbox run for at least timeout. The error is ErrGone
	// if, and only if, the host says clearly that there is no such sandbox.
	// What else went wrong is a *HostError.
	Connect(ctx context.Context, rec session.Record, timeout time.Duration) error
	// Find gives the record of a sandbox as a host knows it, not stored yet.
	// ErrGone: every host says clearly that it knows none of that ID.
	Find(ctx context.Context, id string) (session.Record, error)
}

// Visit is what waits to be let in. See activity.Visit.
type Visit interface {
	Try() bool
	Enter(ctx context.Context, rev int64) error
	Force()
}

// Errors of Ensure besides those of its context.
var (
	// ErrGone: the host does not know the sandbox.
	ErrGone = errors.New("the host knows no such sandbox")
	// ErrUnknown: no host knows a sandbox of this ID.
	ErrUnknown = errors.New("sandbox unknown")
	// ErrKilled: the sandbox is gone for good.
	ErrKilled = errors.New("sandbox killed")
)

// NotYetError says that the sandbox could not be made to run in time. Nothing
// is lost: the same request may succeed later.
type NotYetError struct {
	State      session.State
	RetryAfter time.Duration
	Cause      error
}

func (e *NotYetError) Error() string {
	msg := "sandbox could not be looked up"
	if e.State != "" {
		msg = "sandbox is " + string(e.State)
	}
	if e.Cause != nil {
		msg += ": " + e.Cause.Error()
	}
	return msg
}

func (e *NotYetError) Unwrap() error { return e.Cause }

// after gives e with a RetryAfter of at least d.
func (e *NotYetError) after(d time.Duration) *NotYetError {
	e.RetryAfter = max(e.RetryAfter, d)
	return e
}

// Cause is why somebody wants the sandbox to run.
type Cause struct {
	Reason  string        // for the history, such as "request: GET /"
	Kind    string        // of the activity that it is, such as "request"
	Hold    time.Duration // how long to wait once no pause is under way; 0: the default
	Timeout time.Duration // how long the host shall let it run at least; 0: from the idle timeout
	// Suspect is the revision of a RUNNING record under which the host has said
	// "paused" to the caller's request. However often it says so again, the request
	// is held for no longer than Hold.
	Suspect int64

	// Reconnect says that it is a page's own reconnect: the wake that it begins
	// is counted in the record's ReconnectWakes.
	Reconnect bool
	// May is asked before a wake is begun, in PAUSED and already in PAUSING, and
	// not by those who join a wake that is under way. Its error is returned as it
	// is. It is given the record as it stands, may be asked several times, and
	// must not block: others wait for its answer. nil: yes.
	May func(session.Record) error
}

// Config is what a Waker goes by. Zero values mean the defaults.
type Config struct {
	Node        string
	Hold        time.Duration
	CallTimeout time.Duration // one connect call
	EnterTries  time.Duration // how long an unreachable store is tried before a request is served without it
	Grace       time.Duration // how long Wait lets calls go on
	UnknownFor  time.Duration // how long a host's "no such sandbox" is believed
	IdleTimeout func(session.Record) time.Duration
	Logger      *zap.Logger
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{
		{&c.Hold, DefaultHold},
		{&c.CallTimeout, DefaultCallTimeout},
		{&c.EnterTries, DefaultEnterTries},
		{&c.UnknownFor, DefaultUnknownFor},
		{&c.Grace, DefaultGrace},
	} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	return c
}

// Waker makes sandboxes run.
type Waker struct {
	cfg      Config
	store    Store
	host     Host
	flight   singleflight.Group // one wake, and one question to the hosts, per sandbox
	unknown  *cache.Cache       // IDs that no host knows
	breakers breakers
	doubts   doubts

	base context.Context // of all that is detached from its callers
	stop context.CancelFunc

	mu     sync.Mutex     // guards the following fields
	closed bool           // nothing is begun any more
	ops    sync.WaitGroup // all that is detached
}

// New gives a Waker.
func New(store Store, host Host, cfg Config) *Waker {
	cfg = cfg.withDefaults()
	w := &Waker{
		cfg: cfg, store: store, host: host,
		unknown: cache.New(cfg.UnknownFor, 0), // no janitor: see forget
		doubts:  newDoubts(),
	}
	w.base, w.stop = context.WithCancel(context.Background())
	return w
}

// Ensure returns nil once the sandbox runs and v counts. It waits as long as a
// pause is under way and for cause.Hold after that; then the error is a
// *NotYetError.
func (w *Waker) Ensure(ctx context.Context, id string, v Visit, cause Cause) error {
	if cause.Suspect == 0 && v.Try() {
		return nil
	}
	return w.newWait(ctx, id, v, cause).run()
}

// Wait ends the waking: nothing is begun any more, and what is under way has
// Config.Grace to end. What has not ended by then is left to others, who settle
// it by the host's word once this node is gone.
func (w *Waker) Wait() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	grace := time.AfterFunc(w.cfg.Grace, w.stop)
	defer grace.Stop()
	w.ops.Wait()
	w.stop()
}

// ErrShuttingDown: nothing is begun any more. The same request succeeds at the
// next process.
var ErrShuttingDown = errors.New("the proxy is shutting down")

// detached does what no caller can end, in the caller's goroutine.
func (w *Waker) detached(ctx context.Context, do func(context.Context) error) error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrShuttingDown
	}
	w.ops.Add(1)
	w.mu.Unlock()
	defer w.ops.Done()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(w.base, cancel)()
	return do(ctx)
}

// spawn is detached in a goroutine of its own, for what nobody waits for.
func (w *Waker) spawn(ctx context.Context, do func(context.Context) error) {
	go func() { _ = w.detached(ctx, do) }()
}

// Resume makes the sandbox run for nobody in particular.
func (w *Waker) Resume(ctx context.Context, id string, v Visit, cause Cause) (woke bool, err error) {
	wait := w.newWait(ctx, id, v, cause)
	err = wait.run()
	return wait.woke, err
}
