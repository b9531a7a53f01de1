package wake_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// forward is a request whose host answers "paused" whatever the record says, as
// the gate has it: it is made to run, and sent, until somebody gives up.
func (r *rig) forward(ctx context.Context) error {
	var suspect int64
	for {
		if err := r.ensureIn(ctx, wake.Cause{Suspect: suspect}); err != nil {
			return err
		}
		suspect = r.store.Get(id).Revision
		time.Sleep(5 * time.Millisecond) // the way to the host and back
	}
}

func (r *rig) ensureIn(ctx context.Context, cause wake.Cause) error {
	return r.Ensure(ctx, id, &visit{m: r.store}, cause)
}

// contradictions are what makes a request be woken for again and again.
var contradictions = map[string]func(r *rig){
	"its host runs it, and says that it sleeps": func(r *rig) { r.record(session.Running) },
	"one host runs it, another is asked": func(r *rig) {
		r.record(session.Running)
		known := session.New(id, "h", session.Running, "known", time.Now())
		r.host.set(func(h *host) { h.fails, h.found = wake.ErrGone, &known })
	},
	"it sleeps at one host, another is asked": func(r *rig) {
		r.record(session.Paused)
		known := session.New(id, "h", session.Paused, "known", time.Now())
		r.host.set(func(h *host) { h.fails, h.found = wake.ErrGone, &known })
	},
}

func TestContradiction_endsWithTheHold(t *testing.T) {
	for name, contradict := range contradictions {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				contradict(r)
				r.wantGivenUp(20, 30*time.Second)
			})
		})
	}
	t.Run("the store is away", func(t *testing.T) {
		bubble(t, func(t *testing.T, r *rig) {
			r.record(session.Paused)
			r.store.setAway(true)
			r.wantGivenUp(1, 30*time.Second+2*wake.DefaultEnterTries) // it is tried in vain before each wake
		})
	})
}

// wantGivenUp forwards requests, each of which is to be told to come again within
// the time given.
func (r *rig) wantGivenUp(requests int, within time.Duration) {
	r.t.Helper()
	r.host.set(func(h *host) { h.takes = 50 * time.Millisecond })
	began := time.Now()
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			err := r.forward(r.t.Context())
			var notYet *wake.NotYetError
			if took := time.Since(began); !errors.As(err, &notYet) || took > within+time.Second {
				r.t.Errorf("it ended after %s with %v, want a NotYetError within %s", took, err, within)
				return
			}
			if notYet.RetryAfter < time.Second || notYet.Cause == nil {
				r.t.Errorf("it is told to come again after %s: %v", notYet.RetryAfter, notYet)
			}
		})
	}
	all.Wait()
	if got := r.host.connects.Load(); got == 0 || got > 9 {
		r.t.Errorf("%d connect calls within %s, want each after a longer rest", got, time.Since(began))
	}
}

func TestContradiction_isLeftAloneForAnHour(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		contradictions["one host runs it, another is asked"](r)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		requests := 0
		for ctx.Err() == nil { // somebody who does as Retry-After says
			err := r.forward(ctx)
			requests++
			if notYet, ok := errors.AsType[*wake.NotYetError](err); ok {
				time.Sleep(notYet.RetryAfter)
			}
		}
		if got := r.host.connects.Load(); got > 200 {
			t.Errorf("%d connect calls in an hour of %d requests, want one in half a minute", got, requests)
		}
	})
}

// Somebody else pauses it whenever a request has been served: no request is kept
// waiting for that.
func TestContradiction_isNoneWhereItWasAwake(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		for range 20 {
			time.Sleep(11 * time.Second)
			began := time.Now()
			r.wantEntered(wake.Cause{Suspect: r.store.Get(id).Revision})
			if took := time.Since(began); took > 0 {
				t.Fatalf("a request waited %s for its wake", took)
			}
		}
		r.wantConnects(20)
	})
}

func TestGone_isForgottenAfterAGoodRun(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		known := session.New(id, "h", session.Paused, "known", time.Now())
		r.host.set(func(h *host) { h.fails, h.found = wake.ErrGone, &known })
		if err := r.ensure(new(visit), wake.Cause{Hold: time.Millisecond}); err == nil {
			t.Fatal("it was woken at a host that knows no such sandbox")
		}
		if s := r.store.Get(id); s.Failures(session.OpResume) != 1 {
			t.Errorf("the record has %+v for the resume that failed", s.LastError)
		}
		r.host.set(func(h *host) { h.fails = nil })
		r.wantEntered(wake.Cause{})
		if s := r.store.Get(id); s.LastError != nil {
			t.Errorf("it runs, and the record still has %+v", s.LastError)
		}
	})
}
