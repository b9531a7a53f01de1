package engine_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// elsewhere is a host whose API is at another address.
type elsewhere struct {
	local
	api *e2b.Client
}

func (h elsewhere) API() *e2b.Client { return h.api }

// What went wrong at a host is told in words and in a kind: visitors are told the
// kind alone.
func TestFailedWake_saysOfWhatKindItIs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind   session.Failure
		answer func(w http.ResponseWriter, r *http.Request)
	}{
		{session.FailRefused, func(w http.ResponseWriter, _ *http.Request) {
			e2b.WriteError(w, http.StatusPaymentRequired, "no money")
		}},
		{session.FailBroken, func(w http.ResponseWriter, _ *http.Request) { e2b.WriteError(w, 500, "no disk") }},
		{session.FailBroken, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }},
		{session.FailUnreachable, nil},
	} {
		t.Run(string(tt.kind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			host := elsewhere{local{w}, e2b.NewClient("http://"+closedAddress(t), "", nil)}
			if tt.answer != nil {
				srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPost && r.URL.Path != "/sandboxes" {
						tt.answer(rw, r)
						return
					}
					w.host.Handler().ServeHTTP(rw, r)
				}))
				t.Cleanup(srv.Close)
				host.api = e2b.NewClient(srv.URL, "", nil)
			}
			id := newSleeping(t, w)
			n := w.start(func(c *engine.Config) { c.Hosts = []engine.Host{host} })
			n.await(id, session.Paused)
			asleep := n.Session(id)
			_, err := n.try(t.Context(), id, wake.Cause{Reason: "request: GET /", Hold: failsWithin})
			failed, ok := errors.AsType[*wake.HostError](err)
			if !ok || failed.Kind != tt.kind {
				t.Fatalf("the request ends with %v of kind %+v, want %s", err, failed, tt.kind)
			}
			s := n.Session(id)
			if s.LastError == nil || s.LastError.Kind != tt.kind || s.LastError.Message == "" {
				t.Errorf("the record has %+v", s.LastError)
			}
			if !s.Since.Equal(asleep.Since) || s.Reason != asleep.Reason {
				t.Errorf("it sleeps since %s because of %q, want %s and %q", s.Since, s.Reason, asleep.Since, asleep.Reason)
			}
		})
	}
}

// failsWithin is long enough for a first failure on a busy machine: what comes
// after it, another attempt among them, changes nothing of what is told.
const failsWithin = 5 * time.Second

// newSleeping makes a sandbox that sleeps, and is known.
func newSleeping(t *testing.T, w *world) string {
	t.Helper()
	n := w.start(nil)
	id := n.sleeping()
	n.close()
	return id
}

// closedAddress is one that nobody listens on.
func closedAddress(t *testing.T) string {
	t.Helper()
	var cfg net.ListenConfig
	l, err := cfg.Listen(context.WithoutCancel(t.Context()), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
