package wake_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

const (
	id   = "sb1"
	idle = 10 * time.Minute
)

var (
	errAway = errors.New("the store is away")
	errHost = errors.New("the host is down")
)

// memory is a store with the compares of the real one, and its own watch.
type memory struct {
	mu        sync.Mutex // guards the following fields
	sessions  map[string]*session.Snapshot
	changed   chan struct{} // closed at each change
	rev       int64
	away      bool            // nothing is answered
	lost      map[string]bool // calls whose Txn lands, with its answer lost
	abandoned bool
	invalid   bool // ops may not call the host
	ended     int  // ops that were closed
	begun     int  // WAKEs that landed
}

func newMemory() *memory {
	return &memory{sessions: map[string]*session.Snapshot{}, changed: make(chan struct{}), lost: map[string]bool{}}
}

// put stores a record as if somebody else had.
func (m *memory) put(r session.Record) session.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unsyncedPut(r)
}

func (m *memory) unsyncedPut(r session.Record) session.Record {
	m.rev++
	r.Revision = m.rev
	m.sessions[r.SandboxID] = &session.Snapshot{Record: r, Seen: time.Now()}
	close(m.changed)
	m.changed = make(chan struct{})
	return r
}

func (m *memory) setAway(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

func (m *memory) Get(id string) *session.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessions[id]
}

func (m *memory) state() session.State {
	if s := m.Get(id); s != nil {
		return s.State
	}
	return ""
}

func (m *memory) Until(ctx context.Context, id string, cond func(*session.Snapshot) bool) (*session.Snapshot, error) {
	for {
		m.mu.Lock()
		s, changed := m.sessions[id], m.changed
		m.mu.Unlock()
		if cond(s) {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// write is a Txn that compares the record's revision.
func (m *memory) write(call string, next session.Record) (session.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return next, errAway
	}
	var rev int64
	if s := m.sessions[next.SandboxID]; s != nil {
		rev = s.Revision
	}
	if rev != next.Revision {
		return next, session.ErrConflict
	}
	if call == "wake" {
		m.begun++
	}
	next = m.unsyncedPut(next)
	if m.lost[call] {
		delete(m.lost, call)
		return next, errAway
	}
	return next, nil
}

func (m *memory) Adopt(_ context.Context, r session.Record) error {
	_, err := m.write("adopt", r)
	return err
}

func (m *memory) Settle(_ context.Context, r session.Record) error {
	_, err := m.write("settle", r)
	return err
}

func (m *memory) Wake(_ context.Context, next session.Record) (wake.Op, error) {
	own, err := m.write("wake", next)
	if errors.Is(err, session.ErrConflict) {
		return nil, err
	}
	o := &op{m: m, own: next}
	if err == nil {
		o.own = own
	}
	return o, err
}

func (m *memory) Abandoned(*session.Snapshot) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.abandoned
}

type op struct {
	m   *memory
	own session.Record
}

func (o *op) Valid() bool {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	return !o.m.invalid
}

func (o *op) End(_ context.Context, step func(session.Record) (session.Record, error)) error {
	for {
		next, err := step(o.own)
		if err != nil {
			return err
		}
		if _, err = o.m.write("end", next); err == nil {
			o.m.mu.Lock()
			o.m.ended++
			o.m.mu.Unlock()
		}
		s := o.m.Get(id)
		if !errors.Is(err, session.ErrConflict) || s == nil || !s.SameOp(o.own) {
			return err
		}
		o.own = s.Record
	}
}

// host is a sandbox host whose answers are the test's.
type host struct {
	connects atomic.Int32
	finds    atomic.Int32
	timeout  atomic.Int64

	mu      sync.Mutex // guards the following fields
	takes   time.Duration
	fails   error
	found   *session.Record
	findErr error
}

func (h *host) set(f func(h *host)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
}

func (h *host) Connect(ctx context.Context, _ session.Record, timeout time.Duration) error {
	h.connects.Add(1)
	h.timeout.Store(int64(timeout))
	h.mu.Lock()
	takes, fails := h.takes, h.fails
	h.mu.Unlock()
	select {
	case <-time.After(takes):
		return fails
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *host) Find(context.Context, string) (session.Record, error) {
	h.finds.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.found != nil {
		return *h.found, nil
	}
	return session.Record{}, h.findErr
}

// visit counts as the tracker's do.
type visit struct {
	m       *memory
	present bool          // memory alone lets it in
	takes   time.Duration // an ENTER
	entered atomic.Bool
	forced  atomic.Bool
	tries   atomic.Int32
}

func (v *visit) Try() bool { return v.present }

func (v *visit) Enter(ctx context.Context, rev int64) error {
	v.tries.Add(1)
	select {
	case <-time.After(v.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	s := v.m.sessions[id]
	switch {
	case v.m.away:
		return errAway
	case s == nil || s.Revision != rev || s.State != session.Running:
		return session.ErrConflict
	}
	v.entered.Store(true)
	return nil
}

func (v *visit) Force() { v.forced.Store(true) }

type rig struct {
	*wake.Waker
	t     *testing.T
	store *memory
	host  *host
}

// bubble runs f with a Waker whose hold is 30 s, by a clock of its own.
func bubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, store: newMemory(), host: &host{findErr: wake.ErrGone}}
		r.Waker = wake.New(r.store, r.host, wake.Config{
			Node: "n1", Hold: 30 * time.Second, Logger: zap.NewNop(),
			IdleTimeout: func(session.Record) time.Duration { return idle },
		})
		f(t, r)
		r.Wait()
	})
}

func (r *rig) record(state session.State) session.Record {
	rec := session.New(id, "h", session.Running, "created", time.Now())
	rec.State = state
	if state.Busy() {
		kind := session.OpPause
		if state == session.Resuming {
			kind = session.OpResume
		}
		rec.Op = &session.Op{ID: "theirs", Kind: kind, Node: "n2", StartedAt: time.Now(), Deadline: time.Now().Add(time.Minute)}
	}
	return r.store.put(rec)
}

func (r *rig) ensure(v *visit, cause wake.Cause) error {
	v.m = r.store
	return r.Ensure(r.t.Context(), id, v, cause)
}

// wantEntered ensures, and fails unless a visit was let in.
func (r *rig) wantEntered(cause wake.Cause) {
	r.t.Helper()
	v := new(visit)
	if err := r.ensure(v, cause); err != nil {
		r.t.Fatalf("Ensure: %v, want nil", err)
	}
	if !v.entered.Load() {
		r.t.Error("the visit was let in without ENTER, want it entered")
	}
}

func (r *rig) wantConnects(want int32) {
	r.t.Helper()
	if got := r.host.connects.Load(); got != want {
		r.t.Errorf("%d connect calls, want %d", got, want)
	}
}

func (r *rig) wantState(want session.State) {
	r.t.Helper()
	synctest.Wait()
	if got := r.store.state(); got != want {
		r.t.Errorf("the record is %s, want %s", got, want)
	}
}
