// Package handover lets one HTTP server follow another on an address without
// losing what comes at that moment.
//
// Go's server, when it shuts down, closes a connection whose first request it
// has not read by then without an answer (https://go.dev/issue/75591), and a
// socket that is closed resets what waits in its queue. So the servers of an
// address share one socket, whose connections go to the one of them that leads,
// and with the lead goes what the former one has not begun to answer.
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

// Listener is one server's part of a socket.
type Listener interface {
	net.Listener

	// Lead makes it the one that gets the connections of its address, and what
	// the former one has accepted and not read from. It returns when the
	// requests that its server was reading have begun to be served, which is
	// awaited for a second at most, or until ctx ends.
	Lead(ctx context.Context)
}

// Listen gives a listener whose connections the caller's HTTP server answers.
// It gets some when it leads, or is the only one of its address. When it is
// closed, the one that led before gets them. The last that is closed closes the
// socket.
//
// The server's ConnState must be told to [ConnState], or Lead takes longer.
func (s *Sockets) Listen(cfg Config) (Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sock := s.open[cfg.Address]
	if sock == nil {
		ln, err := cfg.Open()
		if err != nil {
			return nil, fmt.Errorf("opening the socket: %w", err)
		}
		sock = newSocket(ln, s, cfg)
		if s.open == nil {
			s.open = make(map[string]*socket)
		}
		s.open[cfg.Address] = sock
		go sock.accept()
	}
	l := newListener(sock, cfg.KeepAlive)
	sock.listeners = slices.Insert(sock.listeners, 0, l)
	sock.changedLocked()
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

// socket is one socket, and its listeners.
type socket struct {
	net.Listener
	all       *Sockets
	address   string
	keepAlive net.KeepAliveConfig
	close     func() error  // once
	accepted  chan struct{} // closed when all connections have been accepted by servers

	listeners []*listener   // guarded by all.mu; the one that leads is the last
	changed   chan struct{} // guarded by all.mu; closed when the listeners change
}

func newSocket(ln net.Listener, all *Sockets, cfg Config) *socket {
	return &socket{
		Listener: ln, all: all, address: cfg.Address, keepAlive: cfg.KeepAlive, close: sync.OnceValue(ln.Close),
		accepted: make(chan struct{}), changed: make(chan struct{}),
	}
}

func (s *socket) leaderLocked() *listener {
	if len(s.listeners) == 0 {
		return nil
	}
	return s.listeners[len(s.listeners)-1]
}

func (s *socket) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// leader gives the listener that connections are for, or nil, and what is
// closed when that may have changed.
func (s *socket) leader() (*listener, <-chan struct{}) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	return s.leaderLocked(), s.changed
}

// lead makes l the leader, and gives the former one, which may be nil.
func (s *socket) lead(l *listener) (former *listener) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	former = s.leaderLocked()
	i := slices.Index(s.listeners, l)
	if i < 0 || former == l {
		return nil
	}
	s.listeners = append(slices.Delete(s.listeners, i, i+1), l)
	s.changedLocked()
	return former
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
		l, changed := s.leader()
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
