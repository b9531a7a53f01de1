package engine_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// elsewhere makes an engine work on another store than the world's others.
func (w *world) elsewhere(c *engine.Config) {
	c.Prefix = strings.TrimSuffix(w.prefix, "/") + "-elsewhere/"
}

// succession is a reload to another store: what the former engine serves keeps
// its sandbox awake at the one that leads there.
func (w *world) succession() (former, heir *node, id string) {
	w.t.Helper()
	former = w.start(nil)
	id = former.create()
	heir = w.start(w.elsewhere)
	heir.await(id, session.Running) // its first sweep has found it
	heir.Succeed(former.Engine)
	former.Retire()
	return former, heir, id
}

func TestSucceed_whatTheFormerServesStaysAwake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	former, heir, id := w.succession()
	r := former.request(id)
	time.Sleep(2*idle + time.Second) // a world where it is not so pauses it, and serve finds that
	if n := len(w.made(id, "pause")); n != 0 {
		t.Fatalf("%d pause calls while the former engine serves a request, want none", n)
	}
	ended := time.Now()
	r.end()
	heir.await(id, session.Paused)
	if quiet := w.made(id, "pause")[0].began.Sub(ended); quiet < idle {
		t.Errorf("paused %s after the former engine's request, want at least %s", quiet, idle)
	}
}

// What the heir has paused is awake for the heir, too, before the former engine
// serves it again: else its next deadline would come under the request.
func TestSucceed_aRequestAtTheFormerWakesForTheHeir(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	former, heir, id := w.succession()
	heir.pause(id, false)
	r := former.request(id)
	heir.await(id, session.Running)
	w.wantAtHost("served by the former engine", id, e2b.StateRunning)
	r.end()
	heir.await(id, session.Paused)
}

// An engine that was succeeded works on alone when its heir's configuration is
// replaced in turn, or never came to be.
func TestSucceed_endsWithTheHeir(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	former, heir, id := w.succession()
	former.request(id).end()
	heir.Retire()
	heir.close()
	r, err := former.try(t.Context(), id, wake.Cause{Reason: "request: GET /", Kind: "request"})
	if err != nil {
		t.Fatalf("served without its heir: %v", err)
	}
	r.end()
}
