package pauser_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
)

// runsOf gives the runs of a kind that were told so far.
func (r *rig) runsOf(kind session.RunKind) []session.Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.ran), func(run session.Run) bool { return run.Kind != kind })
}

func TestRuns_whatComesDueWithinAMinuteIsOnePass(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		began := time.Now()
		for i := range 5 {
			rec := session.New(fmt.Sprint("i", i), "h", session.Running, "created", time.Now())
			rec.IdleTimeout = session.Duration(time.Duration(i+1) * 5 * time.Second)
			r.store.put(rec)
		}
		late := session.New("ilate", "h", session.Running, "created", time.Now())
		late.IdleTimeout = session.Duration(2 * time.Minute)
		r.store.put(late)
		r.lead()
		time.Sleep(time.Minute)
		if early := r.runsOf(session.RunPass); len(early) > 0 {
			t.Errorf("told before its minute was over: %+v", early)
		}
		time.Sleep(4 * time.Minute)
		passes := r.runsOf(session.RunPass)
		if len(passes) != 2 {
			t.Fatalf("%d passes, want 2: %+v", len(passes), passes)
		}
		first, second := passes[0], passes[1]
		if first.Looked != 5 || first.Paused != 5 || first.Failed != 0 || first.Errors == nil || first.Node != "n1" || second.Paused != 1 {
			t.Errorf("%+v", passes)
		}
		if d := first.StartedAt.Sub(began); d < 5*time.Second || d > 6*time.Second || first.DurationMs < 20_000 || first.DurationMs > 21_000 {
			t.Errorf("it began after %s and took %d ms", d, first.DurationMs)
		}
		if first.ID >= second.ID {
			t.Errorf("%q is not before %q", first.ID, second.ID)
		}
	})
}

func TestRuns_failuresNameNoSandbox(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for i := range 3 {
			r.store.put(session.New(fmt.Sprint("isecret", i), "h", session.Running, "created", time.Now()))
		}
		r.host.set(func(h *host) { h.fails = errors.New("no answer") })
		r.lead()
		time.Sleep(idle + time.Second)
		r.retire() // what there is of the minute is told
		passes := r.runsOf(session.RunPass)
		if len(passes) != 1 || passes[0].Failed != 3 || passes[0].Paused != 0 || len(passes[0].Errors) != 1 {
			t.Fatalf("%+v", passes)
		}
		if e := passes[0].Errors[0]; !strings.Contains(e, "no answer") || !strings.HasSuffix(e, "(3 times)") || strings.Contains(e, "isecret") {
			t.Errorf("%q", e)
		}
	})
}

func TestRuns_sweepsTellWhatTheyMadeOfRecords(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		listed := map[string]session.State{}
		for i, to := range []session.State{session.Paused, session.Paused, session.Running} {
			rec := session.New(fmt.Sprint("i", i), "h", session.Running, "created", time.Now())
			if to == session.Running {
				rec.State = session.Paused
			}
			r.store.put(rec)
			listed[rec.SandboxID] = to
		}
		r.list(listed)
		r.Sweep(t.Context())
		r.host.set(func(h *host) { h.lists["h"] = pauser.List{Err: errors.New("no answer")} })
		r.Sweep(t.Context())
		sweeps := r.runsOf(session.RunSweep)
		if len(sweeps) != 2 {
			t.Fatalf("%+v", sweeps)
		}
		if s := sweeps[0]; s.Looked != 3 || s.Paused != 2 || s.Resumed != 1 || s.Killed != 0 || s.Failed != 0 {
			t.Errorf("%+v", s)
		}
		if s := sweeps[1]; s.Failed != 1 || len(s.Errors) != 1 || !strings.HasPrefix(s.Errors[0], "h: listing its sandboxes") {
			t.Errorf("%+v", s)
		}
	})
}
