package e2e_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/net/http2"
)

// A WebSocket within an HTTP/2 connection (RFC 8441) is a stream as any other: it is parked with its
// sandbox, answered meanwhile, and wakes it.
func TestWebSocket_overHTTP2(t *testing.T) {
	t.Parallel()
	s := start(t, options{
		idle:      3 * time.Second,
		godebug:   "http2xconnect=1", // Go has it off
		caddyfile: strings.NewReplacer("grace_period 10s", "grace_period 10s\n\tservers {\n\t\tprotocols h1 h2c\n\t}"),
	})
	id, before := s.startAppIn(t)
	c := s.dialHTTP2(t, id)
	lastUse := time.Now()
	c.requireEcho(t, "good night")
	s.requirePausedOnTime(t, id, lastUse)

	for range 3 {
		c.send(t, ws.NewPingFrame([]byte("still there?")))
		if f := c.next(t); f.Header.OpCode != ws.OpPong || string(f.Payload) != "still there?" {
			t.Fatalf("a ping was answered by %+v", f)
		}
	}
	if r := s.record(t, id); r.State != "PAUSED" {
		t.Fatalf("a ping has made it %s", r.State)
	}
	c.requireEcho(t, "good morning")
	if r := s.record(t, id); r.State != "RUNNING" || r.Totals.Wakes != 1 {
		t.Errorf("after the message the sandbox is %+v", r)
	}
	requireContinued(t, before, s.mustAsk(t, id), 1)
}

// http2Socket is a WebSocket in a stream of an HTTP/2 connection.
type http2Socket struct {
	to   io.Writer
	from io.Reader
}

// dialHTTP2 opens a WebSocket to the app in the sandbox by extended CONNECT.
func (s *sandman) dialHTTP2(t *testing.T, id string) *http2Socket {
	t.Helper()
	transport := &http2.Transport{ //nolint:staticcheck // net/http's own client sends no extended CONNECT
		AllowHTTP: true, //nolint:staticcheck // likewise
		DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) { //nolint:staticcheck // likewise
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections) //nolint:staticcheck // likewise
	r := s.request(t.Context(), http.MethodConnect, id, appPort, "/ws", nil)
	body, to := io.Pipe()
	t.Cleanup(func() { _ = to.Close() })
	r.Body = body
	r.URL.Host = net.JoinHostPort("127.0.0.1", r.URL.Port())
	r.Header.Set(":protocol", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	res, err := transport.RoundTrip(r) //nolint:staticcheck // likewise
	if err != nil {
		t.Fatalf("opening a WebSocket over HTTP/2: %v", err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
		t.Fatalf("the handshake was answered by HTTP/%d with %s", res.ProtoMajor, res.Status)
	}
	return &http2Socket{to: to, from: res.Body}
}

func (c *http2Socket) send(t *testing.T, f ws.Frame) {
	t.Helper()
	if _, err := c.to.Write(ws.MustCompileFrame(ws.MaskFrameInPlace(f))); err != nil {
		t.Fatalf("sending over the WebSocket: %v", err)
	}
}

func (c *http2Socket) next(t *testing.T) ws.Frame {
	t.Helper()
	f, err := ws.ReadFrame(c.from) //nolint:staticcheck // the app in the test's own sandbox sends little
	if err != nil {
		t.Fatalf("reading from the WebSocket: %v", err)
	}
	return f
}

func (c *http2Socket) requireEcho(t *testing.T, message string) {
	t.Helper()
	c.send(t, ws.NewTextFrame([]byte(message)))
	if f := c.next(t); string(f.Payload) != message {
		t.Fatalf("wanted %q back over the WebSocket, got %+v", message, f)
	}
}
