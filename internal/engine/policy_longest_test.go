package engine_test

import (
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/session"
)

// wantPauseAt wants the time of the next pause to be told as the given one after
// the last use, and a pause by nobody before it.
func (n *node) wantPauseAt(id string, idle time.Duration) {
	n.w.t.Helper()
	n.eventually("the time of its next pause is told", func() bool { return n.show(id).PauseAt != nil })
	sb := n.show(id)
	if got := sb.PauseAt.Sub(*sb.LastActivity); got < idle-time.Second || got > idle+lateness {
		n.w.t.Errorf("it is told to be paused %s after its last use, want after %s", got, idle)
	}
}

// wantPausedWithin wants a pause by the idle timeout within the span and what a
// busy machine takes.
func (n *node) wantPausedWithin(id string, since time.Time, idle time.Duration) {
	n.w.t.Helper()
	n.await(id, session.Paused)
	if took := time.Since(since); took > idle+lateness {
		n.w.t.Errorf("it was paused after %s, want after %s", took, idle)
	}
	if sb := n.show(id); sb.Reason != "idle for "+idle.String() {
		n.w.t.Errorf("it was paused because: %q, want the idle timeout that holds: %s", sb.Reason, idle)
	}
}

// TestLongest_holdsForTheSandboxesOwn sets a project's longest idle timeout,
// through the process that does not lead, below what a sandbox says itself.
func TestLongest_holdsForTheSandboxesOwn(t *testing.T) {
	t.Parallel()
	const longest = 2 * time.Second
	w := newWorldApart(t)
	hour := func(c *engine.Config) { c.IdleTimeout = time.Hour }
	leads, other := w.start(hour), w.start(hour)
	id, elsewhere := leads.createOf("alice", "web"), leads.createOf("alice", "db")
	for _, of := range []string{id, elsewhere} {
		leads.setIdle(of, 50*time.Minute)
		leads.wantPauseAt(of, 50*time.Minute)
	}
	other.await(id, session.Running)

	other.setPolicy(session.ScopeProject, "web", session.Policy{MaxIdleTimeout: session.Duration(longest)})
	leads.wantPausedWithin(id, time.Now(), longest)
	other.request(id).end()
	leads.eventually("it is paused again", func() bool { return len(w.made(id, "pause")) == 2 && leads.State(id) == session.Paused })
	if s := leads.State(elsewhere); s != session.Running {
		t.Errorf("one of another project is %s", s)
	}

	if err := other.DeletePolicy(t.Context(), session.ScopeProject, "web", 0); err != nil {
		t.Fatal(err)
	}
	other.request(id).end()
	leads.await(id, session.Running)
	leads.wantPauseAt(id, 50*time.Minute)
	pauses := len(w.made(id, "pause"))
	time.Sleep(2 * longest) // a pause that must not come has no event
	if n := len(w.made(id, "pause")); n != pauses || leads.State(id) != session.Running {
		t.Errorf("%d pause calls after the longest one was lifted, want none", n-pauses)
	}
}

// TestLongest_ofTheOperator lowers the limits of a configuration, at a start and
// while the engine leads.
func TestLongest_ofTheOperator(t *testing.T) {
	t.Parallel()
	const longest = 2 * time.Second
	lowered := session.Limits{MaxIdleTimeout: longest}
	for name, lower := range map[string]func(n *node) *node{
		"at a start": func(n *node) *node {
			n.close()
			return n.w.start(func(c *engine.Config) { c.IdleTimeout, c.Limits = longest, lowered })
		},
		"while it leads": func(n *node) *node {
			n.SetDefaults(time.Hour, lowered)
			return n
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newWorldApart(t).start(func(c *engine.Config) { c.IdleTimeout = time.Hour })
			id := n.create()
			n.setIdle(id, 50*time.Minute)
			n.wantPauseAt(id, 50*time.Minute)
			n = lower(n)
			n.wantPausedWithin(id, time.Now(), longest)
		})
	}
}
