package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
	"github.com/sandman-proxy/sandman/internal/wake"
)

func TestForeignPause_wakesForTheNextRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	id := n.create()
	if err := w.direct.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if n.State(id) != session.Running {
		t.Fatalf("the record is %s, want RUNNING: nobody has told it", n.State(id))
	}
	_, rev, err := n.Route(e2b.Target{SandboxID: id, Port: 8080})
	if !errors.Is(err, engine.ErrAsleep) || rev != n.Revision(id) {
		t.Fatalf("Route: %v under revision %d, want ErrAsleep under %d", err, rev, n.Revision(id))
	}
	r, err := n.try(t.Context(), id, wake.Cause{Reason: "request: GET /", Suspect: rev})
	if err != nil {
		t.Fatalf("a request that met it paused: %v, want it served", err)
	}
	defer r.end()
	w.wantAtHost("while it is served", id, e2b.StateRunning)
	if n := len(w.made(id, "connect")); n != 1 {
		t.Errorf("%d connect calls, want 1", n)
	}
}

// On a host that keeps connections the thawed process answers: nobody sends the
// request again.
func TestForeignPause_underARequestInFlightIsUndone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	id := n.create()
	r := n.request(id)
	defer r.end()
	if err := w.direct.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n.eventually("the sandbox was woken for the request in flight", func() bool {
		sb, err := w.direct.Get(t.Context(), id)
		return err == nil && sb.State == e2b.StateRunning
	})
}

func TestForeignKill_isToldAndUndoneNever(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	id := n.sleeping()
	if err := w.direct.Kill(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_, err := n.try(t.Context(), id, wake.Cause{Reason: "request: GET /"})
	if !errors.Is(err, wake.ErrKilled) {
		t.Errorf("a request for a sandbox that was killed: %v, want ErrKilled", err)
	}
	n.await(id, session.Killed)
	if _, _, err := n.Pause(t.Context(), id, api.PauseOptions{}); !errors.Is(err, api.ErrKilled) {
		t.Errorf("Pause of a killed one: %v, want ErrKilled", err)
	}
}

func TestUnknown_isAdoptedOrDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	timeout := int32(600)
	sb, err := w.direct.Create(t.Context(), e2b.NewSandbox{TemplateID: "base", Timeout: &timeout})
	if err != nil {
		t.Fatal(err)
	}
	n.request(sb.SandboxID).end()
	if _, err := n.try(t.Context(), "inosuchsandboxatall00", wake.Cause{}); !errors.Is(err, wake.ErrUnknown) {
		t.Errorf("a request for an ID that no host knows: %v, want ErrUnknown", err)
	}
}

// presence tells whether a node's presence stands in etcd, and since which
// revision.
func (n *node) presence(id string) int64 {
	n.w.t.Helper()
	resp, err := n.w.etcd.Get(n.w.t.Context(), n.w.prefix+"presence/"+id+"/"+n.Node())
	if err != nil {
		n.w.t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return 0
	}
	return resp.Kvs[0].ModRevision
}

// lapse ends the node's lease as etcd does when no keep-alive comes.
func (n *node) lapse() {
	t := n.w.t
	t.Helper()
	resp, err := n.w.etcd.Get(t.Context(), n.w.prefix+"nodes/"+n.Node())
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("looking for the node's lease: %v", err)
	}
	leases, err := n.w.etcd.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases.Leases {
		if int64(l.ID) == resp.Kvs[0].Lease {
			if _, err := n.w.etcd.Revoke(t.Context(), l.ID); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the node's lease is not among etcd's")
}

func TestLapse_underARequestIsEnteredAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leader := w.start(nil)
	n := w.start(nil)
	id := n.create()
	leader.await(id, session.Running)
	r := n.request(id)
	before := n.presence(id)
	n.lapse()
	n.eventually("presence is back in etcd", func() bool { p := n.presence(id); return p != 0 && p != before })
	time.Sleep(idle + time.Second) // a request in flight has no event
	if calls := len(w.made(id, "pause")); calls != 0 {
		t.Errorf("%d pause calls while a request is in flight, want none", calls)
	}
	r.end()
	n.await(id, session.Paused)
}

// Without a lease there is no right to work under: no op may begin, and end, and
// begin again until there is one.
func TestLapse_beforeAWakeIsWaitedOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	id := n.sleeping()
	for range 2 {
		n.lapse()
		n.request(id).end()
		n.pause(id, false)
		n.eventually("the node has a lease", func() bool {
			resp, err := w.etcd.Get(t.Context(), w.prefix+"nodes/"+n.Node())
			return err == nil && len(resp.Kvs) == 1
		})
	}
	sb, err := n.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := n.History(t.Context(), id, api.HistoryQuery{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	// each round is 2 transitions of a wake, 3 of a pause, and few that failed
	if sb.Totals.Wakes != 2 || len(lines) > 30 {
		t.Errorf("%d wakes in %d transitions, want 2 in at most 30", sb.Totals.Wakes, len(lines))
	}
}

func TestClose_handsTheLeadershipOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.start(nil)
	first.eventually("the first one leads", func() bool { return first.Status(t.Context()).Leader.Me })
	second := w.start(nil)
	id := first.create()
	second.await(id, session.Running)
	began := time.Now()
	first.close()
	if took := time.Since(began); took > lateness {
		t.Errorf("Close took %s with nothing under way, want at most %s", took, lateness)
	}
	second.await(id, session.Paused)
	w.wantAtHost("idle", id, e2b.StatePaused)
}

func TestClose_takesPresenceBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	id := n.create()
	began := time.Now()
	n.request(id).end()
	if n.presence(id) == 0 && time.Since(began) < session.Linger(idle) {
		t.Fatal("no presence right after a request, want it to linger")
	}
	n.close()
	if n.presence(id) != 0 {
		t.Error("presence after Close, want none")
	}
}

// A process may end while a host pauses: others settle what it has left.
func TestClose_whileAPauseIsUnderWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.start(nil), w.start(nil)
	id := first.create()
	second.await(id, session.Running)
	w.host.SetFaults(sandboxd.Faults{PauseDelay: 2 * time.Second})
	began := make(chan struct{})
	w.setGate(func(kind, _ string) {
		if kind == "pause" {
			close(began)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _, _, _ = first.Pause(ctx, id, api.PauseOptions{By: "test"}) }()
	<-began
	w.setGate(func(string, string) {})
	first.close()
	second.await(id, session.Paused)
	w.wantAtHost("the pause was under way", id, e2b.StatePaused)
	second.request(id).end()
}

func TestStoreAway_servesWhatItKnowsAndPausesNothing(t *testing.T) {
	t.Parallel()
	own, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	w := newWorldOn(t, own.Client())
	n := w.start(nil)
	running, asleep := n.create(), n.sleeping()
	if err := own.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, id string }{{"running", running}, {"asleep", asleep}} {
		began := time.Now()
		r := n.request(c.id)
		if took := time.Since(began); took < wake.DefaultEnterTries || took > wake.DefaultEnterTries+lateness {
			t.Errorf("%s: served after %s without the store, want after %s and soon", c.name, took, wake.DefaultEnterTries)
		}
		defer r.end()
	}
	time.Sleep(idle + time.Second)
	if calls := len(w.made(running, "pause")); calls != 0 {
		t.Errorf("%d pause calls while the store is away, want none", calls)
	}
	began := time.Now()
	n.close()
	if took := time.Since(began); took > 2*lateness {
		t.Errorf("Close took %s without the store, want at most %s", took, 2*lateness)
	}
}
