package engine_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// pause pauses by hand, and fails the test where that fails.
func (n *node) pause(id string, force bool) {
	n.w.t.Helper()
	sb, changed, err := n.Pause(n.w.t.Context(), id, api.PauseOptions{By: "test", Force: force})
	if err != nil || !changed || sb.State != session.Paused {
		n.w.t.Errorf("Pause: %s, changed %t, %v; want PAUSED, true, nil", sb.State, changed, err)
	}
	n.w.wantAtHost("paused by hand", id, e2b.StatePaused)
}

func (n *node) setIdle(id string, d time.Duration) {
	n.w.t.Helper()
	p := api.Patch{IdleTimeout: api.Optional[session.Duration]{Set: true, Value: session.Duration(d)}}
	if _, err := n.Update(n.w.t.Context(), id, p, 0); err != nil {
		n.w.t.Fatal(err)
	}
}

func TestIdle_pausesAtTheTimeoutAndNeverBefore(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{2 * time.Second, 3 * time.Second, 5 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			n := w.start(nil)
			id := n.create()
			n.setIdle(id, timeout)
			var ended time.Time
			for range 3 { // requests that last, with silence between them
				r := n.request(id)
				time.Sleep(timeout / 2)
				ended = time.Now()
				r.end()
				time.Sleep(timeout / 3)
			}
			n.await(id, session.Paused)
			w.wantAtHost("idle", id, e2b.StatePaused)
			calls := w.made(id, "pause")
			if len(calls) != 1 {
				t.Fatalf("%d pause calls, want 1", len(calls))
			}
			idle := calls[0].began.Sub(ended)
			t.Logf("paused %s after the deadline", idle-timeout)
			if idle < timeout || idle > timeout+lateness {
				t.Errorf("paused %s after the last request's end, want from %s to %s", idle, timeout, timeout+lateness)
			}
		})
	}
}

func TestIdle_longRequestKeepsItAwake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(func(c *engine.Config) { c.IdleTimeout = 2 * time.Second })
	id := n.create()
	r := n.request(id) // its answer does not begin
	time.Sleep(5 * time.Second)
	if n := len(w.made(id, "pause")); n != 0 {
		t.Errorf("%d pause calls while a request waits for its answer, want none", n)
	}
	r.Answer()
	for range 20 { // a byte each quarter second
		time.Sleep(250 * time.Millisecond)
		r.Bump()
	}
	if n := len(w.made(id, "pause")); n != 0 {
		t.Errorf("%d pause calls while an answer moves, want none", n)
	}
	r.end()
	n.await(id, session.Paused)
}

// A request that comes at any moment of a pause is served by the sandbox.
func TestRequest_duringEachPhaseOfAPause(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"", "pause_delay=1s", "late_pause=1s", "resume_delay=500ms", "pause_fail", "pause_fail_after", "conflict"} {
		t.Run("fault "+fault, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			n := w.start(nil)
			faults, err := sandboxd.ParseFaults(fault)
			if err != nil {
				t.Fatal(err)
			}
			w.host.SetFaults(faults)
			for _, offset := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 300 * time.Millisecond, 1010 * time.Millisecond} {
				id := n.create()
				arrived := make(chan struct{})
				var once sync.Once
				w.setGate(func(kind, _ string) {
					if kind == "pause" {
						once.Do(func() { close(arrived) })
					}
				})
				done := make(chan error, 1)
				go func() {
					_, _, err := n.Pause(t.Context(), id, api.PauseOptions{By: "test"})
					done <- err
				}()
				<-arrived
				time.Sleep(offset) // the moment is what is tested
				n.request(id).end()
				var inUse *api.InUseError
				if err := <-done; err != nil && fault == "" && !errors.As(err, &inUse) {
					t.Errorf("Pause under a request %s after its call: %v", offset, err)
				}
			}
		})
	}
}

func TestStampede_makesOneConnect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := []*node{w.start(nil), w.start(nil)}
	id := nodes[0].sleeping()
	nodes[1].await(id, session.Paused)
	w.host.SetFaults(sandboxd.Faults{ResumeDelay: 300 * time.Millisecond})
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			r, err := nodes[i%2].try(t.Context(), id, wake.Cause{Reason: "request: GET /"})
			if err != nil {
				t.Errorf("request %d: %v, want it served", i, err)
				return
			}
			r.end()
		})
	}
	all.Wait()
	w.wantAtHost("after the stampede", id, e2b.StateRunning)
	if n := len(w.made(id, "connect")); n != 1 {
		t.Errorf("%d connect calls for 200 requests through two proxies, want 1", n)
	}
}

func TestHand_refusedWhileInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := []*node{w.start(nil), w.start(nil)}
	id := nodes[0].create()
	nodes[1].await(id, session.Running)
	for i, server := range nodes {
		t.Run(fmt.Sprintf("through proxy %d", i), func(t *testing.T) {
			r := server.request(id)
			defer r.end()
			_, _, err := nodes[0].Pause(t.Context(), id, api.PauseOptions{By: "test"})
			var inUse *api.InUseError
			if !errors.As(err, &inUse) || len(inUse.What) == 0 {
				t.Fatalf("Pause while a request is in flight: %v, want an InUseError that says what", err)
			}
			server.await(id, session.Running)
			w.wantAtHost("refused", id, e2b.StateRunning)
			if n := len(w.made(id, "pause")); n != 0 {
				t.Errorf("%d pause calls, want none", n)
			}
		})
	}
	nodes[1].pause(id, false) // nothing is in flight any more
}

func TestHand_forcedCutsRequestsThroughEveryProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := []*node{w.start(nil), w.start(nil)}
	id := nodes[0].create()
	nodes[1].await(id, session.Running)
	for _, n := range nodes {
		r := n.request(id)
		r.OnCut(func() { go r.end() })
		stream := n.request(id)
		stream.Stream("websocket")
		w.serving(id, -1) // a stream does not stop a person
		defer stream.End()
	}
	nodes[0].pause(id, true)
	nodes[1].request(id).end() // and wakes again
}

func TestHand_pausesAtOnceAfterAStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	id := n.create()
	r := n.request(id)
	r.Stream("websocket")
	r.Bump()
	w.serving(id, -1)
	began := time.Now()
	n.pause(id, false)
	if took := time.Since(began); took > lateness {
		t.Errorf("a pause by hand took %s beside an open stream, want no waiting for it", took)
	}
	if r.Bump() {
		t.Error("Bump of a stream whose sandbox was paused: true, want false, so that its message wakes first")
	}
	if err := n.Ensure(t.Context(), id, r.Visit, wake.Cause{Reason: "message"}); err != nil {
		t.Errorf("the stream's next message: %v, want the sandbox woken", err)
	}
	w.wantAtHost("a message came", id, e2b.StateRunning)
	r.End()
}

func TestHand_manyCallersMakeOneCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	id := n.create()
	w.host.SetFaults(sandboxd.Faults{PauseDelay: 300 * time.Millisecond})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { n.pause(id, false) })
	}
	all.Wait()
	if n := len(w.made(id, "pause")); n != 1 {
		t.Errorf("%d pause calls for 20 callers, want 1", n)
	}
	if _, changed, err := n.Pause(t.Context(), id, api.PauseOptions{}); changed || err != nil {
		t.Errorf("Pause of a paused one: changed %t, %v; want false, nil", changed, err)
	}
}
