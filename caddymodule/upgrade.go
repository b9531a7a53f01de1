package caddymodule

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/stream"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// upgrade is a connection whose protocol was switched, between reverse_proxy,
// which copies both directions through it, and the sandbox.
type upgrade struct {
	*stream.Body
	flight *flight
	info   session.Stream // but for what changes
	page   engine.Page
}

// meterUpgrade puts an upgrade in the place of a 101's body.
func (f *flight) meterUpgrade(r *http.Request, res *http.Response) error {
	conn, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		_ = res.Body.Close()
		return errors.New("the upstream has switched protocols on a connection that can't be written to")
	}
	if f.conn != nil {
		conn = interruptible{conn, f.conn}
	}
	u := &upgrade{flight: f, page: f.page(), info: session.Stream{Kind: "upgrade", Path: shortened(f.arrived.URL.Path), Since: time.Now().UTC()}}
	opts := u.options(r.Header, res.Header)
	f.visit.Stream(u.info.Kind)
	u.Body = stream.NewBody(r.Context(), conn, opts)
	f.engine.Streams().Add(f.target.SandboxID, u, u.page)
	res.Body = u
	return nil
}

// options says how the stream is metered, by its handshake. The answer gets what
// makes messages readable.
func (u *upgrade) options(request, answer http.Header) stream.Options {
	f := u.flight
	opts := stream.Options{
		Live:          f.visit.Counting,
		OnUpstreamEnd: u.wasPaused,
		Done:          func() { f.engine.Streams().Remove(f.target.SandboxID, u) },
	}
	if f.counting.client {
		opts.Count = f.recount
	}
	if f.counting.server {
		opts.CountServer = f.bump
	}
	if !strings.EqualFold(answer.Get("Upgrade"), "websocket") {
		return opts
	}
	u.info.Kind, opts.WebSocket = "websocket", true
	opts.Inflate = inflatable(request, answer)
	u.judgeBy(f.counting.noise, &opts, answer)
	return opts
}

// Info implements engine.Stream.
func (u *upgrade) Info() session.Stream {
	info := u.info
	info.State = session.StreamState(u.State())
	info.LastCounted = u.LastCounted().UTC()
	return info
}

// page is who has opened the stream, as far as it can be known.
func (f *flight) page() engine.Page {
	ip, _ := caddyhttp.GetVar(f.arrived.Context(), caddyhttp.ClientIPVarKey).(string)
	return engine.Page{Path: f.arrived.URL.Path, ClientIP: ip, UserAgent: f.arrived.UserAgent()}
}

// pauseNews is how long the news of a pause through another proxy may take.
const pauseNews = time.Second

// wasPaused tells whether a pause has cut the connection to the sandbox off. The
// host cuts it before everybody knows of the pause, so it waits a little; ctx ends
// when this proxy hears of it.
func (u *upgrade) wasPaused(ctx context.Context) bool {
	news := time.NewTimer(pauseNews)
	defer news.Stop()
	if !u.asleep() {
		select {
		case <-news.C:
		case <-ctx.Done():
		}
	}
	return u.asleep()
}

func (u *upgrade) asleep() bool {
	state := u.flight.engine.State(u.flight.target.SandboxID)
	return state == session.Paused || state.Busy()
}

// recount makes a stream that does not count do so before its next message is
// forwarded: the sandbox is woken if it sleeps.
func (f *flight) recount(ctx context.Context) error {
	if f.visit.Bump() {
		return nil
	}
	err := f.ensure(ctx, wake.Cause{Reason: "message on an open stream", Kind: "stream", May: f.gate.policy.For(wake.Message)})
	f.note(err)
	return err
}

// idleTimeout is the sandbox's own.
func (f *flight) idleTimeout() time.Duration {
	sb, err := f.engine.Get(f.arrived.Context(), f.target.SandboxID)
	if err != nil {
		return 0
	}
	return time.Duration(sb.IdleTimeout)
}

// isUpgrade tells whether the request may switch the connection's protocol.
func isUpgrade(r *http.Request) bool { return r.Header.Get("Upgrade") != "" }

// traceConn notes the connection that the request is sent on. A Read of the 101's
// body can be interrupted through it only.
func (f *flight) traceConn(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { f.conn = info.Conn },
	})
}

// interruptible is a 101's body with the connection beneath it.
type interruptible struct {
	io.ReadWriteCloser
	conn net.Conn
}

func (i interruptible) SetReadDeadline(t time.Time) error { return i.conn.SetReadDeadline(t) }

func (i interruptible) CloseWrite() error {
	if half, ok := i.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

const (
	extensions = "Sec-WebSocket-Extensions"
	deflate    = "permessage-deflate"
	noContext  = "client_no_context_takeover"
)

// inflatable tells whether each compressed message of the client can be inflated
// by itself, and sees to it that it can where the client must agree to that:
// RFC 7692, section 7.1.1.2. The app's own inflater does not mind.
func inflatable(request, answer http.Header) bool {
	chosen := answer.Values(extensions)
	if len(chosen) != 1 || strings.ContainsAny(chosen[0], `,"`) || !offersDeflate(request) {
		return false
	}
	name, params, _ := strings.Cut(chosen[0], ";")
	if strings.TrimSpace(name) != deflate {
		return false
	}
	for param := range strings.SplitSeq(params, ";") {
		if strings.TrimSpace(param) == noContext {
			return true
		}
	}
	answer.Set(extensions, strings.TrimRight(chosen[0], " ;")+"; "+noContext)
	return true
}

func offersDeflate(request http.Header) bool {
	for header, lines := range request {
		// reverse_proxy spells it as RFC 6455 does, which is not Go's canonical form
		if !strings.EqualFold(header, extensions) {
			continue
		}
		for offer := range strings.SplitSeq(strings.Join(lines, ","), ",") {
			if name, _, _ := strings.Cut(offer, ";"); strings.TrimSpace(name) == deflate {
				return true
			}
		}
	}
	return false
}
