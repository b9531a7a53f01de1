package engine_test

import (
	"testing"

	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/session"
)

// TestRuns_areKeptForAllProxies has the leader put a sandbox to sleep and end;
// what it did is told by another one.
func TestRuns_areKeptForAllProxies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.start(nil)
	id := a.create()
	a.await(id, session.Paused)
	b := w.start(func(c *engine.Config) { c.IdleTimeout = idle })
	a.close()
	b.eventually("the pass and the sweep are told", func() bool {
		runs, err := b.LeaderRuns(t.Context())
		if err != nil {
			return false
		}
		var passed, swept bool
		for _, r := range runs {
			passed = passed || r.Kind == session.RunPass && r.Node == a.Node() && r.Paused == 1 && r.Looked >= 1
			swept = swept || r.Kind == session.RunSweep && r.Node == a.Node()
		}
		return passed && swept
	})
}
