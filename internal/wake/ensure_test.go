package wake_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

func TestEnsure_joinsConcurrentCallers(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.host.set(func(h *host) { h.takes = 2 * time.Second })
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() { r.wantEntered(wake.Cause{Reason: "request: GET /"}) })
		}
		all.Wait()
		r.wantConnects(1)
		if s := r.store.Get(id); s.Reason != "request: GET /" || s.Totals.Wakes != 1 {
			t.Errorf("the record says %q after %d wakes, want the request's reason and 1", s.Reason, s.Totals.Wakes)
		}
		if d := time.Duration(r.host.timeout.Load()); d != idle+2*time.Minute {
			t.Errorf("the host was told to let it run for %s, want the idle timeout and 2m", d)
		}
	})
}

func TestEnsure_entersWithoutAConnectWhatRuns(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.wantEntered(wake.Cause{})
		r.wantConnects(0)
		v := &visit{present: true}
		if err := r.ensure(v, wake.Cause{}); err != nil || v.tries.Load() != 0 {
			t.Errorf("Ensure while presence stands: %v after %d ENTERs, want nil and none", err, v.tries.Load())
		}
	})
}

func TestEnsure_waitsForAPauseAndHoldsFromItsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := r.record(session.Pausing)
		r.host.set(func(h *host) { h.takes = 20 * time.Second })
		time.AfterFunc(50*time.Second, func() { // longer than the hold
			rec.State, rec.Op = session.Paused, nil
			r.store.put(rec)
		})
		began := time.Now()
		r.wantEntered(wake.Cause{})
		r.wantConnects(1)
		if took := time.Since(began); took != 70*time.Second {
			t.Errorf("let in after %s, want 1m10s: the pause, and the connect", took)
		}
	})
}

func TestEnsure_beginsTheHoldAnewAfterEachPause(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := r.record(session.Resuming)
		r.host.set(func(h *host) { h.takes = 20 * time.Second })
		go func() {
			time.Sleep(20 * time.Second)
			rec.State = session.Pausing
			r.store.put(rec)
			time.Sleep(20 * time.Second)
			rec.State, rec.Op = session.Paused, nil
			r.store.put(rec)
		}()
		began := time.Now()
		r.wantEntered(wake.Cause{})
		if took := time.Since(began); took != time.Minute {
			t.Errorf("let in after %s, want 1m0s: a wake, a pause and a wake of 20s each", took)
		}
	})
}

func TestEnsure_waitsForAnothersWake(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := r.record(session.Resuming)
		time.AfterFunc(3*time.Second, func() {
			rec.State, rec.Op = session.Running, nil
			r.store.put(rec)
		})
		r.wantEntered(wake.Cause{})
		r.wantConnects(0)
	})
}

func TestEnsure_takesOverAnOpWhoseOwnerIsGone(t *testing.T) {
	for _, state := range []session.State{session.Pausing, session.Resuming} {
		t.Run(string(state), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.record(state)
				time.AfterFunc(5*time.Second, func() {
					r.store.mu.Lock()
					defer r.store.mu.Unlock()
					r.store.abandoned = true
				})
				began := time.Now()
				r.wantEntered(wake.Cause{})
				r.wantConnects(1)
				if took := time.Since(began); took > 7*time.Second {
					t.Errorf("let in after %s, want soon after its owner has gone", took)
				}
			})
		})
	}
}

func TestEnsure_givesUpWhenTheHoldEnds(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.host.set(func(h *host) { h.takes = 40 * time.Second })
		began := time.Now()
		err := r.ensure(new(visit), wake.Cause{})
		var notYet *wake.NotYetError
		if !errors.As(err, &notYet) || time.Since(began) != 30*time.Second {
			t.Fatalf("Ensure: %v after %s, want a NotYetError after 30s", err, time.Since(began))
		}
		if notYet.State != session.Resuming || notYet.RetryAfter < time.Second {
			t.Errorf("it says %s, to be tried again after %s; want RESUMING and at least 1s", notYet.State, notYet.RetryAfter)
		}
		r.wantEntered(wake.Cause{}) // the same wake is still under way
		r.wantConnects(1)
	})
}

