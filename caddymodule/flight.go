package caddymodule

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sandman-proxy/sandman/internal/activity"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/stream"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// flight is one request on its way to a sandbox.
type flight struct {
	engine *runningEngine
	target e2b.Target
	visit  *activity.Visit
	cause  wake.Cause
	probes bool // neither counts nor wakes
}

// flightVar is the request variable under which the transport finds the
// flight.
const flightVar = "sandman.flight"

// serve keeps the sandbox running for as long as the request takes.
func (f *flight) serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	defer f.visit.End()
	began := time.Now()
	if err := f.ensure(r.Context(), f.cause); err != nil {
		return refuse(w, r, f.target, err)
	}
	f.log(r, time.Since(began))
	// a pause that is forced ends the request
	ctx, cut := context.WithCancelCause(r.Context())
	defer cut(nil)
	f.visit.OnCut(func() {
		cut(errCut)
		// a transport that waits for the rest of a body waits for the visitor
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now())
		}
	})
	caddyhttp.SetVar(ctx, flightVar, f)
	return next.ServeHTTP(w, r.WithContext(ctx))
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

func (f *flight) describe(r *http.Request) {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Set("http.sandman.id", f.target.SandboxID)
	repl.Set("http.sandman.port", f.target.Port)
	repl.Set("http.sandman.state", string(f.engine.State(f.target.SandboxID)))
}

// log adds to the access log what only the gate knows.
func (f *flight) log(r *http.Request, held time.Duration) {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Set("http.sandman.held_ms", held.Milliseconds())
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.String("sandbox", f.target.SandboxID))
		extra.Set(zap.Duration("held", held))
	}
}

// bump counts a byte. A visit that has been quiet for the idle timeout, and so
// was let go, counts again; its presence follows.
func (f *flight) bump() {
	if !f.probes && !f.visit.Bump() {
		f.visit.Force()
	}
}

// meterUpgrade wraps the body of a 101, through which reverse_proxy copies both
// directions.
func (f *flight) meterUpgrade(r *http.Request, res *http.Response) error {
	conn, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		_ = res.Body.Close()
		return errors.New("the upstream has switched protocols on a connection that can't be written to")
	}
	kind := "upgrade"
	websocket := strings.EqualFold(res.Header.Get("Upgrade"), "websocket")
	if websocket {
		kind = "websocket"
	}
	f.visit.Stream(kind)
	var body *stream.Body
	body = stream.NewBody(r.Context(), conn, stream.Options{
		WebSocket:     websocket,
		Count:         f.recount,
		OnUpstreamEnd: f.upstreamEnded,
		Done:          func() { f.engine.streams.remove(body) },
	})
	f.engine.streams.add(body)
	res.Body = body
	return nil
}

// upstreamEnded says how a stream is to be closed whose upstream broke off: an
// editor whose sandbox was paused shall come again, and wake it.
func (f *flight) upstreamEnded(context.Context) (code uint16, reason string, ok bool) {
	if f.engine.State(f.target.SandboxID) == session.Running {
		return 0, "", false
	}
	return stream.StatusServiceRestart, "the sandbox was paused", true
}

// recount makes a dormant stream count again before its next message is
// forwarded: the sandbox is woken if it sleeps.
func (f *flight) recount(ctx context.Context) error {
	if f.visit.Bump() {
		return nil
	}
	return f.ensure(ctx, wake.Cause{Reason: "message on an open stream", Kind: "stream"})
}
