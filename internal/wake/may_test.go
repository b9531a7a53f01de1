package wake_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// refusedError is some policy's.
type refusedError struct{ reason string }

func (e *refusedError) Error() string { return "may not wake: " + e.reason }

// asked refuses all, and counts how often it was asked.
type asked struct{ times atomic.Int32 }

func (a *asked) may(session.Record) error {
	a.times.Add(1)
	return &refusedError{"no"}
}

func TestEnsure_asksWhoeverWouldBeginAWake(t *testing.T) {
	for _, c := range []struct {
		state   session.State
		refused bool
	}{
		{session.Running, false},
		{session.Pausing, true},
		{session.Paused, true},
		{session.Resuming, false},
	} {
		t.Run(string(c.state), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				rec := r.record(c.state)
				time.AfterFunc(3*time.Second, func() {
					if c.state.Busy() {
						rec.State, rec.Op = session.Running, nil
						r.store.put(rec)
					}
				})
				var a asked
				began := time.Now()
				err := r.ensure(new(visit), wake.Cause{May: a.may})
				refused, is := err.(*refusedError) //nolint:errorlint // it shall be returned as it is
				switch {
				case !c.refused && (err != nil || a.times.Load() != 0):
					t.Errorf("Ensure: %v after it was asked %d times, want to be let in unasked", err, a.times.Load())
				case c.refused && (!is || refused.reason != "no" || time.Since(began) != 0):
					t.Errorf("Ensure: %v after %s, want the refusal at once", err, time.Since(began))
				}
				r.wantConnects(0)
			})
		})
	}
}

func TestEnsure_asksWithTheRecordAsItStands(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := r.record(session.Pausing)
		time.AfterFunc(time.Second, func() {
			rec.State, rec.Op, rec.Parked = session.Paused, nil, 3
			r.store.put(rec)
		})
		err := r.ensure(new(visit), wake.Cause{May: func(r session.Record) error {
			if r.State == session.Paused {
				return &refusedError{fmt.Sprintf("%d are parked", r.Parked)}
			}
			return nil
		}})
		if err == nil || err.Error() != "may not wake: 3 are parked" {
			t.Errorf("Ensure: %v, want the refusal under the record that is PAUSED", err)
		}
	})
}

// Who may not wake may still use a wake that somebody else began, also before
// the view shows it.
func TestEnsure_joinsAWakeUnasked(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.host.set(func(h *host) { h.takes = 2 * time.Second })
		var all sync.WaitGroup
		all.Go(func() { r.wantEntered(wake.Cause{}) })
		time.Sleep(time.Second)
		var a asked
		all.Go(func() { r.wantEntered(wake.Cause{May: a.may}) })
		all.Wait()
		if n := a.times.Load(); n != 0 {
			t.Errorf("asked %d times, want a join unasked", n)
		}
		r.wantConnects(1)
	})
}

func TestEnsure_aRefusalIsItsOwnCallersAlone(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.host.set(func(h *host) { h.takes = time.Second })
		var a asked
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				if i%2 == 0 {
					r.wantEntered(wake.Cause{})
					return
				}
				err := r.ensure(new(visit), wake.Cause{May: a.may})
				if _, refused := errors.AsType[*refusedError](err); err != nil && !refused {
					t.Errorf("Ensure of one that may not wake: %v", err)
				}
			})
		}
		all.Wait()
		r.wantConnects(1)
	})
}

func TestEnsure_refusesDuringABackoffAndWithTheStoreAway(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := r.record(session.Paused)
		rec.LastError = &session.OpError{Op: session.OpResume, At: time.Now(), RetryAt: time.Now().Add(20 * time.Second)}
		r.store.put(rec)
		wantRefused := func() {
			t.Helper()
			var a asked
			began := time.Now()
			err := r.ensure(new(visit), wake.Cause{May: a.may})
			if _, refused := errors.AsType[*refusedError](err); !refused || time.Since(began) != 0 {
				t.Errorf("Ensure: %v after %s, want the refusal at once", err, time.Since(began))
			}
		}
		wantRefused()
		r.record(session.Paused)
		r.store.setAway(true)
		wantRefused()
		r.wantConnects(0)
	})
}

func TestWake_countsReconnectsInItsTxn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		wantCounted := func(state session.State, want int) {
			t.Helper()
			s := r.store.Get(id)
			if got := s.ReconnectsOn(time.Now()); got != want || s.State != state {
				t.Errorf("%d reconnects are counted in a record that is %s, want %d in %s", got, s.State, want, state)
			}
		}
		rec := r.record(session.Paused)
		rec.Parked = 1
		r.store.put(rec)
		r.host.set(func(h *host) { h.takes = 2 * time.Second })
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { r.wantEntered(wake.Cause{Reconnect: true}) })
		}
		time.Sleep(time.Second)
		wantCounted(session.Resuming, 1) // one wake, and before the host has answered
		all.Wait()
		wantCounted(session.Running, 1)

		rec = r.store.Get(id).Record
		rec.State = session.Paused
		r.store.put(rec)
		r.wantEntered(wake.Cause{})
		wantCounted(session.Running, 1)

		rec = r.store.Get(id).Record
		rec.State, rec.Parked = session.Paused, 0 // nothing was open: who comes is free
		r.store.put(rec)
		r.wantEntered(wake.Cause{Reconnect: true})
		wantCounted(session.Running, 1)
	})
}

// A host that is down for minutes must not use the day's budget up.
func TestWake_countsNoReconnectThatFailed(t *testing.T) {
	for _, c := range []struct {
		name  string
		set   func(*host)
		least int
	}{
		{"the host says no", func(h *host) { h.fails = errHost }, 0},
		{"the host does not answer, so it may run", func(h *host) { h.takes = time.Hour }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				rec := r.record(session.Paused)
				rec.Parked = 1
				r.store.put(rec)
				r.host.set(c.set)
				if err := r.ensure(new(visit), wake.Cause{Reconnect: true}); err == nil {
					t.Fatal("Ensure succeeded without the host")
				}
				time.Sleep(2 * time.Minute)
				s := r.store.Get(id)
				if got := s.ReconnectsOn(time.Now()); got != c.least || s.State != session.Paused {
					t.Errorf("%d reconnects are counted in a record that is %s, want %d in PAUSED", got, s.State, c.least)
				}
			})
		})
	}
}