func TestEnsure_isNotCancelledByTheCallerThatBegan(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.host.set(func(h *host) { h.takes = 5 * time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			time.Sleep(500 * time.Millisecond)
			r.wantEntered(wake.Cause{})
		}()
		if err := r.Ensure(ctx, id, &visit{m: r.store}, wake.Cause{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Ensure of a caller that left: %v, want its deadline", err)
		}
		time.Sleep(10 * time.Second)
		r.wantState(session.Running)
		r.wantConnects(1)
	})
}

func TestEnsure_wakesUnderARunningRecordWhereTheHostSaidPaused(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := r.record(session.Running)
		v := &visit{present: true}
		if err := r.ensure(v, wake.Cause{Suspect: rec.Revision}); err != nil || !v.entered.Load() {
			t.Fatalf("Ensure under suspicion: %v, entered %t; want it entered anew", err, v.entered.Load())
		}
		r.wantConnects(1)
		r.wantEntered(wake.Cause{Suspect: rec.Revision})
		r.wantConnects(1) // the record has moved on since the request was forwarded
	})
}

func TestEnsure_connectsOnceAmongSeveralNodes(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.host.set(func(h *host) { h.takes = time.Second })
		other := &rig{t: t, store: r.store, host: r.host}
		other.Waker = wake.New(r.store, r.host, wake.Config{Node: "n2", Logger: zapNop(), IdleTimeout: func(session.Record) time.Duration { return idle }})
		var all sync.WaitGroup
		for _, node := range []*rig{r, other, r, other} {
			all.Go(func() { node.wantEntered(wake.Cause{}) })
		}
		all.Wait()
		other.Wait()
		r.wantConnects(1)
	})
}

func TestEnsure_backsOffAfterAFailedConnect(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.host.set(func(h *host) { h.fails = errHost })
		var notYet *wake.NotYetError
		if err := r.ensure(new(visit), wake.Cause{}); !errors.As(err, &notYet) || notYet.State != session.Paused {
			t.Fatalf("Ensure while the host fails: %v, want a NotYetError of a PAUSED sandbox", err)
		}
		r.wantConnects(5) // at 0, 1, 3, 7 and 15 s; the next one would be too late
		if err := r.ensure(new(visit), wake.Cause{Hold: time.Second}); !errors.As(err, &notYet) || notYet.RetryAfter < 2*time.Second {
			t.Errorf("Ensure during the back-off: %v, want at once a NotYetError that tells how long it lasts", err)
		}
		r.wantConnects(5)
		r.host.set(func(h *host) { h.fails = nil })
		r.wantEntered(wake.Cause{})
		if e := r.store.Get(id).LastError; e != nil {
			t.Errorf("lastError after a wake that succeeded: %+v, want none", e)
		}
	})
}

// The clock of the node that failed may be an hour ahead.
func TestEnsure_believesOnlyTheSpanOfABackoff(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := r.record(session.Paused)
		ahead := time.Now().Add(time.Hour)
		rec.LastError = &session.OpError{Op: session.OpResume, At: ahead, RetryAt: ahead.Add(2 * time.Second), Failures: 1}
		r.store.put(rec)
		began := time.Now()
		r.wantEntered(wake.Cause{})
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("let in after %s, want 2s: the span of the back-off", took)
		}
	})
}

// A record that is damaged, or was written while a clock was set, must not keep
// its sandbox asleep for years.
func TestEnsure_believesNoBackoffThatSandmanWouldNotHaveMade(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for _, e := range []session.OpError{
			{At: time.Time{}, RetryAt: time.Now()},
			{At: time.Now(), RetryAt: time.Now().AddDate(200, 0, 0)},
			{At: time.Now(), RetryAt: time.Now().AddDate(-200, 0, 0)},
		} {
			rec := r.record(session.Paused)
			e.Op = session.OpResume
			rec.LastError = &e
			r.store.put(rec)
			began := time.Now()
			r.wantEntered(wake.Cause{Hold: time.Minute})
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("let in after %s, want 30s at most", took)
			}
		}
	})
}

