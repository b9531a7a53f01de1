package handover

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// quiet is how long a client that has begun a request may send nothing
	// before a new server no longer waits for the rest.
	quiet = 500 * time.Millisecond

	// longest is how long a new server waits at most. Connections that are made
	// meanwhile wait with it.
	longest = time.Second

	// preconnected is how long after it was made a connection on which nothing
	// comes is waited for at the end of the process.
	preconnected = 250 * time.Millisecond
)

// listener implements Listener.
type listener struct {
	socket    *socket
	keepAlive net.KeepAliveConfig
	arrivals  chan arrival
	admitted  chan struct{} // each arrival is followed by one
	closed    chan struct{}
	close     func() error // once

	settled chan struct{} // has room for one: a connection is no longer young

	mu    sync.Mutex         // guards the following field
	young map[*conn]struct{} // whose first request has not begun to be served
}

func newListener(s *socket, keepAlive net.KeepAliveConfig) *listener {
	l := &listener{
		socket: s, keepAlive: keepAlive,
		arrivals: make(chan arrival), admitted: make(chan struct{}), closed: make(chan struct{}),
		settled: make(chan struct{}, 1), young: make(map[*conn]struct{}),
	}
	l.close = sync.OnceValue(func() error {
		close(l.closed)
		err := l.socket.leave(l)
		l.handOver()
		return err
	})
	return l
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case a := <-l.arrivals:
			c, err := l.admit(a)
			l.admitted <- struct{}{}
			if c != nil || err != nil {
				return c, err
			}
		}
	}
}

// admit gives neither where l does not lead any more: then another listener
// gets what has arrived.
func (l *listener) admit(a arrival) (net.Conn, error) {
	tcp, ok := a.conn.(*net.TCPConn)
	if a.err != nil || !ok {
		return a.conn, a.err
	}
	if l.keepAlive != l.socket.keepAlive {
		_ = tcp.SetKeepAliveConfig(l.keepAlive) // fails where the client has gone, as the first read will
	}
	c := newConn(tcp, l, a.heard)
	l.mu.Lock()
	defer l.mu.Unlock()
	if leader, _ := l.socket.leader(); leader != l {
		go l.socket.deliver(a)
		return nil, nil
	}
	l.young[c] = struct{}{}
	return c, nil
}

// forget: c is no longer young.
func (l *listener) forget(c *conn) {
	l.mu.Lock()
	delete(l.young, c)
	l.mu.Unlock()
	select {
	case l.settled <- struct{}{}:
	default:
	}
}

// superseded says whether connections are another listener's by now.
func (l *listener) superseded() bool {
	leader, _ := l.socket.leader()
	return leader != nil && leader != l
}

// Lead implements Listener.
func (l *listener) Lead(ctx context.Context) {
	if former := l.socket.lead(l); former != nil {
		former.handOver()
		former.settle(ctx, (*conn).patience)
	}
}

// Close implements net.Listener. What was accepted stays open.
func (l *listener) Close() error { return l.close() }

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.socket.Addr() }

func (l *listener) youngOnes() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*conn, 0, len(l.young))
	for c := range l.young {
		all = append(all, c)
	}
	return all
}

// handOver gives away what nothing was read from. It must be called when l
// leads no longer.
func (l *listener) handOver() {
	for _, c := range l.youngOnes() {
		c.handOver()
	}
}

// settle waits until no young connection has patience left.
func (l *listener) settle(ctx context.Context, patience func(*conn, time.Time) time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	for {
		var left time.Duration
		for _, c := range l.youngOnes() {
			left = max(left, patience(c, time.Now()))
		}
		if left == 0 {
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-l.settled:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// Interface guard
var _ Listener = (*listener)(nil)
