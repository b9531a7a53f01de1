package engine_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
	"github.com/sandman-proxy/sandman/internal/session"
)

// Who killed a sandbox is told, also where another process finds it gone before the
// host has answered the kill.
func TestKill_saysWhoWhoeverFindsOut(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]struct {
		do  func(n *node, id string) error
		why string
	}{
		"by hand": {func(n *node, id string) error { return n.Kill(t.Context(), id, "token ops") }, "killed by hand: token ops"},
		"through the E2B API": {func(n *node, id string) error {
			n.Killing(t.Context(), id)
			if err := n.w.api.Kill(t.Context(), id); err != nil {
				return err
			}
			return n.Killed(t.Context(), id)
		}, "killed through the E2B API"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			gone, found := make(chan string), make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				w.host.Handler().ServeHTTP(rw, r)
				if r.Method == http.MethodDelete {
					gone <- r.URL.Path
					<-found
				}
			}))
			t.Cleanup(srv.Close)
			w.api = e2b.NewClient(srv.URL, sandboxd.DefaultAPIKey, nil)
			other, n := w.start(nil), w.start(nil)
			id := n.create()
			done := make(chan error)
			go func() { done <- kill.do(n, id) }()
			<-gone
			if err := other.TimeoutSet(t.Context(), id); err != nil { // the leader asks the host
				t.Error(err)
			}
			other.await(id, session.Killed)
			close(found)
			if err := <-done; err != nil {
				t.Error(err)
			}
			lines, err := n.History(t.Context(), id, api.HistoryQuery{})
			if err != nil {
				t.Fatal(err)
			}
			var killed []string
			for _, l := range lines {
				if l.To == session.Killed {
					killed = append(killed, l.Reason)
				}
			}
			if s := n.show(id); len(killed) != 1 || killed[0] != kill.why || s.Reason != kill.why {
				t.Errorf("killed because of %q, and the history has %q; want %q", s.Reason, killed, kill.why)
			}
		})
	}
}