func TestEnsure_asksAHostThatIsDownOnlyNowAndThen(t *testing.T) {
	for _, c := range []struct {
		name     string
		fails    error
		connects int32
	}{
		{"down", errHost, 5},
		{"refuses this one", &wake.PermanentError{Err: errors.New("400")}, 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.host.set(func(h *host) { h.fails = c.fails })
				for range 20 {
					r.record(session.Paused) // a new one, without a back-off
					_ = r.ensure(new(visit), wake.Cause{Hold: time.Millisecond})
				}
				r.wantConnects(c.connects)
			})
		})
	}
}

func TestEnsure_killedWhereTheHostSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.host.set(func(h *host) { h.fails = wake.ErrGone })
		if err := r.ensure(new(visit), wake.Cause{}); !errors.Is(err, wake.ErrKilled) {
			t.Errorf("Ensure after a 404: %v, want ErrKilled", err)
		}
		r.wantState(session.Killed)
		for range 10 {
			_ = r.ensure(new(visit), wake.Cause{})
		}
		if n := r.host.finds.Load(); n != 1 {
			t.Errorf("the host was asked %d times, want once while its no is believed", n)
		}
		time.Sleep(wake.DefaultUnknownFor + time.Second)
		r.host.set(func(h *host) { // created again
			rec := session.New(id, "h", session.Running, "created", time.Now())
			h.found, h.fails = &rec, nil
		})
		r.wantEntered(wake.Cause{})
		r.wantConnects(1)
	})
}

func TestEnsure_adoptsWhatAHostKnows(t *testing.T) {
	for _, state := range []session.State{session.Running, session.Paused} {
		t.Run(string(state), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				rec := session.New(id, "h", state, "known", time.Now())
				r.host.set(func(h *host) { h.found = &rec })
				r.wantEntered(wake.Cause{})
				r.wantState(session.Running)
			})
		})
	}
}

func TestEnsure_unknownIsBelievedForAWhile(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for range 10 {
			if err := r.ensure(new(visit), wake.Cause{}); !errors.Is(err, wake.ErrUnknown) {
				t.Fatalf("Ensure of an ID that no host knows: %v, want ErrUnknown", err)
			}
		}
		if n := r.host.finds.Load(); n != 1 {
			t.Errorf("the hosts were asked %d times, want once", n)
		}
		r.host.set(func(h *host) { h.findErr = errHost })
		r.Known(id)
		var notYet *wake.NotYetError
		if err := r.ensure(new(visit), wake.Cause{}); !errors.As(err, &notYet) || !errors.Is(err, errHost) {
			t.Errorf("Ensure while the host is down: %v, want a NotYetError and never a 404", err)
		}
	})
}

func TestAdopt_doesNotWake(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := session.New(id, "h", session.Paused, "known", time.Now())
		r.host.set(func(h *host) { h.found = &rec })
		if err := r.Adopt(t.Context(), id); err != nil {
			t.Fatalf("Adopt: %v, want nil", err)
		}
		r.wantState(session.Paused)
		r.wantConnects(0)
		if err := r.Adopt(t.Context(), id); err != nil || r.host.finds.Load() != 1 {
			t.Errorf("Adopt of a known one: %v after %d questions, want nil and no further one", err, r.host.finds.Load())
		}
	})
}

func TestResume_tellsWhetherItSlept(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		cause := wake.Cause{Timeout: 3 * time.Hour}
		if woke, err := r.Resume(t.Context(), id, &visit{m: r.store}, cause); err != nil || !woke {
			t.Errorf("Resume of a paused one: %t, %v; want true, nil", woke, err)
		}
		if d := time.Duration(r.host.timeout.Load()); d != 3*time.Hour {
			t.Errorf("the host was told to let it run for %s, want the caller's 3h", d)
		}
		if woke, err := r.Resume(t.Context(), id, &visit{m: r.store}, cause); err != nil || woke {
			t.Errorf("Resume of a running one: %t, %v; want false, nil", woke, err)
		}
		synctest.Wait()
	})
}
