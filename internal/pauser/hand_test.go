package pauser_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
)

// hand pauses by hand, and tells how long it took.
func (r *rig) hand(o pauser.Options) (changed bool, took time.Duration, err error) {
	began := time.Now()
	changed, err = r.Pause(r.t.Context(), id, o)
	return changed, time.Since(began), err
}

// answer is a proxy that leaves when it sees the phase of a pause.
func (r *rig) answer(phase session.Phase, after time.Duration, do func()) {
	go func() {
		_, err := r.store.Until(r.t.Context(), id, func(s *session.Snapshot) bool {
			return s != nil && s.Op != nil && s.Op.Phase == phase
		})
		if err == nil {
			time.Sleep(after)
			do()
		}
	}()
}

func TestPause_pausesAtOnceWhatIsNotInUse(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.store.change(id, func(s *session.Snapshot) { s.Holds = []session.Hold{{Name: "build"}} })
		changed, took, err := r.hand(pauser.Options{By: "token ops"})
		if !changed || err != nil || took != 0 {
			t.Fatalf("Pause: %t, %v after %s; want true, nil at once: holds don't stop a person", changed, err, took)
		}
		r.wantState("paused by hand", session.Paused)
		if why := r.store.Get(id).Reason; why != "paused by hand: token ops" {
			t.Errorf("the reason is %q, want it to say who", why)
		}
		if changed, _, err := r.hand(pauser.Options{}); changed || err != nil {
			t.Errorf("Pause of a paused one: %t, %v; want false, nil", changed, err)
		}
		r.wantCalls("twice asked", 1)
	})
}

func TestPause_goneWhatIsNoMore(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		if _, _, err := r.hand(pauser.Options{}); !errors.Is(err, pauser.ErrGone) {
			t.Errorf("Pause of an unknown one: %v, want ErrGone", err)
		}
		r.record(session.Killed)
		if _, _, err := r.hand(pauser.Options{}); !errors.Is(err, pauser.ErrGone) {
			t.Errorf("Pause of a killed one: %v, want ErrGone", err)
		}
	})
}

func TestPause_waitsForWhatIsInFlight(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.use()
		r.answer(session.PhaseDraining, 3*time.Second, r.leave)
		if changed, took, err := r.hand(pauser.Options{}); !changed || err != nil || took != 3*time.Second {
			t.Errorf("Pause: %t, %v after %s; want true, nil after 3s, when it was left", changed, err, took)
		}
		r.wantState("left", session.Paused)
	})
}

func TestPause_refusedWhileInUse(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(r *rig) // while draining
	}{
		{"a request goes on", func(*rig) {}},
		{"its proxy vanishes meanwhile", (*rig).lapse},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.record(session.Running)
				r.use()
				r.answer(session.PhaseDraining, time.Second, func() { c.do(r) })
				_, took, err := r.hand(pauser.Options{})
				var inUse *pauser.InUseError
				if !errors.As(err, &inUse) || len(inUse.What) == 0 || took != pauser.DefaultDrain {
					t.Fatalf("Pause: %v after %s, want an InUseError that says what after %s", err, took, pauser.DefaultDrain)
				}
				r.wantState("refused", session.Running)
				r.wantCalls("refused", 0)
				if why := r.store.Get(id).Reason; !strings.HasPrefix(why, "pause refused, in use: ") {
					t.Errorf("the reason is %q, want it to tell the refusal", why)
				}
			})
		})
	}
}

func TestPause_forcedCutsWhatIsInFlight(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  func(r *rig)
	}{
		{"and its proxy leaves", (*rig).leave},
		{"and its proxy has died", (*rig).lapse},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.record(session.Running)
				r.use()
				r.answer(session.PhaseCutting, 2*time.Second, func() { c.cut(r) })
				if changed, took, err := r.hand(pauser.Options{Force: true}); !changed || err != nil || took != pauser.DefaultDrain+2*time.Second {
					t.Errorf("Pause: %t, %v after %s; want true, nil when the requests were cut", changed, err, took)
				}
				r.wantState("forced", session.Paused)
			})
		})
	}
}

func TestPause_forcedGivesUpOnAProxyThatDoesNotLeave(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.use()
		_, took, err := r.hand(pauser.Options{Force: true})
		var inUse *pauser.InUseError
		if !errors.As(err, &inUse) || took != pauser.DefaultDrain+pauser.DefaultCut {
			t.Errorf("Pause: %v after %s, want an InUseError after the drain and the cut", err, took)
		}
		r.wantState("given up", session.Running)
		r.wantCalls("given up", 0)
	})
}

func TestPause_joinsConcurrentCallers(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.use()
		r.host.set(func(h *host) { h.takes = 2 * time.Second })
		r.answer(session.PhaseCutting, 0, r.leave)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				// only one of them forces it, and not the first
				if changed, _, err := r.hand(pauser.Options{Force: i == 7}); !changed || err != nil {
					t.Errorf("caller %d: %t, %v; want true, nil", i, changed, err)
				}
			})
		}
		all.Wait()
		r.wantCalls("20 callers", 1)
	})
}

