package activity_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandman-proxy/sandman/internal/activity"
	"github.com/sandman-proxy/sandman/internal/session"
)

func TestTry_goesByPresenceInMemoryAlone(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		early := r.Begin(id, "request")
		if early.Try() {
			t.Error("Try before any ENTER: true, want false")
		}
		v := r.visit()
		next := r.Begin(id, "request")
		if !next.Try() {
			t.Error("Try while presence stands: false, want true")
		}
		r.wantInUse("two requests", 2, 0)
		if n := r.store.entered(); n != 1 {
			t.Errorf("%d ENTERs, want 1: the second request needs no Txn", n)
		}
		r.store.lease.Store(0)
		if r.Begin(id, "request").Try() {
			t.Error("Try when the lease may have ended: true, want false")
		}
		v.End()
		next.End()
		next.End()
		r.wantInUse("all ended, one of them twice", 0, 0)
	})
}

func TestEnter_isOneTxnForAllThatComeTogether(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.store.slowly(func(string) (a, b time.Duration, err error) { return 50 * time.Millisecond, 50 * time.Millisecond, nil })
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				if err := r.Begin(id, "request").Enter(t.Context(), 1); err != nil {
					t.Errorf("Enter: %v, want nil", err)
				}
			})
		}
		all.Wait()
		r.wantInUse("after the stampede", 200, 0)
		if n := r.store.entered(); n != 1 {
			t.Errorf("%d ENTERs for 200 requests, want 1", n)
		}
	})
}

func TestEnter_failsWhereTheRecordHasMovedOn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := r.Begin(id, "request")
		if err := v.Enter(t.Context(), 99); !errors.Is(err, session.ErrConflict) {
			t.Errorf("Enter under another revision: %v, want a conflict", err)
		}
		r.wantInUse("after the conflict", 0, 0)
		v.End()
	})
}

func TestEnter_outlivesItsCaller(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.store.slowly(func(string) (a, b time.Duration, err error) { return time.Second, 0, nil })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		v := r.Begin(id, "request")
		if err := v.Enter(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Enter of a caller that gave up: %v, want its deadline", err)
		}
		v.End()
		time.Sleep(time.Second)
		synctest.Wait()
		r.wantInUse("the ENTER has landed for nobody", 0, 0)
		r.wantPresent("the ENTER has landed", true)
		time.Sleep(linger + 2*time.Second)
		r.wantPresent("after the linger", false)
	})
}

func TestEnd_leavesAfterTheLinger(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.visit().End()
		time.Sleep(linger / 2)
		v := r.Begin(id, "request")
		if !v.Try() {
			t.Fatal("Try within the linger: false, want true")
		}
		time.Sleep(2 * linger)
		r.wantPresent("a request is in flight", true)
		v.End()
		time.Sleep(linger - time.Millisecond)
		r.wantPresent("right before the end of the linger", true)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		r.wantPresent("right after the linger", false)
		if l := r.store.left(); len(l) != 1 || l[0].quiet != linger || l[0].kind != "request" {
			t.Errorf("LEAVEs: %+v, want one, quiet for %s, of kind request", l, linger)
		}
	})
}

func TestLeave_isRepeatedUntilItIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		fails := 3
		r.store.slowly(func(call string) (a, b time.Duration, err error) {
			if call == "leave" && fails > 0 {
				fails--
				return 0, 0, errors.New("no answer")
			}
			return 0, 0, nil
		})
		r.store.hidden.Store(true) // the watch won't help
		r.visit().End()
		time.Sleep(linger + 5*time.Second)
		if n := r.store.sent(); n != 4 {
			t.Errorf("%d LEAVEs were sent, want 4: three without an answer", n)
		}
	})
}

func TestLeave_underWaySendsTheNextRequestThroughEnter(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.store.slowly(func(call string) (a, b time.Duration, err error) {
			if call == "leave" {
				return time.Second, time.Second, nil
			}
			return 0, 0, nil
		})
		r.visit().End()
		time.Sleep(linger + 500*time.Millisecond) // LEAVE is sent and has not landed
		v := r.Begin(id, "request")
		if v.Try() {
			t.Error("Try while a LEAVE is under way: true, want false")
		}
		r.enter(v)
		time.Sleep(3 * time.Second)
		r.wantPresent("the LEAVE has landed after the next ENTER", true)
		r.wantInUse("the LEAVE was answered", 1, 0)
		v.End()
		time.Sleep(linger + 3*time.Second)
		r.wantPresent("after the second visit", false)
	})
}

// The watch may show presence before the answer to the Txn that put it is
// known here. Nobody seems to stand behind it, so it is taken back; the answer
// must not be believed after that.
func TestEntered_isVoidOnceALeaveWasSent(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		p := activity.Presence{Revision: r.store.rev.Add(1), Lease: 1}
		r.store.presence.Store(p.Revision) // a wake's Txn has landed
		r.Observe(id)
		time.Sleep(time.Second)
		r.wantPresent("nobody stands behind it", false)
		r.Entered(id, p, "wake") // the answer comes late
		v := r.Begin(id, "request")
		if v.Try() {
			t.Error("Try by presence that was taken back: true, want false")
		}
		r.enter(v)
		r.wantPresent("after ENTER", true)
		v.End()
	})
}

