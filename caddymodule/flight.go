package caddymodule

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sandman-proxy/sandman/internal/activity"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// flight is one request on its way to a sandbox.
type flight struct {
	gate     *Handler
	engine   *runningEngine
	target   e2b.Target
	visit    *activity.Visit
	writer   http.ResponseWriter
	arrived  *http.Request // as the gate got it
	state    session.State // when it came
	held     time.Duration // set before it is forwarded
	counting *counting
	conn     net.Conn // an upgrade's to the sandbox, nil before there is one
	probes   bool     // neither counts nor wakes
	noise    string   // by which rule or preset, "" if it is none
	reopens  bool     // it opens again what was open at the pause, though it is no handshake
}

// flightVar is the request variable under which the transport finds the
// flight.
const flightVar = "sandman.flight"

// serve keeps the sandbox running for as long as the request takes.
func (f *flight) serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	defer f.visit.End()
	// most requests meet a sandbox that runs and is in use
	if !f.visit.Try() {
		began := time.Now()
		if err := f.wake(r.Context()); err != nil {
			return f.refuse(w, r, err)
		}
		f.held = time.Since(began)
	}
	f.log(r)
	caddyhttp.SetVar(r.Context(), flightVar, f)
	return next.ServeHTTP(w, r)
}

// cuttable gives the context in which the request is sent: a pause that is
// forced ends it, with errCut as the cause. It goes with the request's own.
func (f *flight) cuttable(ctx context.Context, body bool) context.Context {
	ctx, cut := context.WithCancelCause(ctx)
	f.visit.OnCut(func() {
		cut(errCut)
		// a transport that waits for the rest of a body waits for the visitor
		if body {
			_ = http.NewResponseController(f.writer).SetReadDeadline(time.Now())
		}
	})
	return ctx
}

// ensure holds the request until its sandbox runs, but not beyond the end of
// the process.
func (f *flight) ensure(ctx context.Context, cause wake.Cause) error {
	if cause.Suspect == 0 && f.visit.Try() {
		return nil
	}
	held, release := context.WithCancel(ctx)
	defer release()
	defer context.AfterFunc(open.leaving, release)()
	err := f.engine.Ensure(held, f.target.SandboxID, f.visit, cause)
	if err != nil && ctx.Err() == nil && held.Err() != nil {
		return errExiting
	}
	return err
}

// errExiting ends what is held when the process ends.
var errExiting = errors.New("the proxy is shutting down, and the sandbox is not awake yet; send the request again")

// errCut ends the requests of a sandbox whose pause was forced.
var errCut = errors.New("the sandbox is being paused by hand, and requests to it are ended; it wakes when this one is sent again")

// probe forwards a health check of the SDK to a sandbox that runs. It neither
// counts nor wakes: to look is not to use.
func (f *flight) probe(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	f.probes = true
	if !f.engine.Runs(r.Context(), f.target.SandboxID) {
		e2b.WriteSandboxNotFound(w, r, f.target.SandboxID)
		return nil
	}
	caddyhttp.SetVar(r.Context(), flightVar, f)
	return next.ServeHTTP(w, r)
}

func replacerOf(r *http.Request) *caddy.Replacer {
	return r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}

// placeholder is a caddy.ReplacerFunc: most requests are asked for none.
func (f *flight) placeholder(key string) (any, bool) {
	switch key {
	case "http.sandman.id":
		return f.target.SandboxID, true
	case "http.sandman.port":
		return f.target.Port, true
	case "http.sandman.state":
		return string(f.state), true
	case "http.sandman.held_ms":
		return f.held.Milliseconds(), true
	}
	return nil, false
}

// log adds to the access log, where there is one, what only the gate knows.
func (f *flight) log(r *http.Request) {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || server.Logs == nil {
		return
	}
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.String("sandbox", f.target.SandboxID))
		extra.Set(zap.Duration("held", f.held))
	}
}

// bump counts a byte. A visit that has been quiet for the idle timeout, and so
// was let go, counts again; its presence follows.
func (f *flight) bump() {
	if !f.probes && !f.visit.Bump() {
		f.visit.Force()
	}
}
