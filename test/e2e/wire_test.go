package e2e_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// wire is the network between a client and a port, which can be cut.
type wire struct {
	port int

	mu    sync.Mutex // guards the following fields
	cut   bool
	conns map[net.Conn]struct{}
}

// newWire leads a port of its own to another one until the end of the test.
func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{port: l.Addr().(*net.TCPAddr).Port, conns: make(map[net.Conn]struct{})}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { w.carry(c, to) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.setCut(true)
		all.Wait()
	})
	return w
}

// setCut breaks all connections and lets no new one through, or lets them through again.
func (w *wire) setCut(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for c := range w.conns {
		if cut {
			_ = c.Close()
		}
	}
}

func (w *wire) carry(from net.Conn, to string) {
	defer from.Close()
	if !w.add(from) {
		return
	}
	defer w.remove(from)
	c, err := net.Dial("tcp", to)
	if err != nil || !w.add(c) {
		return
	}
	defer w.remove(c)
	defer c.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(c, from)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(from, c)
	_ = from.(*net.TCPConn).CloseWrite()
	<-done
}

func (w *wire) add(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cut {
		w.conns[c] = struct{}{}
	}
	return !w.cut
}

func (w *wire) remove(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}