func TestEnter_whoseAnswerComesAfterItsLeaveIsTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		first := true
		r.store.slowly(func(call string) (a, b time.Duration, err error) {
			if call == "enter" && first {
				first = false
				return 0, 1500 * time.Millisecond, nil // lands now, answered late
			}
			return 0, 0, nil
		})
		slow := r.Begin(id, "request")
		answered := make(chan error, 1)
		go func() { answered <- slow.Enter(t.Context(), 1) }()
		synctest.Wait()
		rev := r.store.run() // settings changed: others enter under a new revision
		other := r.Begin(id, "request")
		if err := other.Enter(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		r.Drain(id) // so that it leaves at once
		other.End()
		synctest.Wait()
		r.wantPresent("the second one has left", false)
		r.Resume(id)
		if err := <-answered; !errors.Is(err, session.ErrConflict) {
			t.Errorf("the first ENTER, whose presence is gone: %v, want a conflict", err)
		}
		r.wantInUse("no presence", 0, 0)
	})
}

func TestEnter_doesNotCountUnderALeaseThatEndedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.store.slowly(func(string) (a, b time.Duration, err error) { return 0, time.Second, nil })
		v := r.Begin(id, "request")
		answered := make(chan error, 1)
		go func() { answered <- v.Enter(t.Context(), 1) }()
		time.Sleep(500 * time.Millisecond)
		r.store.lease.Store(2)
		if err := <-answered; err == nil {
			t.Error("Enter answered after its lease may have ended: nil, want an error")
		}
		r.wantInUse("presence can't be believed", 0, 0)
		v.End()
	})
}

func TestLost_isCalledUntilPresenceIsBack(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		calls := 0
		r.lost = func(ctx context.Context) {
			if calls++; calls < 3 {
				return // can't be done now
			}
			v := r.Begin(id, "request")
			defer v.End()
			if err := v.Enter(ctx, 1); err != nil {
				t.Errorf("entering again: %v", err)
			}
		}
		v := r.visit()
		r.store.lapse(2)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if calls != 3 {
			t.Errorf("Lost was called %d times, want 3: the third one succeeded", calls)
		}
		r.wantPresent("after Lost has entered again", true)
		r.wantInUse("the request is still in flight", 1, 0)
		v.End()
		time.Sleep(linger + time.Second)
		r.wantPresent("after its end", false)
	})
}

func TestForce_countsWithoutPresenceAndAsksForItAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		lost := make(chan time.Time, 10)
		r.lost = func(context.Context) { lost <- time.Now() }
		v := r.Begin(id, "request")
		forced := time.Now()
		v.Force()
		r.wantInUse("forced", 1, 0)
		if at := <-lost; at != forced {
			t.Errorf("presence was asked for after %s, want at once", at.Sub(forced))
		}
		v.End()
		r.wantInUse("ended", 0, 0)
		time.Sleep(5 * time.Second)
		if n := r.store.sent(); n != 0 {
			t.Errorf("%d LEAVEs, want none: it never was present", n)
		}
	})
}

func TestDoubt_sendsTheNextRequestThroughEnter(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := r.visit()
		r.Doubt(id)
		next := r.Begin(id, "request")
		if next.Try() {
			t.Error("Try after a doubt: true, want false")
		}
		r.enter(next)
		if third := r.Begin(id, "request"); !third.Try() {
			t.Error("Try after an ENTER that is newer than the doubt: false, want true")
		} else {
			third.End()
		}
		v.End()
		next.End()
	})
}

func TestDoubt_isNotClearedByAnEnterThatIsOlder(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.store.slowly(func(string) (a, b time.Duration, err error) { return 0, time.Second, nil })
		v := r.Begin(id, "request")
		go func() { time.Sleep(500 * time.Millisecond); r.Doubt(id) }()
		r.enter(v)
		if r.Begin(id, "request").Try() {
			t.Error("Try after an ENTER that was sent before the doubt: true, want false")
		}
		v.End()
	})
}

func TestStray_presenceOfUnknownOutcomeIsTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.store.slowly(func(call string) (a, b time.Duration, err error) {
			if call == "enter" {
				return 0, 0, errors.New("the answer is lost")
			}
			return 0, 0, nil
		})
		v := r.Begin(id, "request")
		if err := v.Enter(t.Context(), 1); err == nil {
			t.Fatal("Enter without an answer: nil, want an error")
		}
		v.End()
		r.wantPresent("it has landed all the same", true)
		time.Sleep(time.Second)
		r.wantPresent("nobody stands behind it", false)
	})
}

func TestStray_isNotTakenBackWhileSomethingCounts(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := r.visit()
		r.store.lease.Store(2) // by our clock; etcd still shows the presence
		time.Sleep(2 * time.Second)
		if n := len(r.store.left()); n != 0 {
			t.Errorf("%d LEAVEs while a request is in flight, want none", n)
		}
		v.End()
	})
}

func TestRun_takesPresenceBackAtItsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.visit().End()
		began := time.Now()
		r.stop()
		r.wantPresent("after Run", false)
		if took := time.Since(began); took != 0 {
			t.Errorf("Run took %s to end, want no time: the store answers at once", took)
		}
		v := r.Begin(id, "request")
		if err := v.Enter(t.Context(), 1); err == nil {
			t.Error("Enter after the end of Run: nil, want an error")
		}
		v.End()
	})
}

func TestRun_doesNotWaitForAStoreThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.visit().End()
		r.store.slowly(func(string) (a, b time.Duration, err error) { return time.Hour, 0, nil })
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("Run took %s to end, want at most 1s", took)
		}
	})
}

func TestUse_isForgottenWhenNobodyHasCalledForLong(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		late := r.Begin(id, "request") // begun long before it enters
		r.visit().End()
		time.Sleep(30 * time.Second)
		if _, _, ok := r.Last(id); !ok {
			t.Error("Last after 30s: unknown, want it known")
		}
		time.Sleep(time.Minute)
		if _, _, ok := r.Last(id); ok {
			t.Error("Last after 90s: known, want it forgotten")
		}
		r.enter(late)
		r.wantInUse("the late visit", 1, 0)
		late.End()
	})
}
