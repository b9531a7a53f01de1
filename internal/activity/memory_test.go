package activity_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/activity"
	"github.com/sandman-proxy/sandman/internal/session"
)

const (
	id     = "sb1"
	idle   = 10 * time.Second
	linger = time.Second
)

// memory is the store of one node and one sandbox, with the compares of the
// real one. What a call takes before and after its Txn is the test's to say.
type memory struct {
	mu       sync.Mutex // guards the following fields
	record   int64      // revision of the RUNNING record, 0: it does not run
	open     bool       // of the activity
	leaves   []leave    // those that were answered
	flushes  [][]activity.Bump
	enters   int // Txns sent
	sentLeft int

	// slow gives how long a call takes before and after its Txn, and the error
	// that is answered in the end.
	slow func(call string) (before, after time.Duration, err error)
	// deleted is called when a LEAVE has deleted the presence.
	deleted func()

	rev      atomic.Int64
	presence atomic.Int64 // its revision, 0: none
	lease    atomic.Int64 // the living one, 0: none
	hidden   atomic.Bool  // the watch is behind: Present tells of no presence
}

type leave struct {
	rev   int64
	quiet time.Duration
	kind  string
}

func newMemory() *memory {
	m := &memory{slow: func(string) (a, b time.Duration, err error) { return 0, 0, nil }, deleted: func() {}}
	m.lease.Store(1)
	m.run()
	return m
}

// run puts a RUNNING record.
func (m *memory) run() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.record = m.rev.Add(1)
	return m.record
}

// call is one call to the store: the way there, the Txn, the way back.
func (m *memory) call(ctx context.Context, what string, txn func() error) error {
	m.mu.Lock()
	before, after, lost := m.slow(what)
	m.mu.Unlock()
	if err := pause(ctx, before); err != nil {
		return err
	}
	m.mu.Lock()
	err := txn()
	m.mu.Unlock()
	if late := pause(ctx, after); late != nil {
		return late
	}
	return errors.Join(err, lost)
}

func pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *memory) Enter(ctx context.Context, _ string, rev int64, _ string) (p activity.Presence, err error) {
	err = m.call(ctx, "enter", func() error {
		m.enters++
		if m.record != rev {
			return session.ErrConflict
		}
		p = activity.Presence{Revision: m.rev.Add(1), Lease: m.lease.Load()}
		m.presence.Store(p.Revision)
		m.open = true
		return nil
	})
	return p, err
}

func (m *memory) Leave(ctx context.Context, _ string, rev int64, quiet time.Duration, kind string) error {
	return m.call(ctx, "leave", func() error {
		m.sentLeft++
		if rev == 0 || m.presence.Load() != rev {
			return nil
		}
		m.rev.Add(1)
		m.presence.Store(0)
		m.open = false
		m.leaves = append(m.leaves, leave{rev, quiet, kind})
		m.deleted()
		return nil
	})
}

func (m *memory) Flush(ctx context.Context, bumps []activity.Bump) error {
	return m.call(ctx, "flush", func() error {
		m.flushes = append(m.flushes, bumps)
		return nil
	})
}

func (m *memory) Alive(lease int64) bool { return lease != 0 && m.lease.Load() == lease }

func (m *memory) Present(string) int64 {
	if m.hidden.Load() {
		return 0
	}
	return m.presence.Load()
}

// lapse ends the lease, and with it the presence.
func (m *memory) lapse(next int64) {
	m.lease.Store(next)
	m.presence.Store(0)
}

func (m *memory) left() []leave {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leaves
}

func (m *memory) entered() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.enters
}

// sent counts the LEAVEs that reached the store.
func (m *memory) sent() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sentLeft
}

func (m *memory) flushed() [][]activity.Bump {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flushes
}

func (m *memory) slowly(f func(call string) (before, after time.Duration, err error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slow = f
}

// rig is a tracker at work on a memory, in a synctest bubble.
type rig struct {
	*activity.Tracker
	t     *testing.T
	store *memory
	lost  func(ctx context.Context)
	stop  func()
}

// bubble runs f with a rig, by a clock of its own.
func bubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newMemory())
		defer r.stop()
		f(t, r)
	})
}

func newRig(t *testing.T, m *memory) *rig {
	r := &rig{t: t, store: m, lost: func(context.Context) {}}
	r.Tracker = activity.New(m, activity.Config{
		Resolution: time.Second,
		Idle:       func(string) time.Duration { return idle },
		Linger:     func(string) time.Duration { return linger },
		Lost:       func(ctx context.Context, _ string) { r.lost(ctx) },
		Logger:     zap.NewNop(),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
	return r
}

// visit gives a request that counts.
func (r *rig) visit() *activity.Visit {
	r.t.Helper()
	v := r.Begin(id, "request")
	r.enter(v)
	return v
}

func (r *rig) enter(v *activity.Visit) {
	r.t.Helper()
	r.store.mu.Lock()
	rev := r.store.record
	r.store.mu.Unlock()
	if err := v.Enter(r.t.Context(), rev); err != nil {
		r.t.Fatalf("Enter under the RUNNING record: %v, want nil", err)
	}
}

// wantInUse compares what the tracker takes to be in use.
func (r *rig) wantInUse(when string, requests, streams int) {
	r.t.Helper()
	if gotR, gotS := r.InUse(id); gotR != requests || gotS != streams {
		r.t.Errorf("%s: %d requests and %d streams count, want %d and %d", when, gotR, gotS, requests, streams)
	}
}

func (r *rig) wantPresent(when string, want bool) {
	r.t.Helper()
	if got := r.store.presence.Load() != 0; got != want {
		r.t.Errorf("%s: presence stands: %t, want %t", when, got, want)
	}
}
