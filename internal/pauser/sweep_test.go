package pauser_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
)

// list makes the host h list these sandboxes.
func (r *rig) list(sandboxes map[string]session.State) {
	l := pauser.List{Sandboxes: map[string]session.Record{}}
	for id, state := range sandboxes {
		l.Sandboxes[id] = session.New(id, "h", state, "known at host h", time.Now())
	}
	r.host.set(func(h *host) { h.lists = map[string]pauser.List{"h": l} })
}

func TestSweep_takesTheHostsWord(t *testing.T) {
	for _, c := range []struct {
		record, host session.State // host "": not listed
		want         session.State
		corrected    int
	}{
		{session.Running, session.Running, session.Running, 0},
		{session.Running, session.Paused, session.Paused, 1},
		{session.Paused, session.Running, session.Running, 1},
		{session.Killed, session.Paused, session.Paused, 1},
		{session.Killed, "", session.Killed, 0},
		{session.Pausing, session.Running, session.Pausing, 0},
		{session.Resuming, session.Paused, session.Resuming, 0},
	} {
		t.Run(fmt.Sprintf("%s, listed as %q", c.record, c.host), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.record(c.record)
				r.list(nil)
				if c.host != "" {
					r.list(map[string]session.State{id: c.host})
				}
				got := r.Sweep(t.Context())
				r.wantState("after the sweep", c.want)
				r.wantCalls("a sweep never pauses", 0)
				if got.Looked != 1 || got.Corrected != c.corrected || got.Failed != 0 || len(got.Errors) != 0 {
					t.Errorf("the sweep says %+v, want 1 looked at and %d corrected", got, c.corrected)
				}
			})
		})
	}
}

func TestSweep_confirmsWhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		name  string
		state session.State
		asked error
		want  session.State
	}{
		{"gone", "", pauser.ErrGone, session.Killed},
		{"there all the same", session.Running, nil, session.Running},
		{"paused", session.Paused, nil, session.Paused},
		{"no answer", "", errHost, session.Running},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.record(session.Running)
				r.list(nil)
				r.host.set(func(h *host) { h.state, h.asked = c.state, c.asked })
				r.Sweep(t.Context())
				r.wantState("after the sweep", c.want)
			})
		})
	}
}

// A wrong key lists nothing and answers 404 for everything.
func TestSweep_marksNothingWhereTooMuchIsMissing(t *testing.T) {
	for _, c := range []struct {
		name                   string
		alive, killed, missing int
		marked                 int
	}{
		{"few", 10, 0, 10, 10},
		{"too many", 11, 0, 11, 0},
		{"one in twenty", 400, 0, 20, 20},
		{"more than one in twenty", 400, 0, 21, 0},
		{"the dead don't count", 20, 1000, 20, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				listed := map[string]session.State{}
				for i := range c.alive {
					id := fmt.Sprint("sb", i)
					r.store.put(session.New(id, "h", session.Paused, "", time.Now()))
					if i >= c.missing {
						listed[id] = session.Paused
					}
				}
				for i := range c.killed {
					rec := session.New(fmt.Sprint("dead", i), "h", session.Paused, "", time.Now())
					rec.State = session.Killed
					r.store.put(rec)
				}
				r.list(listed)
				r.host.set(func(h *host) { h.asked = pauser.ErrGone })
				got := r.Sweep(t.Context())
				if got.Corrected != c.marked || (len(got.Errors) > 0) != (c.marked == 0) {
					t.Errorf("%d were marked, errors %v; want %d, and an error if none", got.Corrected, got.Errors, c.marked)
				}
			})
		})
	}
}

func TestSweep_doesNotOverwriteWhatChangedSinceTheHostWasAsked(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.list(map[string]session.State{id: session.Paused})
		r.host.set(func(h *host) {
			h.during = func() { r.record(session.Running) } // woken while it is listed
		})
		if got := r.Sweep(t.Context()); got.Corrected != 0 || got.Failed != 0 {
			t.Errorf("the sweep says %+v, want nothing corrected and nothing failed", got)
		}
		r.wantState("the answer is older than the record", session.Running)
	})
}

func TestSweep_adoptsWhatOnlyTheHostKnows(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.list(map[string]session.State{id: session.Running})
		if got := r.Sweep(t.Context()); got.Adopted != 1 {
			t.Errorf("%d were adopted, want 1", got.Adopted)
		}
		r.wantState("adopted", session.Running)
		r.lead()
		time.Sleep(idle + time.Second)
		r.wantState("adopted, and idle", session.Paused)
	})
}

func TestSweep_tellsOfAHostThatCantBeListed(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.host.set(func(h *host) {
			h.asked = pauser.ErrGone
			h.lists = map[string]pauser.List{"h": {Err: errors.New("401")}}
		})
		if got := r.Sweep(t.Context()); got.Errors["h"] == "" {
			t.Errorf("the sweep says %+v, want an error of host h", got)
		}
		r.wantState("no list", session.Running)
		if got := r.LastSweep(); got.Errors["h"] == "" {
			t.Errorf("the last sweep is %+v, want the one with the error", got)
		}
	})
}

func TestSweep_forgetsTheKilledAfterThirtyDays(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Killed)
		r.list(nil)
		time.Sleep(pauser.DefaultKeepKilled - time.Hour)
		r.Sweep(t.Context())
		r.wantState("a day before", session.Killed)
		time.Sleep(2 * time.Hour)
		r.Sweep(t.Context())
		r.wantState("after 30 days", "")
	})
}

func TestLead_sweepsEveryCheckEvery(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Paused)
		r.list(map[string]session.State{id: session.Paused})
		r.lead()
		time.Sleep(2 * time.Second)
		first := r.LastSweep()
		if first.At.IsZero() {
			t.Fatal("no sweep at the beginning of a term, want one")
		}
		time.Sleep(pauser.DefaultCheckEvery)
		if next := r.LastSweep(); next.At.Sub(first.At) < pauser.DefaultCheckEvery-time.Second || next.At.Equal(first.At) {
			t.Errorf("the next sweep was %s after the first, want %s", next.At.Sub(first.At), pauser.DefaultCheckEvery)
		}
	})
}

func TestSweep_endsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.list(map[string]session.State{id: session.Paused})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r.Sweep(ctx)
		r.wantState("the leadership has ended", session.Running)
	})
}
