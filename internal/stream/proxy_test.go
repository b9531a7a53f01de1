package stream_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/sandman-proxy/sandman/internal/stream"
)

// metering is a transport that wraps the body of each 101 answer.
type metering struct {
	opts   stream.Options
	bodies chan *stream.Body
}

func (m *metering) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		return res, err
	}
	opts := m.opts
	opts.WebSocket = strings.EqualFold(res.Header.Get("Upgrade"), "websocket")
	body := stream.NewBody(req.Context(), res.Body.(io.ReadWriteCloser), opts)
	m.bodies <- body
	res.Body = body
	return res, nil
}

// proxied starts an app and a reverse proxy before it, over real TCP. Each upgraded
// connection's Body is sent on the channel. The test ends when each stream has.
func proxied(t *testing.T, opts stream.Options, app http.HandlerFunc) (string, <-chan *stream.Body) {
	t.Helper()
	var open sync.WaitGroup
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Done()
		app(w, r)
	}))
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	m := &metering{opts: opts, bodies: make(chan *stream.Body, 100)}
	reverse := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: m,
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open.Add(1)
		defer open.Done()
		reverse.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		open.Wait() // hijacked connections are not the servers' to wait for
		proxy.Close()
		upstream.Close()
	})
	return proxy.URL, m.bodies
}

// echo is an app that sends each message back.
func echo(mode websocket.CompressionMode) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: mode, CompressionThreshold: 1})
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(-1)
		for {
			kind, p, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if c.Write(r.Context(), kind, p) != nil {
				return
			}
		}
	}
}

func dial(t *testing.T, url string, mode websocket.CompressionMode) *websocket.Conn {
	t.Helper()
	c, res, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{CompressionMode: mode, CompressionThreshold: 1})
	if err != nil {
		t.Fatal(err)
	}
	if asked, got := mode != websocket.CompressionDisabled, res.Header.Get("Sec-WebSocket-Extensions"); asked != (got != "") {
		t.Fatalf("compression %v was agreed on as %q", mode, got)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	c.SetReadLimit(-1)
	return c
}

// checkClose reads to the end of c, which must have this code.
func checkClose(t *testing.T, c *websocket.Conn, code websocket.StatusCode, reason string) {
	t.Helper()
	_, _, err := c.Read(t.Context())
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != code || closed.Reason != reason {
		t.Errorf("the client's stream ended with %v; want %d %q", err, code, reason)
	}
}

func TestProxy_metersMessagesOfARealClient(t *testing.T) {
	t.Parallel()
	for _, mode := range []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionContextTakeover, websocket.CompressionNoContextTakeover} {
		t.Run(fmt.Sprint("compression ", mode), func(t *testing.T) {
			t.Parallel()
			var n counter
			address, _ := proxied(t, stream.Options{Count: n.count}, echo(mode))
			c := dial(t, address, mode)
			for _, size := range []int{0, 1, 125, 126, 65535, 65536, 300_000} {
				before := n.n.Load()
				want := randomBytes(size)
				var writing sync.WaitGroup
				writing.Go(func() {
					if err := c.Write(t.Context(), websocket.MessageBinary, want); err != nil {
						t.Errorf("writing %d bytes: %v", size, err)
					}
				})
				_, got, err := c.Read(t.Context())
				writing.Wait()
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("a message of %d bytes came back as %d, %v", size, len(got), err)
				}
				if after := n.n.Load(); after == before {
					t.Errorf("a message of %d bytes did not count", size)
				}
			}

			before := n.n.Load()
			ctx := c.CloseRead(t.Context())
			for range 10 {
				if err := c.Ping(ctx); err != nil {
					t.Fatalf("ping: %v", err)
				}
			}
			_ = c.Close(websocket.StatusNormalClosure, "bye")
			if after := n.n.Load(); after != before {
				t.Errorf("pings and the close counted %d times", after-before)
			}
		})
	}
}

