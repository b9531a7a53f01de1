package pauser_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
)

type rig struct {
	*pauser.Pauser
	t     *testing.T
	store *memory
	host  *host
	// retire ends the term, and returns when Lead has.
	retire func()

	mu  sync.Mutex    // guards the following field
	ran []session.Run // what the leader told of its runs
}

// bubble runs f with a Pauser that does not lead yet, by a clock of its own.
func bubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, store: newMemory(), host: &host{state: session.Running, ends: time.Now().Add(1000 * time.Hour)}, retire: func() {}}
		r.Pauser = pauser.New(r.store, r.host, pauser.Config{
			Node: "n1", Logger: zap.NewNop(),
			IdleTimeout: func(rec session.Record) time.Duration {
				return session.Rules{IdleTimeout: idle}.Settings(rec).IdleTimeout
			},
			InUse: func(string) []string { return nil },
			Ran:   r.note,
		})
		f(t, r)
		r.retire()
		r.Wait()
	})
}

func (r *rig) note(run session.Run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ran = append(r.ran, run)
}

// record puts a record of the test's one sandbox, with its last visit closed.
func (r *rig) record(state session.State) {
	rec := session.New(id, "h", session.Running, "created", time.Now())
	rec.State = state
	if state.Busy() {
		kind := session.OpPause
		if state == session.Resuming {
			kind = session.OpResume
		}
		rec.Op = &session.Op{ID: "theirs", Kind: kind, Node: "n2", StartedAt: time.Now(), Deadline: time.Now().Add(time.Minute)}
	}
	r.store.put(rec)
	r.store.change(id, func(s *session.Snapshot) { s.Activity.Kind = "test" })
}

// use puts what an ENTER does.
func (r *rig) use() {
	r.store.change(id, func(s *session.Snapshot) {
		s.Presence = []session.Presence{{Node: "n2", Revision: 1}}
		s.Activity = session.Activity{Open: true, Kind: time.Now().String()}
		s.LastActive = time.Now()
	})
}

// leave puts what a LEAVE does.
func (r *rig) leave() {
	r.store.change(id, func(s *session.Snapshot) {
		s.Presence = nil
		s.Activity = session.Activity{Kind: time.Now().String()}
		s.LastActive = time.Now()
	})
}

// lapse is the end of a proxy's lease.
func (r *rig) lapse() { r.store.change(id, func(s *session.Snapshot) { s.Presence = nil }) }

func (r *rig) lead() {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Lead(ctx, r.store) }()
	r.retire = func() { cancel(); <-done }
}

func (r *rig) state() session.State {
	synctest.Wait()
	if s := r.store.Get(id); s != nil {
		return s.State
	}
	return ""
}

func (r *rig) wantState(when string, want session.State) {
	r.t.Helper()
	if got := r.state(); got != want {
		r.t.Errorf("%s: the record is %s, want %s", when, got, want)
	}
}

func (r *rig) wantCalls(when string, want int) {
	r.t.Helper()
	synctest.Wait()
	if got := len(r.host.calls()); got != want {
		r.t.Errorf("%s: %d pause calls, want %d", when, got, want)
	}
}