func TestPause_goesOnWithoutItsCaller(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.host.set(func(h *host) { h.takes = 3 * time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Pause(ctx, id, pauser.Options{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Pause of a caller that left: %v, want its deadline", err)
		}
		r.wantState("the caller has left", session.Pausing)
		time.Sleep(3 * time.Second)
		r.wantState("the call has ended", session.Paused)
	})
}

func TestPause_waitsForTheSettlePeriod(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.store.lose(12 * time.Second)
		if _, took, err := r.hand(pauser.Options{}); err != nil || took != 12*time.Second {
			t.Errorf("Pause within a settle period: %v after %s, want nil at its end after 12s", err, took)
		}
	})
}

// While contact was lost, proxies may have begun to serve without ENTER.
func TestPause_beginsAnewAfterALossOfContact(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.use()
		r.answer(session.PhaseDraining, time.Second, func() {
			r.store.lose(12 * time.Second)
			r.leave()
		})
		changed, took, err := r.hand(pauser.Options{})
		if !changed || err != nil || took != 13*time.Second {
			t.Errorf("Pause: %t, %v after %s; want true, nil after the settle period, at 13s", changed, err, took)
		}
		r.wantState("after the settle period", session.Paused)
		r.wantCalls("after the settle period", 1)
	})
}

func TestPause_doesNotCallWhatTookTooLongToAllow(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.store.set(func(m *memory) { m.takes[string(session.PhaseCalling)] = pauser.DefaultCallWithin + time.Second })
		go func() {
			_, _, _ = r.hand(pauser.Options{})
		}()
		time.Sleep(4 * time.Second)
		r.wantCalls("the Txn that allows it took 3s", 0)
		r.store.set(func(m *memory) { clear(m.takes) })
		time.Sleep(4 * time.Second)
		r.wantCalls("the store is quick again", 1)
		r.wantState("the store is quick again", session.Paused)
	})
}

func TestPause_tellsWhenTheHostFails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.host.set(func(h *host) { h.fails = errHost })
		if _, _, err := r.hand(pauser.Options{}); !errors.Is(err, errHost) {
			t.Errorf("Pause: %v, want the host's error", err)
		}
		r.wantCalls("the host fails", 1)
		r.wantState("the host fails", session.Running)
	})
}

func TestPause_ofUnknownBeginningIsEnded(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.store.set(func(m *memory) { m.lost["drain"] = true })
		if _, took, err := r.hand(pauser.Options{}); !errors.Is(err, errAway) || took > time.Second {
			t.Errorf("Pause: %v after %s, want the store's error at once", err, took)
		}
		r.wantState("its beginning was not answered", session.Running)
	})
}

func TestPause_waitsForAnothersOp(t *testing.T) {
	for _, c := range []struct {
		from, to session.State
		changed  bool
		calls    int
	}{
		{session.Pausing, session.Paused, true, 0},
		{session.Resuming, session.Running, true, 1},
	} {
		t.Run(string(c.from), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.record(c.from)
				time.AfterFunc(7*time.Second, func() { r.record(c.to) })
				changed, took, err := r.hand(pauser.Options{})
				if changed != c.changed || err != nil || took != 7*time.Second {
					t.Errorf("Pause: %t, %v after %s; want %t, nil after 7s", changed, err, took, c.changed)
				}
				r.wantState("in the end", session.Paused)
				r.wantCalls("in the end", c.calls)
			})
		})
	}
}

// The op may be settled by others, and the next one is not ours.
func TestPause_leavesAnothersOpAlone(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.use()
		r.answer(session.PhaseDraining, time.Second, func() {
			r.record(session.Running)
			r.leave()
			r.record(session.Pausing) // another node's
			time.Sleep(5 * time.Second)
			r.record(session.Paused)
		})
		changed, took, err := r.hand(pauser.Options{})
		if !changed || err != nil || took != 6*time.Second {
			t.Errorf("Pause: %t, %v after %s; want true, nil when the other one has ended", changed, err, took)
		}
		r.wantCalls("it was another's op", 0)
		if n := r.store.count(string(session.PhaseCalling)); n > 2 {
			t.Errorf("%d attempts to call, want no storm", n)
		}
	})
}

func TestWait_givesUpADrain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.use()
		failed := make(chan error, 1)
		go func() { _, _, err := r.hand(pauser.Options{}); failed <- err }()
		time.Sleep(time.Second)
		began := time.Now()
		r.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("Wait took %s, want no time: no host was called", took)
		}
		if err := <-failed; err == nil {
			t.Error("Pause that was given up: nil, want an error")
		}
		r.wantState("given up", session.Running)
		synctest.Wait()
	})
}

func TestWait_doesNotWaitForASettlePeriod(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.store.lose(time.Hour)
		go func() { _, _, _ = r.hand(pauser.Options{}) }()
		time.Sleep(time.Second)
		began := time.Now()
		r.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("Wait took %s, want no time: nothing has begun", took)
		}
	})
}
