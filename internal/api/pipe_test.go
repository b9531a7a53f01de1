package api_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
)

// pipeListener is a listener of one connection that needs no network, so that
// a server runs by a test's own clock.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// serveOne runs a server for the API and returns the client's end of its one
// connection. Both end with the test.
func serveOne(t *testing.T, m *memory) net.Conn {
	t.Helper()
	h, err := api.New(api.Config{Reader: m, Actor: m, Tokens: tokens(t), Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	l := &pipeListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	client, server := net.Pipe()
	l.conns <- server
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with the test
	}()
	t.Cleanup(func() {
		_ = client.Close()
		_ = srv.Close()
		<-done
	})
	return client
}

// exchange announces one body and sends another, and reads the answer.
func exchange(t *testing.T, conn net.Conn, announced, sent string) *http.Response {
	t.Helper()
	go func() {
		_, _ = fmt.Fprintf(conn, "POST /api/v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", operator, len(announced), sent)
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}
