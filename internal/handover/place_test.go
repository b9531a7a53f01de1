package handover_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/handover"
)

const soon = 10 * time.Second

// place is an address that servers follow each other on.
type place struct {
	sockets handover.Sockets
	addr    string
	tls     *tls.Config
	idle    time.Duration // after which connections are closed
	made    chan struct{} // if set, gets one for each connection that was accepted
}

// server is one of them. It says its name with each answer.
type server struct {
	*http.Server
	done chan struct{} // closed when Serve has returned
}

// next starts a server that leads. It answers its name when the handler has returned.
func (p *place) next(t *testing.T, name string, handler http.HandlerFunc) *server {
	t.Helper()
	s, ln := p.later(t, name, handler)
	ln.Lead(t.Context())
	return s
}

// later starts a server that doesn't lead.
func (p *place) later(t *testing.T, name string, handler http.HandlerFunc) (*server, handover.Listener) {
	t.Helper()
	ln, err := p.sockets.Listen(handover.Config{Address: "here", Open: func() (net.Listener, error) {
		return net.Listen("tcp", "127.0.0.1:0")
	}})
	if err != nil {
		t.Fatal(err)
	}
	if p.addr == "" {
		p.addr = ln.Addr().String()
	}
	s := &server{done: make(chan struct{}), Server: &http.Server{
		ConnState: p.connState, Protocols: new(http.Protocols), TLSConfig: p.tls, ReadHeaderTimeout: time.Minute, IdleTimeout: p.idle,
		ErrorLog: log.New(io.Discard, "", 0), // that a connection was taken
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if handler != nil {
				handler(w, r)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Errorf("reading the request of %s: %v", r.RemoteAddr, err)
			}
			fmt.Fprintf(w, "%s: %s %s %s", name, r.Method, r.URL, body)
		}),
	}}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() {
		defer close(s.done)
		var below net.Listener = ln
		if p.tls != nil {
			below = tls.NewListener(ln, p.tls)
		}
		if err := s.Serve(below); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving: %v", err)
		}
	}()
	t.Cleanup(func() { s.Close(); <-s.done })
	return s, ln
}

func (p *place) connState(c net.Conn, state http.ConnState) {
	handover.ConnState(c, state)
	if state == http.StateNew && p.made != nil {
		p.made <- struct{}{}
	}
}

// shutDown begins to, and waits until the server doesn't accept any more.
func (s *server) shutDown(t *testing.T) (done <-chan error) {
	t.Helper()
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	t.Cleanup(cancel)
	go func() { ended <- s.Shutdown(ctx) }()
	<-s.done
	return ended
}

func requireEnded(t *testing.T, down <-chan error) {
	t.Helper()
	if err := <-down; err != nil {
		t.Errorf("shutting down: %v", err)
	}
}

// client is a connection.
type client struct {
	net.Conn
	r *bufio.Reader
}

func (p *place) dial(t *testing.T) *client {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	if p.tls != nil {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	if err := c.SetDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{Conn: c, r: bufio.NewReader(c)}
}

func (c *client) send(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if _, err := io.WriteString(c, part); err != nil {
			t.Fatal(err)
		}
	}
}

// receive gives an answer's body.
func (c *client) receive() (body string, closes bool, err error) {
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return "", true, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), res.Close, err
}

func (c *client) expect(t *testing.T, want string) {
	t.Helper()
	if got, _, err := c.receive(); err != nil || got != want {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

const (
	getRequest  = "GET /a HTTP/1.1\r\nHost: here\r\n\r\n"
	postHead    = "POST /b HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\n"
	postRequest = postHead + "body"
)

func newTLS(t *testing.T) *tls.Config {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	t.Cleanup(s.Close)
	return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"http/1.1"}}
}

func (c *client) echo(t *testing.T, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}
