package engine_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// TestHammer_noRequestIsLostAndNoneIsPausedUnder lets 64 clients use four
// sandboxes through two proxies while two people pause them by hand, with force
// and without, and the leader pauses what is idle. The world checks the promise
// at every pause call.
func TestHammer_noRequestIsLostAndNoneIsPausedUnder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := []*node{w.start(nil), w.start(nil)}
	var ids []string
	for range 4 {
		ids = append(ids, nodes[0].create())
	}
	for _, id := range ids {
		nodes[0].setIdle(id, session.MinIdleTimeout)
		nodes[1].await(id, session.Running)
	}
	w.host.SetFaults(sandboxd.Faults{PauseDelay: 20 * time.Millisecond, PauseFailAfter: 0.1, PauseFail: 0.1, Conflict: 0.1})
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() { nodes[i%2].hammer(ctx, ids) })
	}
	for i := range 2 {
		all.Go(func() { nodes[i].pauseByHand(ctx, ids, i == 0) })
	}
	all.Wait()
	w.host.SetFaults(sandboxd.Faults{})
	for _, id := range ids {
		nodes[0].request(id).end()
	}
	for _, id := range ids {
		nodes[0].await(id, session.Paused)
		w.wantAtHost("idle in the end", id, e2b.StatePaused)
		if n := len(w.made(id, "pause")); n < 2 {
			t.Errorf("%s was paused %d times, want more: nothing was tried", id, n)
		}
	}
}

// hammer makes requests that last up to 50 ms, with up to 300 ms between them.
func (n *node) hammer(ctx context.Context, ids []string) {
	for ctx.Err() == nil {
		id := ids[rand.IntN(len(ids))]
		r, err := n.try(n.w.t.Context(), id, wake.Cause{Reason: "request: GET /"})
		if err != nil {
			n.w.t.Errorf("a request was not served: %v", err)
			return
		}
		done := make(chan struct{})
		r.OnCut(sync.OnceFunc(func() { close(done) }))
		select {
		case <-time.After(rand.N(50 * time.Millisecond)):
		case <-done: // a pause was forced
		}
		r.end()
		time.Sleep(rand.N(300 * time.Millisecond))
	}
}

func (n *node) pauseByHand(ctx context.Context, ids []string, force bool) {
	for ctx.Err() == nil {
		id := ids[rand.IntN(len(ids))]
		_, _, err := n.Pause(n.w.t.Context(), id, api.PauseOptions{By: "test", Force: force})
		var inUse *api.InUseError
		var unavailable *api.UnavailableError
		if err != nil && !errors.As(err, &inUse) && !errors.As(err, &unavailable) && !isHostError(err) {
			n.w.t.Errorf("Pause: %v, want nil, an InUseError, or the host's own error", err)
		}
		time.Sleep(rand.N(100 * time.Millisecond))
	}
}

func isHostError(err error) bool {
	var answer *e2b.Error
	return errors.As(err, &answer)
}
