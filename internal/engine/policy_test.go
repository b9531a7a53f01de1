package engine_test

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// newWorldApart is a world whose policies and usage no other run of the test
// knows of.
func newWorldApart(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.prefix += rand.Text() + "/"
	return w
}

// createOf makes a sandbox of this owner and project.
func (n *node) createOf(owner, project string) string {
	n.w.t.Helper()
	sb, err := n.Create(n.w.t.Context(), e2b.NewSandbox{TemplateID: "base", Metadata: map[string]string{"userId": owner, "projectId": project}}, "")
	if err != nil {
		n.w.t.Fatal(err)
	}
	return sb.SandboxID
}

func (n *node) setPolicy(scope session.Scope, name string, p session.Policy) {
	n.w.t.Helper()
	p.UpdatedBy = "token ops"
	if _, err := n.SetPolicy(n.w.t.Context(), scope, name, p); err != nil {
		n.w.t.Fatal(err)
	}
}

func (n *node) show(id string) api.Sandbox {
	n.w.t.Helper()
	sb, err := n.Get(n.w.t.Context(), id)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return sb
}

// TestPolicy_holdsAtOnce sets policies through the process that does not lead,
// for sandboxes that run already.
func TestPolicy_holdsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorldApart(t)
	leads, other := w.start(func(c *engine.Config) { c.IdleTimeout = time.Hour }), w.start(func(c *engine.Config) { c.IdleTimeout = time.Hour })
	shorter, own, stays := leads.createOf("alice", "web"), leads.createOf("alice", "web"), leads.createOf("bob", "db")
	leads.setIdle(own, 50*time.Minute)
	other.await(stays, session.Running)

	other.setPolicy(session.ScopeOwner, "alice", session.Policy{IdleTimeout: session.Duration(40 * time.Minute)})
	leads.eventually("the owner's word holds", func() bool {
		sb := leads.show(shorter)
		return sb.IdleTimeoutFrom == session.FromOwner && time.Duration(sb.IdleTimeout) == 40*time.Minute
	})
	if sb := leads.show(own); sb.IdleTimeoutFrom != session.FromSandbox || time.Duration(sb.IdleTimeout) != 50*time.Minute {
		t.Errorf("one with its own goes by %s from %s", sb.IdleTimeout, sb.IdleTimeoutFrom)
	}
	set := time.Now()
	other.setPolicy(session.ScopeProject, "web", session.Policy{IdleTimeout: session.Duration(idle), WakePolicy: "manual"})
	leads.await(shorter, session.Paused)
	if took := time.Since(set); took > idle+lateness {
		t.Errorf("it was paused %s after the policy was set, want within %s", took, idle)
	}
	for _, id := range []string{own, stays} {
		if s := leads.State(id); s != session.Running {
			t.Errorf("a sandbox for which it does not hold is %s", s)
		}
	}
	why := leads.why(shorter)
	wantWords(t, why, "It is paused 3s after its last use (set for its project by token ops at ")
	wantWords(t, why, "It is woken by hand only (manual, set for its project by token ops at ")
	wantWords(t, why, "No request wakes it")
	if s := why.Settings[0]; s.Source != api.SetByProject || s.By == nil || *s.By != "token ops" || s.At == nil || s.At.Before(set.Add(-time.Second)) {
		t.Errorf("%+v", s)
	}

	// what may wake it is asked of the policy, too
	program := wake.Cause{Reason: "request", Kind: "request", May: wake.Policy{}.For(wake.Program)}
	var refused *wake.RefusedError
	if _, err := other.try(t.Context(), shorter, program); !errors.As(err, &refused) || refused.Code != wake.CodeManual {
		t.Errorf("a request to one that is to be woken by hand: %v", err)
	}
	if err := other.DeletePolicy(t.Context(), session.ScopeProject, "web", 0); err != nil {
		t.Fatal(err)
	}
	r, err := other.try(t.Context(), shorter, program)
	if err != nil {
		t.Fatal(err)
	}
	r.end()
	if sb := other.show(shorter); sb.IdleTimeoutFrom != session.FromOwner || sb.WakePolicyFrom != session.FromSite {
		t.Errorf("without the project's policy it goes by %s and %s", sb.IdleTimeoutFrom, sb.WakePolicyFrom)
	}
}

