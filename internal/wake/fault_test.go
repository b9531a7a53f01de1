package wake_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

func zapNop() *zap.Logger { return zap.NewNop() }

func TestStoreAway_runningIsServedAfterEnterTries(t *testing.T) {
	for _, takes := range []time.Duration{0, 2 * time.Second} {
		t.Run("an ENTER takes "+takes.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.record(session.Running)
				r.store.setAway(true)
				v := &visit{takes: takes}
				began := time.Now()
				if err := r.ensure(v, wake.Cause{}); err != nil || !v.forced.Load() {
					t.Fatalf("Ensure: %v, forced %t; want it served without the store", err, v.forced.Load())
				}
				if took := time.Since(began); took < wake.DefaultEnterTries || took > wake.DefaultEnterTries+takes+time.Second {
					t.Errorf("served without the store after %s, want right after %s", took, wake.DefaultEnterTries)
				}
			})
		})
	}
}

// A leader sends its pause call within 2 s of its SLEEP: 4 s of tries in vain
// mean that none is on its way. Two failures with a good time between them mean
// nothing.
func TestStoreAway_onlyTriesWithoutABreakCount(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := r.record(session.Running)
		r.store.setAway(true)
		v := new(visit)
		done := make(chan error, 1)
		go func() { done <- r.ensure(v, wake.Cause{}) }()
		time.Sleep(time.Second)
		r.store.setAway(false) // back; somebody pauses it
		rec.State = session.Pausing
		rec.Op = &session.Op{ID: "theirs", Kind: session.OpPause, Node: "n2", Deadline: time.Now()}
		rec = r.store.put(rec)
		time.Sleep(10 * time.Second)
		r.store.setAway(true)
		rec.State, rec.Op = session.Running, nil // given up
		r.store.put(rec)
		back := time.Now()
		if err := <-done; err != nil || !v.forced.Load() {
			t.Fatalf("Ensure: %v, forced %t; want it served without the store", err, v.forced.Load())
		}
		if took := time.Since(back); took < wake.DefaultEnterTries {
			t.Errorf("served without the store %s after it went away again, want not before %s", took, wake.DefaultEnterTries)
		}
	})
}

func TestStoreAway_pausedIsWokenByTheHostAlone(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.store.setAway(true)
		v := new(visit)
		began := time.Now()
		if err := r.ensure(v, wake.Cause{}); err != nil || !v.forced.Load() {
			t.Fatalf("Ensure: %v, forced %t; want it served without the store", err, v.forced.Load())
		}
		r.wantConnects(1)
		if took := time.Since(began); took < wake.DefaultEnterTries {
			t.Errorf("connected outside the record after %s, want not before %s", took, wake.DefaultEnterTries)
		}
	})
}

func TestStoreAway_unknownIsNeitherServedNorDenied(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := session.New(id, "h", session.Running, "known", time.Now())
		r.host.set(func(h *host) { h.found = &rec })
		r.store.setAway(true)
		v := new(visit)
		var notYet *wake.NotYetError
		if err := r.ensure(v, wake.Cause{}); !errors.As(err, &notYet) || v.forced.Load() {
			t.Errorf("Ensure: %v, forced %t; want a NotYetError", err, v.forced.Load())
		}
	})
}

func TestWake_closesItsOpWhenTheStoreIsBack(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.host.set(func(h *host) { h.takes = 2 * time.Second })
		time.AfterFunc(time.Second, func() {
			r.store.setAway(true)
			r.store.mu.Lock()
			defer r.store.mu.Unlock()
			r.store.invalid = true // its lease has ended meanwhile
		})
		time.AfterFunc(20*time.Second, func() { r.store.setAway(false) })
		r.wantEntered(wake.Cause{})
		r.wantConnects(1)
		r.wantState(session.Running)
	})
}

// A WAKE whose answer was lost makes everybody wait for an op that nobody works
// on, until its deadline.
func TestWake_ofUnknownOutcomeIsEndedAtOnce(t *testing.T) {
	for _, landed := range []bool{true, false} {
		t.Run(map[bool]string{true: "landed", false: "not landed"}[landed], func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.record(session.Paused)
				if landed {
					r.store.lost["wake"] = true
				} else {
					r.store.setAway(true)
					time.AfterFunc(time.Second, func() { r.store.setAway(false) })
				}
				began := time.Now()
				r.wantEntered(wake.Cause{})
				r.wantConnects(1)
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("let in after %s, want as soon as the store answers", took)
				}
			})
		})
	}
}

func TestWake_withoutTheRightToCallTheHostCallsItNot(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.store.invalid = true
		var notYet *wake.NotYetError
		if err := r.ensure(new(visit), wake.Cause{Hold: 50 * time.Millisecond}); err != nil && !errors.As(err, &notYet) {
			t.Errorf("Ensure: %v, want a NotYetError", err)
		}
		r.wantConnects(0)
		r.wantState(session.Paused) // and not left to its deadline
	})
}

func TestWait_endsWhatIsUnderWayWithinTheGrace(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.host.set(func(h *host) { h.takes = time.Minute })
		go func() { _ = r.ensure(new(visit), wake.Cause{}) }()
		synctest.Wait()
		began := time.Now()
		r.Wait()
		if took := time.Since(began); took > wake.DefaultGrace+time.Second {
			t.Errorf("Wait took %s, want about the grace of %s", took, wake.DefaultGrace)
		}
		var notYet *wake.NotYetError
		r.record(session.Paused)
		if err := r.ensure(new(visit), wake.Cause{Hold: time.Second}); !errors.As(err, &notYet) {
			t.Errorf("Ensure after Wait: %v, want a NotYetError", err)
		}
		r.wantConnects(1)
		time.Sleep(time.Minute) // the first caller's hold
	})
}