// gobwas/ws writes frame by frame: fragments with pings between them, and frames
// cut anywhere.
func TestProxy_metersFragmentsOfARealClient(t *testing.T) {
	t.Parallel()
	var n counter
	address, _ := proxied(t, stream.Options{Count: n.count}, echo(websocket.CompressionDisabled))
	conn, early, _, err := ws.Dial(t.Context(), "ws"+strings.TrimPrefix(address, "http"))
	if err != nil || early != nil {
		t.Fatalf("dialling: %v, %v", err, early)
	}
	defer func() { _ = conn.Close() }()

	ping := clientFrame(ws.OpPing, "still here?")
	parts := [][]byte{
		ping,
		fragment(false, ws.OpText, "hello"), ping, fragment(false, ws.OpContinuation, ", "), ping, fragment(true, ws.OpContinuation, "world"),
		ping,
	}
	before := []int64{0, 0, 1, 1, 2, 2, 3} // what has counted for sure when the part is answered or sent
	pongs := 0
	for i, part := range parts {
		for _, b := range [][]byte{part[:1], part[1:3], part[3:]} {
			if _, err := conn.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(part, ping) {
			continue
		}
		// in order: what was sent before the ping has reached the app
		for pong := false; !pong; {
			h, err := ws.ReadHeader(conn)
			if err != nil {
				t.Fatal(err)
			}
			payload := make([]byte, h.Length)
			if _, err := io.ReadFull(conn, payload); err != nil {
				t.Fatal(err)
			}
			pong = h.OpCode == ws.OpPong
			if !pong && string(payload) != "hello, world" {
				t.Fatalf("the app answered %q", payload)
			}
		}
		pongs++
		if got := n.n.Load(); got < before[i] || got > 3*before[i] {
			t.Errorf("at part %d it has counted %d times", i, got)
		}
	}
	if pongs != 4 || n.n.Load() < 3 {
		t.Errorf("%d pongs, counted %d times", pongs, n.n.Load())
	}
	if err := wsutil.WriteClientMessage(conn, ws.OpClose, ws.NewCloseFrameBody(1000, "")); err != nil {
		t.Fatal(err)
	}
}

func fragment(fin bool, op ws.OpCode, payload string) []byte {
	return ws.MustCompileFrame(ws.MaskFrameWith(ws.NewFrame(op, fin, []byte(payload)), [4]byte{4, 3, 2, 1}))
}

func TestProxy_holdsAMessageUntilItIsCounted(t *testing.T) {
	t.Parallel()
	got := make(chan string, 10)
	wake, asked := make(chan struct{}), make(chan struct{})
	count := func(context.Context) error {
		select {
		case <-wake: // awake already
		case asked <- struct{}{}:
			<-wake
		}
		return nil
	}
	address, _ := proxied(t, stream.Options{Count: count}, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		for {
			_, p, err := c.Read(r.Context())
			if err != nil {
				return
			}
			got <- string(p)
		}
	})
	c := dial(t, address, websocket.CompressionDisabled)
	for _, message := range []string{"first", "second"} {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	<-asked
	if len(got) != 0 {
		t.Errorf("the app got %q before it was counted", <-got)
	}
	close(wake)
	if a, b := <-got, <-got; a != "first" || b != "second" {
		t.Errorf("the app got %q and %q", a, b)
	}
	_ = c.Close(websocket.StatusNormalClosure, "")
}

func TestProxy_showsTheClientWhyItEnds(t *testing.T) {
	t.Parallel()
	restart := func(context.Context) bool { return true }
	wake := func(context.Context) error { return nil }
	// the app says hello, and does on the next message what the case says
	app := func(end func(*websocket.Conn, net.Conn)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			tap := &hijackTap{ResponseWriter: w}
			c, err := websocket.Accept(tap, r, nil)
			if err != nil {
				return
			}
			defer func() { _ = c.CloseNow() }()
			_ = c.Write(r.Context(), websocket.MessageText, []byte("hello"))
			if _, _, err := c.Read(r.Context()); err == nil {
				end(c, tap.conn)
			}
		}
	}
	dies := func(_ *websocket.Conn, conn net.Conn) { _ = conn.Close() }
	resets := func(_ *websocket.Conn, conn net.Conn) {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
	closes := func(c *websocket.Conn, _ net.Conn) { _ = c.Close(4000, "my own") }
	tests := []struct {
		name   string
		opts   stream.Options
		end    func(*websocket.Conn, net.Conn)
		owner  func(*stream.Body)
		code   websocket.StatusCode
		reason string
	}{
		{"app dies", stream.Options{OnUpstreamEnd: restart, Count: wake}, dies, nil, 1012, "the sandbox was paused"},
		{"app resets", stream.Options{OnUpstreamEnd: restart, Count: wake}, resets, nil, 1012, "the sandbox was paused"},
		{"app dies in a frame", stream.Options{OnUpstreamEnd: restart}, func(_ *websocket.Conn, conn net.Conn) {
			_, _ = conn.Write(serverFrame(ws.OpText, "hello")[:3])
			_ = conn.Close()
		}, nil, -1, ""},
		{"app dies, nobody cares", stream.Options{}, dies, nil, -1, ""},
		{"app closes", stream.Options{OnUpstreamEnd: restart}, closes, nil, 4000, "my own"},
		{"owner closes", stream.Options{OnUpstreamEnd: restart}, nil, func(b *stream.Body) { b.CloseWith(1001, "going away") }, 1001, "going away"},
		{"message can't be counted", stream.Options{Count: func(context.Context) error { return errors.New("no") }}, nil, nil, 1013, "the upstream can't be reached now"},
	}
	for _, tt := range tests {
		for _, mode := range []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionContextTakeover} {
			t.Run(fmt.Sprint(tt.name, ", compression ", mode), func(t *testing.T) {
				t.Parallel()
				address, bodies := proxied(t, tt.opts, app(tt.end))
				c, _, err := websocket.Dial(t.Context(), address, &websocket.DialOptions{CompressionMode: mode, CompressionThreshold: 1})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.CloseNow() }()
				if _, p, err := c.Read(t.Context()); err != nil || string(p) != "hello" {
					t.Fatalf("Read = %q, %v", p, err)
				}
				if tt.owner != nil {
					tt.owner(<-bodies)
				} else if err := c.Write(t.Context(), websocket.MessageText, []byte("go on")); err != nil {
					t.Fatal(err)
				}
				if tt.code == stream.StatusServiceRestart { // the client stays until it has something to say
					awaitState(t, <-bodies, stream.StateParked)
					if err := c.Write(t.Context(), websocket.MessageText, []byte("wake up")); err != nil {
						t.Fatal(err)
					}
				}
				if tt.code != -1 {
					checkClose(t, c, tt.code, tt.reason)
					return
				}
				if _, _, err := c.Read(t.Context()); err == nil || websocket.CloseStatus(err) != -1 {
					t.Errorf("the client's stream ended with %v; want no close frame", err)
				}
			})
		}
	}
}