// TestPolicy_noPauseAfterALongerOne sets longer ones right around the deadline,
// through the process that does not lead: whichever of the two comes first in
// the store, no pause comes after the policy.
func TestPolicy_noPauseAfterALongerOne(t *testing.T) {
	t.Parallel()
	w := newWorldApart(t)
	leads, other := w.start(nil), w.start(nil)
	for _, before := range []time.Duration{30 * time.Millisecond, 5 * time.Millisecond, 0} {
		id := leads.createOf("alice", "")
		other.await(id, session.Running)
		var at *time.Time
		leads.eventually("the deadline is told", func() bool { at = leads.show(id).PauseAt; return at != nil })
		time.Sleep(time.Until(*at) - before) // the deadline is the event
		policy, err := other.SetPolicy(t.Context(), session.ScopeOwner, "alice", session.Policy{IdleTimeout: session.Duration(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond) // what is wrong would come now
		lines, err := leads.History(t.Context(), id, api.HistoryQuery{Limit: 10, To: []session.State{session.Pausing}})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			if l.Revision > policy.Revision {
				t.Errorf("%s before the deadline: paused after the policy was set: %+v", before, l)
			}
		}
		if err := other.DeletePolicy(t.Context(), session.ScopeOwner, "alice", 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPolicy_limits(t *testing.T) {
	t.Parallel()
	w := newWorldApart(t)
	n := w.start(func(c *engine.Config) {
		c.IdleTimeout = 10 * time.Minute
		c.Limits = session.Limits{MinIdleTimeout: time.Minute, MaxIdleTimeout: time.Hour}
	})
	id := n.createOf("alice", "web")
	ctx := t.Context()
	patch := func(d time.Duration) error {
		_, err := n.Update(ctx, id, api.Patch{By: "token ann", IdleTimeout: api.Optional[session.Duration]{Set: true, Value: session.Duration(d)}}, 0)
		return err
	}
	var limit *api.LimitError
	for _, d := range []time.Duration{30 * time.Second, 2 * time.Hour} {
		if err := patch(d); !errors.As(err, &limit) || limit.Error() != d.String()+" is beyond the operator's limits: want 1m0s to 1h0m0s" {
			t.Errorf("%s: %v", d, err)
		}
		if _, err := n.SetPolicy(ctx, session.ScopeOwner, "alice", session.Policy{IdleTimeout: session.Duration(d)}); !errors.As(err, &limit) {
			t.Errorf("a policy of %s: %v", d, err)
		}
	}
	if err := patch(45 * time.Minute); err != nil {
		t.Fatal(err)
	}
	n.setPolicy(session.ScopeOwner, "alice", session.Policy{MaxIdleTimeout: session.Duration(30 * time.Minute)})
	if err := patch(45 * time.Minute); !errors.As(err, &limit) || limit.Whose != session.FromOwner {
		t.Errorf("beyond the owner's limit: %v", err)
	}
	if sb := n.show(id); time.Duration(sb.IdleTimeout) != 30*time.Minute || sb.IdleTimeoutFrom != session.FromSandbox {
		t.Errorf("what was set before goes by %s from %s", sb.IdleTimeout, sb.IdleTimeoutFrom)
	}
	why := n.why(id)
	wantWords(t, why, "It is paused 30m after its last use: 45m, set for this sandbox by token ann at ", ", is beyond the limit of its owner.")
	if s := why.Settings[0]; s.Asked != "45m0s" || s.Limit != api.SetByOwner {
		t.Errorf("%+v", s)
	}
	if all, err := n.Policies(ctx); err != nil || len(all.Owners) != 1 || all.Limits.String() != "1m0s to 1h0m0s" {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestUsage_acrossRestartsAndOwners has a sandbox run, change hands and sleep,
// through processes that come and go.
func TestUsage_acrossRestartsAndOwners(t *testing.T) {
	t.Parallel()
	w := newWorldApart(t)
	first := w.start(nil)
	began := time.Now()
	id := first.createOf("alice", "web")
	first.pause(id, false)
	first.close()
	second := w.start(nil)
	resumed, _, err := second.Resume(t.Context(), id, "ops")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Update(t.Context(), id, api.Patch{Owner: api.Optional[string]{Set: true, Value: "bob"}}, 0); err != nil {
		t.Fatal(err)
	}
	second.pause(id, false)
	second.close()
	third := w.start(nil)
	used, err := third.Usage(t.Context(), session.DayOf(began), session.DayOf(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	total, sums := session.Usage{}, map[string]session.Usage{}
	for _, u := range used {
		total = total.Add(u.Usage)
		sums[u.Owner] = sums[u.Owner].Add(u.Usage)
	}
	if all := time.Duration(total.RunningMs+total.PausedMs) * time.Millisecond; all > time.Since(began) || all < time.Since(resumed.CreatedAt)-time.Second {
		t.Errorf("%s are counted, of %s", all, time.Since(began))
	}
	a, b := sums["alice"], sums["bob"]
	if a.RunningMs == 0 || a.PausedMs == 0 || b.RunningMs == 0 || len(sums) != 2 {
		t.Errorf("alice used %+v, bob %+v, of %d owners", a, b, len(sums))
	}
	totals := third.show(id).Totals
	if diff := total.RunningMs - totals.RunningMs; diff < -20 || diff > 20 { // each step of the totals is cut to milliseconds
		t.Errorf("running %d ms, the record says %d", total.RunningMs, totals.RunningMs)
	}
}

// What a token that is bound to an owner makes is this owner's, whatever its metadata say, and what is
// another's is not there for it.
func TestCreate_isTheOwnersWhoAsks(t *testing.T) {
	t.Parallel()
	n := newWorldApart(t).start(nil)
	asked := map[string]string{"userId": "bob", "projectId": "web"}
	sb, err := n.Create(t.Context(), e2b.NewSandbox{TemplateID: "base", Metadata: asked}, "alice")
	if err != nil || sb.Owner != "alice" || sb.Project != "web" || sb.Metadata["userId"] != "alice" {
		t.Errorf("made %+v, %v", sb.Record, err)
	}
	if asked["userId"] != "bob" {
		t.Error("the caller's own map was changed")
	}
	killed := n.createOf("bob", "db")
	if err := n.Kill(t.Context(), killed, "token ops"); err != nil {
		t.Fatal(err)
	}
	if sb := n.show(killed); sb.State != session.Killed || sb.Reason != "killed by hand: token ops" {
		t.Errorf("killed, it is %s: %s", sb.State, sb.Reason)
	}
	if _, _, err := n.Register(t.Context(), killed, "alice"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("registering what was bob's: %v", err)
	}
}
