package caddymodule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/stream"
	"github.com/sandman-proxy/sandman/internal/wake"
)

func init() {
	caddy.RegisterModule(Transport{})
}

// DefaultReplayBuffer is how much of a request's body is kept.
const DefaultReplayBuffer = 1 << 20

// Transport forwards requests to the sandbox that the `sandman` handler has
// made run. Where the host answers that the sandbox is paused after all, it is
// woken and the request sent again; the visitor sees none of it. Long
// connections are metered, so that a person keeps the sandbox awake and a
// forgotten tab does not.
//
// The upstreams of the `reverse_proxy` that it is used in mean nothing: the
// address comes from the sandbox's host.
type Transport struct {
	// How many bytes of a request's body are kept, for the case that it must be
	// sent again. A larger request that meets a sandbox falling asleep is
	// answered with 503 and `Retry-After`. Default: 1048576 (1 MiB).
	ReplayBuffer int64 `json:"replay_buffer,omitempty"`

	// What Caddy's own HTTP transport would be configured with. Network, TLS
	// and upstream addresses come from the host.
	HTTP *reverseproxy.HTTPTransport `json:"http,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Transport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.transport.sandman",
		New: func() caddy.Module { return new(Transport) },
	}
}

// UnmarshalCaddyfile sets up the transport:
//
//	transport sandman {
//		replay_buffer <bytes>
//	}
func (t *Transport) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume transport name
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if d.Val() != "replay_buffer" {
			return d.Errf("unrecognized transport option %s", d.Val())
		}
		var arg string
		if err := oneArg(d, &arg); err != nil {
			return err
		}
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || n < 0 {
			return d.Errf("bad replay_buffer value %s: want a number of bytes", arg)
		}
		t.ReplayBuffer = n
	}
	return nil
}

// Provision sets up t.
func (t *Transport) Provision(ctx caddy.Context) error {
	if t.ReplayBuffer == 0 {
		t.ReplayBuffer = DefaultReplayBuffer
	}
	if t.HTTP == nil {
		t.HTTP = new(reverseproxy.HTTPTransport)
	}
	if err := t.HTTP.Provision(ctx); err != nil {
		return err
	}
	// Caddy's dialer goes to the upstream of the reverse_proxy, ours to the
	// address in the URL, which the host has told.
	dialer := &net.Dialer{Timeout: time.Duration(t.HTTP.DialTimeout), KeepAlive: 30 * time.Second}
	t.HTTP.Transport.DialContext = dialer.DialContext
	t.HTTP.Transport.DisableCompression = true // what the app sends is not ours to change
	return nil
}

// Cleanup implements caddy.CleanerUpper.
func (t *Transport) Cleanup() error {
	if t.HTTP == nil || t.HTTP.Transport == nil {
		return nil
	}
	return t.HTTP.Cleanup()
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	f, ok := caddyhttp.GetVar(r.Context(), flightVar).(*flight)
	if !ok {
		return nil, errors.New("the sandman transport needs the sandman handler before it, as sandman_proxy sets it up")
	}
	a := attempts{Transport: t, flight: f, request: r}
	if r.Body != nil && r.Body != http.NoBody {
		a.body = stream.NewReplay(stream.NewMeter(r.Body, func() { f.bump() }, func() {}), t.ReplayBuffer)
	}
	res, err := a.run()
	if err != nil && r.Context().Err() == nil {
		return problemOf(f.target, err).response(r, f.target), nil
	}
	if err != nil {
		return nil, err
	}
	switch {
	case f.probes:
		return res, nil
	case res.StatusCode == http.StatusSwitchingProtocols:
		return res, f.meterUpgrade(r, res)
	}
	f.visit.Answer()
	res.Body = stream.NewMeter(res.Body, f.bump, func() {})
	return res, nil
}

// attempts is one request, sent as often as it takes to reach a sandbox that
// is awake.
type attempts struct {
	*Transport
	*flight
	request *http.Request
	body    *stream.Replay // nil: the request has none
}

// run sends the request until it has an answer that is the sandbox's.
func (a *attempts) run() (*http.Response, error) {
	for {
		rev := a.engine.Revision(a.target.SandboxID)
		res, err := a.send()
		switch {
		case a.probes:
			return a.probed(res, err)
		case errors.Is(err, errAsleep):
			err = a.wake(rev)
		case errors.Is(err, errClosed):
			res, err = a.closedPort()
		case err != nil:
			err = a.broken(rev, err)
		}
		if res != nil || err != nil {
			return res, err
		}
	}
}

var (
	errAsleep = errors.New("the host says that the sandbox does not run")
	errClosed = errors.New("nothing listens on the port")
)

// send is one attempt. Its errors are errAsleep and errClosed where the host
// said so, else the connection's.
func (a *attempts) send() (*http.Response, error) {
	route, err := a.engine.Route(a.target)
	if errors.Is(err, engine.ErrAsleep) || errors.Is(err, engine.ErrGone) {
		return nil, errAsleep
	}
	if err != nil {
		return nil, err
	}
	r, err := a.attempt(route)
	if err != nil {
		return nil, err
	}
	res, err := a.HTTP.Transport.RoundTrip(r)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, errClosed
	}
	if err != nil {
		return nil, err
	}
	return a.classify(res)
}

// attempt gives the request as it is sent this time.
func (a *attempts) attempt(route engine.Route) (*http.Request, error) {
	r := a.request.WithContext(a.request.Context())
	u := *r.URL
	u.Scheme, u.Host = "http", route.Addr
	if route.TLS {
		u.Scheme = "https"
	}
	r.URL = &u
	if route.Host != "" {
		r.Host = route.Host
	}
	if a.body != nil {
		body, ok := a.body.Attempt()
		if !ok {
			return nil, errTooLarge
		}
		r.Body = body
		r.GetBody = nil
	}
	return r, nil
}

// maxAnswer bounds what is read of a 502 to see whose word it is.
const maxAnswer = 64 << 10

// classify tells the host's own 502 from one of the app.
func (a *attempts) classify(res *http.Response) (*http.Response, error) {
	if res.StatusCode != http.StatusBadGateway || res.ContentLength > maxAnswer {
		return res, nil
	}
	head, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		_ = res.Body.Close()
		return nil, err
	}
	switch e2b.ClassifyAnswer(a.target.SandboxID, res.StatusCode, res.Header, head) {
	case e2b.AnswerSandboxNotFound:
		_ = res.Body.Close()
		return nil, errAsleep
	case e2b.AnswerPortClosed:
		_ = res.Body.Close()
		return nil, errClosed
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), res.Body), res.Body}
	return res, nil
}

// wake makes the sandbox run although the record said that it does.
func (a *attempts) wake(rev int64) error {
	cause := a.cause
	cause.Suspect = rev
	return a.engine.Ensure(a.request.Context(), a.target.SandboxID, a.visit, cause)
}

// portRetry is how often a port is tried that nobody listens on yet.
const portRetry = 50 * time.Millisecond

// closedPort waits for the port of a sandbox that has just been woken: awake is
// not ready. In one that has been awake for longer it is the app's own affair.
func (a *attempts) closedPort() (*http.Response, error) {
	if !a.engine.JustWoken(a.target.SandboxID, a.cause.Hold) {
		w := &answer{header: make(http.Header)}
		e2b.WritePortClosed(w, a.request, a.target.SandboxID, a.target.Port)
		return w.response(a.request), nil
	}
	select {
	case <-time.After(portRetry):
		return nil, nil
	case <-a.request.Context().Done():
		return nil, a.request.Context().Err()
	}
}

// broken decides about a request whose connection broke without an answer. It
// is sent again only if the sandbox has left RUNNING meanwhile, and if the
// method bears it: it may have been carried out.
func (a *attempts) broken(rev int64, err error) error {
	if a.request.Context().Err() != nil || a.engine.Revision(a.target.SandboxID) == rev {
		return err
	}
	if !repeatable(a.request) {
		return fmt.Errorf("the connection broke when the sandbox was paused, and the request may have been carried out: %w", err)
	}
	return a.wake(0)
}

func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return r.Header.Get("Idempotency-Key") != ""
}

// probed answers a health check without waking.
func (a *attempts) probed(res *http.Response, err error) (*http.Response, error) {
	if res != nil || err == nil || !errors.Is(err, errAsleep) && !errors.Is(err, errClosed) {
		return res, err
	}
	w := &answer{header: make(http.Header)}
	e2b.WriteSandboxNotFound(w, a.request, a.target.SandboxID)
	return w.response(a.request), nil
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
	res.Body = stream.NewBody(r.Context(), conn, stream.Options{
		WebSocket:     websocket,
		Count:         f.recount,
		OnUpstreamEnd: f.upstreamEnded,
	})
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
	return f.engine.Ensure(ctx, f.target.SandboxID, f.visit, wake.Cause{Reason: "message on an open stream", Kind: "stream"})
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Transport)(nil)
	_ caddy.CleanerUpper    = (*Transport)(nil)
	_ caddyfile.Unmarshaler = (*Transport)(nil)
	_ http.RoundTripper     = (*Transport)(nil)
)