// hijackTap gives the test the connection beneath an app's WebSocket.
type hijackTap struct {
	http.ResponseWriter
	conn net.Conn
}

func (h *hijackTap) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.conn = conn
	return conn, rw, err
}

func TestProxy_passesTheClientsCloseOn(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	var n counter
	address, bodies := proxied(t, stream.Options{Count: n.count}, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		_, _, err = c.Read(r.Context())
		ended <- err
	})
	c := dial(t, address, websocket.CompressionDisabled)
	if err := c.Close(3000, "closed the tab"); err != nil {
		t.Errorf("the client's close was answered by %v", err)
	}
	var closed websocket.CloseError
	if err := <-ended; !errors.As(err, &closed) || closed.Code != 3000 || closed.Reason != "closed the tab" {
		t.Errorf("the app's stream ended with %v", err)
	}
	if n.n.Load() != 0 {
		t.Errorf("a close counted %d times", n.n.Load())
	}
	<-bodies
}

func TestProxy_endsBothSidesWhenTheBodyIsClosed(t *testing.T) {
	t.Parallel()
	appEnded := make(chan error, 1)
	done := make(chan struct{})
	address, bodies := proxied(t, stream.Options{Done: func() { close(done) }}, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		_, _, err = c.Read(r.Context())
		appEnded <- err
	})
	c := dial(t, address, websocket.CompressionDisabled)
	if err := (<-bodies).Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("the client's stream goes on")
	}
	if err := <-appEnded; err == nil {
		t.Error("the app's stream goes on")
	}
	<-done
}

// A protocol that is no WebSocket: its bytes pass, count, and are closed by halves.
func TestProxy_metersOtherProtocols(t *testing.T) {
	t.Parallel()
	var n counter
	address, _ := proxied(t, stream.Options{Count: n.count}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "shout")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		whole, _ := io.ReadAll(rw) // up to the client's half-close
		_, _ = conn.Write(bytes.ToUpper(whole))
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n")
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the handshake: %v, %v", res, err)
	}
	if n.n.Load() != 0 {
		t.Errorf("the handshake counted %d times", n.n.Load())
	}
	_, _ = conn.Write(clientFrame(ws.OpPing, "hello")) // would not count in a WebSocket
	_ = conn.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(in)
	if want := bytes.ToUpper(clientFrame(ws.OpPing, "hello")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the app answered %x, %v; want %x", got, err, want)
	}
	if n.n.Load() == 0 {
		t.Error("its bytes did not count")
	}
}
