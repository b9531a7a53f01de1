// Package handover lets one HTTP server follow another on an address without
// losing what comes at that moment.
//
// Go's server, when it shuts down, closes a connection whose first request it
// has not read by then without an answer (https://go.dev/issue/75591), and a
// socket that is closed resets what waits in its queue. So the servers of an
// address share one socket, each connection goes to the newest of them, and a
// new one begins when those before it have taken up what they were being sent.
package handover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
)

// Sockets are the sockets that a process listens on, by address. The zero value
// has none.
type Sockets struct {
	mu   sync.Mutex // guards the following field, and the listeners of each socket
	open map[string]*socket
}

// Config is what a listener needs to know.
type Config struct {
	// Address is whatever tells the addresses of a process apart.
	Address string

	// Open opens the socket, where no listener of the address is open, so that
	// its connections have KeepAlive.
	Open func() (net.Listener, error)

	// KeepAlive is how the listener's connections are kept alive.
	KeepAlive net.KeepAliveConfig
}

// Listen gives a listener whose connections the caller's HTTP server answers.
// From now on it gets those of its address, and what the listeners before it
// have accepted and not read from; it is given back when the requests that they
// were reading have begun to be served, which is awaited for a second at most,
// or until ctx ends. When it is closed, the newest that is still open gets them.
// The last that is closed closes the socket.
//
// The server's ConnState must be told to [ConnState], or the wait is longer.
func (s *Sockets) Listen(ctx context.Context, cfg Config) (net.Listener, error) {
	l, former, err := s.join(cfg)
	if err != nil {
		return nil, err
	}
	if former != nil {
		former.handOver()
		former.settle(ctx, (*conn).patience)
	}
	return l, nil
}

// Leave is for the end of the process: it closes the sockets, and waits, for a
// second at most or until ctx ends, until the requests on connections that were
// made before are being served. Those on which nothing has come by then are
// closed. The listeners are still to be closed.
func (s *Sockets) Leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	var listeners []*listener
	for _, sock := range s.all() {
		_ = sock.close()
		select {
		case <-sock.accepted:
		case <-ctx.Done():
		}
		s.mu.Lock()
		listeners = append(listeners, sock.listeners...)
		s.mu.Unlock()
	}
	for _, l := range listeners {
		l.settle(ctx, (*conn).lastPatience)
		for _, c := range l.youngOnes() {
			c.abandon()
		}
	}
}

func (s *Sockets) all() []*socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.open))
}

// join gives the new listener, and the one that it follows, which may be nil.
func (s *Sockets) join(cfg Config) (l, former *listener, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sock := s.open[cfg.Address]
	if sock == nil {
		ln, err := cfg.Open()
		if err != nil {
			return nil, nil, fmt.Errorf("opening the socket: %w", err)
		}
		sock = newSocket(ln, s, cfg)
		if s.open == nil {
			s.open = make(map[string]*socket)
		}
		s.open[cfg.Address] = sock
		go sock.accept()
	}
	former = sock.newestLocked()
	l = newListener(sock, cfg.KeepAlive)
	sock.listeners = append(sock.listeners, l)
	sock.changedLocked()
	return l, former, nil
}

// socket is one socket, and its listeners.
type socket struct {
	net.Listener
	all       *Sockets
	address   string
	keepAlive net.KeepAliveConfig
	close     func() error  // once
	accepted  chan struct{} // closed when all connections have been accepted by servers

	listeners []*listener   // guarded by all.mu; the newest last
	changed   chan struct{} // guarded by all.mu; closed when the listeners change
}

func newSocket(ln net.Listener, all *Sockets, cfg Config) *socket {
	return &socket{
		Listener: ln, all: all, address: cfg.Address, keepAlive: cfg.KeepAlive, close: sync.OnceValue(ln.Close),
		accepted: make(chan struct{}), changed: make(chan struct{}),
	}
}

func (s *socket) newestLocked() *listener {
	if len(s.listeners) == 0 {
		return nil
	}
	return s.listeners[len(s.listeners)-1]
}

func (s *socket) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// newest gives the listener that connections are for, or nil, and what is
// closed when that changes.
func (s *socket) newest() (*listener, <-chan struct{}) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	return s.newestLocked(), s.changed
}

// leave takes l out. The last one leaves nothing behind.
func (s *socket) leave(l *listener) error {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.listeners = slices.DeleteFunc(s.listeners, func(other *listener) bool { return other == l })
	s.changedLocked()
	if len(s.listeners) > 0 {
		return nil
	}
	delete(s.all.open, s.address)
	return s.close()
}

// arrival is what Accept gives.
type arrival struct {
	conn  net.Conn
	err   error
	heard []byte // what was read from conn before it was handed over
}

// accept ends when the socket is closed.
func (s *socket) accept() {
	defer close(s.accepted)
	for {
		c, err := s.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		s.deliver(arrival{conn: c, err: err})
	}
}

// deliver waits until a listener has admitted a, or none is left.
func (s *socket) deliver(a arrival) {
	for {
		l, changed := s.newest()
		if l == nil {
			if a.conn != nil {
				_ = a.conn.Close()
			}
			return
		}
		select {
		case l.arrivals <- a:
			<-l.admitted
			return
		case <-changed:
		}
	}
}
