package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// wellKnown is the part of a sandbox's address that is Sandman's own: what the
// waiting page uses. Nothing of it is forwarded, counts or wakes, but for a
// person who presses the button.
//
//	GET  …/state?after=<version>   the page's words as JSON, once they have changed
//	POST …/wake                    wakes the sandbox, and leads back
const wellKnown = "/.well-known/sandman/"

var (
	errWellKnown   = errors.New("nothing is served at this address")
	errMethod      = errors.New("this address wants another method")
	errCrossOrigin = errors.New("only a page of this address may do that")
)

func (h *Handler) serveWellKnown(w http.ResponseWriter, r *http.Request, e *runningEngine, t e2b.Target) error {
	switch name := strings.TrimPrefix(r.URL.Path, wellKnown); {
	case name == "state" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		return h.serveState(w, r, e, t)
	case name == "wake" && r.Method == http.MethodPost:
		return h.serveWake(w, r, e, t)
	case name == "state":
		w.Header().Set("Allow", "GET, HEAD")
	case name == "wake":
		w.Header().Set("Allow", "POST")
	default:
		return refuse(w, r, t, errWellKnown)
	}
	return refuse(w, r, t, errMethod)
}

// stateWait is how long the page's question waits for news. Idle connections
// are closed on many ways after half a minute.
const stateWait = 20 * time.Second

func (h *Handler) serveState(w http.ResponseWriter, r *http.Request, e *runningEngine, t e2b.Target) error {
	s := e.Session(t.SandboxID)
	switch {
	case s == nil && e.wished(t.SandboxID) == nil:
		return refuse(w, r, t, wake.ErrUnknown)
	case s != nil && s.State == session.Killed:
		return refuse(w, r, t, wake.ErrKilled)
	}
	p := e.outlook(t.SandboxID, h.policy, nil)
	if r.URL.Query().Get("after") == p.Version && p.State != session.Running {
		h.awaitNews(r, e, s, t)
		p = e.outlook(t.SandboxID, h.policy, nil)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(p)
}

// awaitNews returns when something may be new: the record has changed, or a
// wish is over.
func (h *Handler) awaitNews(r *http.Request, e *runningEngine, s *session.Snapshot, t e2b.Target) {
	ctx, cancel := untilLeaving(r.Context(), stateWait)
	defer cancel()
	if w := e.wished(t.SandboxID); w != nil {
		defer context.AfterFunc(w.over, cancel)()
	}
	var rev int64
	if s != nil {
		rev = s.Revision
	}
	e.AwaitChange(ctx, t.SandboxID, rev)
}

// untilLeaving gives a context that ends after d, or when what is held must be
// answered.
func untilLeaving(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	stop := context.AfterFunc(open.leaving, cancel)
	return ctx, func() { stop(); cancel() }
}

const (
	// begunWithin is how long the button's answer waits for the wake to begin, so
	// that what it leads to need not begin one.
	begunWithin = 2 * time.Second

	// maxForm bounds what is read of the button's form.
	maxForm = 16 << 10
)

// serveWake wakes the sandbox by hand. The page that has the button is at the
// sandbox's own address; any other that sends its visitors here is turned away.
func (h *Handler) serveWake(w http.ResponseWriter, r *http.Request, e *runningEngine, t e2b.Target) error {
	if http.NewCrossOriginProtection().Check(r) != nil || r.Header.Get("Origin") == "null" {
		return refuse(w, r, t, errCrossOrigin)
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	back := localPath(r.PostFormValue("back"))
	cause := wake.Cause{Reason: "by hand: the waiting page", Kind: "request", Hold: holdOf(t)}
	if err := e.begin(r, t.SandboxID, cause); err != nil {
		return refuse(w, r, t, err)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", back)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// begin returns when the wake is under way. Its error is one that no waiting
// mends.
func (e *runningEngine) begin(r *http.Request, id string, cause wake.Cause) error {
	if e.State(id) == session.Running {
		return nil
	}
	w, _ := e.wish(r.Context(), id, cause)
	ctx, cancel := untilLeaving(r.Context(), begunWithin)
	defer cancel()
	defer context.AfterFunc(w.over, cancel)()
	e.AwaitState(ctx, id, session.Resuming, session.Running)
	select {
	case <-w.over.Done():
		if isGone(w.err) {
			return w.err
		}
	default:
	}
	return nil // what else went wrong the page says
}

func isGone(err error) bool {
	return errors.Is(err, wake.ErrUnknown) || errors.Is(err, wake.ErrKilled) || errors.Is(err, wake.ErrGone)
}

// localPath gives the path of this address that a form names; "/" for anything
// that leads elsewhere.
func localPath(s string) string {
	if !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || strings.ContainsAny(s, "\\\r\n\t") || strings.HasPrefix(s, wellKnown) {
		return "/"
	}
	return s
}
