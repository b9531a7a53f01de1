package caddymodule

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/stream"
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
	// sent again, for as long as the request takes. A larger request that meets
	// a sandbox falling asleep is answered with 503 and `Retry-After`; one that
	// meets a sleeping sandbox waits unread, whatever its size.
	// Default: 1048576 (1 MiB).
	ReplayBuffer int64 `json:"replay_buffer,omitempty"`

	// What Caddy's own HTTP transport would be configured with. Network, TLS
	// and upstream addresses come from the host. Of idle connections it keeps
	// 256 to an address by default (Caddy itself: 32), because one address may
	// stand for all the sandboxes of a host.
	HTTP *reverseproxy.HTTPTransport `json:"http,omitempty"`
}

// defaultIdleConns is how many idle connections to one address are kept: with
// fewer, more visitors than that at a time would have most of theirs dialed anew.
const defaultIdleConns = 256

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
	if t.HTTP.KeepAlive == nil {
		t.HTTP.KeepAlive = new(reverseproxy.KeepAlive)
	}
	if t.HTTP.KeepAlive.MaxIdleConnsPerHost == 0 {
		t.HTTP.KeepAlive.MaxIdleConnsPerHost = defaultIdleConns
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
	a := attempts{Transport: t, flight: f, ctx: r.Context(), request: r}
	if !f.probes {
		a.ctx = f.cuttable(a.ctx, r.Body != nil)
	}
	if isUpgrade(r) {
		a.ctx = f.traceConn(a.ctx)
	}
	if r.Body != nil && r.Body != http.NoBody {
		sent := make(chan struct{})
		a.body, a.sent = stream.NewReplay(stream.NewMeter(r.Body, f.bump, func() { close(sent) }), t.ReplayBuffer), sent
	}
	res, err := a.run()
	if errors.Is(context.Cause(a.ctx), errCut) {
		if res != nil { // a switched protocol's connection is not the context's to close
			_ = res.Body.Close()
		}
		res, err = nil, errCut
	}
	switch {
	case err == nil:
	case errors.Is(err, errCut), r.Context().Err() == nil:
		return f.problem(err).response(r, f.target), nil
	default: // the visitor has left
		return nil, err
	}
	switch {
	case f.probes:
		return res, nil
	case res.StatusCode == http.StatusSwitchingProtocols:
		return res, f.meterUpgrade(r, res)
	}
	a.awaitSent()
	// a caller that waits for a command's end, for as long as it has said, uses
	// the sandbox all that time
	if f.target.Port != envdPort || !e2b.IsCommand(r) || !e2b.HasTimeout(r) {
		f.visit.Answer()
	}
	f.meterAnswer(res)
	return res, nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Transport)(nil)
	_ caddy.CleanerUpper    = (*Transport)(nil)
	_ caddyfile.Unmarshaler = (*Transport)(nil)
	_ http.RoundTripper     = (*Transport)(nil)
)
