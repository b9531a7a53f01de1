package pauser_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
)

func (r *rig) away(is bool) {
	r.store.set(func(m *memory) {
		m.away = is
		m.epoch++
		m.settledAt = time.Now().Add(settle)
	})
}

// What was answered with an error must not happen when the store is back,
// however much later.
func TestPause_withTheStoreAwayIsRefusedForGood(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.away(true)
		_, took, err := r.hand(pauser.Options{By: "token ops", Force: true})
		if !errors.Is(err, pauser.ErrAway) || took > 4*time.Second {
			t.Errorf("Pause: %v after %s, want ErrAway within 4s", err, took)
		}
		r.away(false)
		time.Sleep(time.Hour)
		r.wantCalls("the store is back", 0)
		if n := r.store.count("drain"); n != 0 {
			t.Errorf("%d pauses by hand were begun, want none", n)
		}
	})
}

func TestPause_waitsForAStoreThatIsSoonBack(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.away(true)
		time.AfterFunc(2*time.Second, func() { r.away(false) })
		if changed, took, err := r.hand(pauser.Options{}); !changed || err != nil || took != 2*time.Second+settle {
			t.Errorf("Pause: %t, %v after %s; want true, nil at the end of the settle period", changed, err, took)
		}
		r.wantState("the store is back", session.Paused)
	})
}

func TestPause_thatHasNotBegunEndsWithItsCaller(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.store.lose(settle)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Pause(ctx, id, pauser.Options{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Pause of a caller that left: %v, want its deadline", err)
		}
		time.Sleep(time.Hour)
		r.wantCalls("nobody waits for it any more", 0)
	})
}
