package handover

import (
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a connection that can be taken from its server, which finds it closed
// then, and be given to the next one: where the server has read nothing from
// it, or, in HTTP/1.1 without TLS, closes it between two requests or before it
// has begun to serve one.
//
// What Go's server does with a connection says how far it is. It reports
// StateActive when it has read a request's head, looks whether it is shutting
// down, and then either closes the connection or serves the request, and reads
// on meanwhile. Nothing comes between.
type conn struct {
	*net.TCPConn
	listener *listener

	// Only for reads, of which there is one at a time, and between requests.
	unread   []byte // what another server had read
	later    int64  // how many bytes were read while the request was served
	ahead    bool   // one more was read to watch for the client's end: it is the next request's
	aheadOne byte

	serving atomic.Bool // a request is being served, or what follows an upgrade: nothing can be taken

	mu      sync.Mutex // guards the following fields
	plain   bool       // HTTP/1.1 without TLS
	taken   bool
	closing bool // the server has closed it, maybe between two requests
	reading bool // a read is under way
	made    time.Time
	heard   time.Time // when something came for the first request
	current request
	former  request
}

func newConn(tcp *net.TCPConn, l *listener, unread []byte) *conn {
	c := &conn{TCPConn: tcp, listener: l, unread: unread, made: time.Now(), current: request{first: true}}
	if len(unread) > 0 {
		c.heard = c.made
	}
	return c
}

// ConnState is what an HTTP server's [http.Server.ConnState] must call. It does
// nothing for connections of other listeners.
func ConnState(nc net.Conn, state http.ConnState) {
	c, direct := nc.(*conn)
	for ok := direct; !ok; c, ok = nc.(*conn) {
		inner, wraps := nc.(interface{ NetConn() net.Conn }) // *tls.Conn, and most others that wrap one
		if !wraps {
			return
		}
		nc = inner.NetConn()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.plain = direct
	case http.StateActive:
		c.plain = c.plain && !c.current.isHTTP2()
		c.current.whole = true
	case http.StateIdle:
		if c.plain {
			c.answeredLocked()
		} else {
			c.current.whole = true // HTTP/2's begins with this state
		}
		if c.closing {
			c.closing = false
			if !c.takeLocked() {
				_ = c.closeLocked()
			}
		}
	case http.StateHijacked:
		c.plain = false
		c.serveLocked()
	case http.StateClosed:
		if c.closing {
			_ = c.closeLocked()
		}
	}
}

// answeredLocked is called between two requests.
func (c *conn) answeredLocked() {
	next := request{read: c.former.read[:0]}
	if c.ahead {
		next.read = append(next.read, c.aheadOne)
	}
	c.former, c.current = c.current, next
	c.former.later, c.later, c.ahead = c.later, 0, false
	c.serving.Store(false)
}

// serveLocked: nothing can be taken, at least until the request is answered.
func (c *conn) serveLocked() {
	c.forgetLocked()
	if !c.plain {
		c.current, c.former = request{lost: true}, request{}
	}
	c.serving.Store(true)
}

// forgetLocked: nobody needs to wait for c any more.
func (c *conn) forgetLocked() {
	if c.current.first {
		c.listener.forget(c)
	}
}

// useLocked is called when the server does something with the connection.
func (c *conn) useLocked() error {
	if c.taken || c.closing {
		return net.ErrClosed
	}
	if c.current.whole {
		c.serveLocked()
	}
	return nil
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if c.serving.Load() {
		return c.readOn(p)
	}
	c.mu.Lock()
	err := c.useLocked()
	if err != nil || c.serving.Load() {
		c.mu.Unlock()
		if err != nil {
			return 0, err
		}
		return c.readOn(p)
	}
	if !c.current.looked {
		c.current.look(len(p))
	}
	c.reading = true
	c.mu.Unlock()

	n, err := c.read(p)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	if c.taken {
		c.current.add(p[:n])
		c.giveAwayLocked(err)
		return 0, net.ErrClosed
	}
	if n > 0 {
		c.heard = time.Now()
	}
	if c.plain {
		c.current.add(p[:n])
	}
	c.current.lost = c.current.lost || err != nil || n > 0 && !c.plain
	return n, err
}

func (c *conn) read(p []byte) (int, error) {
	if len(c.unread) > 0 {
		n := copy(p, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	}
	return c.TCPConn.Read(p)
}

// readOn reads while a request is served.
func (c *conn) readOn(p []byte) (int, error) {
	n, err := c.read(p)
	if len(p) > 1 {
		c.later += int64(n)
	} else if n == 1 {
		c.ahead, c.aheadOne = true, p[0]
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	if !c.serving.Load() {
		c.mu.Lock()
		err := c.useLocked()
		if !c.current.whole {
			c.current.lost = true // it was told something else than an answer
		}
		c.mu.Unlock()
		if err != nil {
			return 0, err
		}
	}
	return c.TCPConn.Write(p)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken {
		return net.ErrClosed
	}
	if c.closing || c.plain && c.serving.Load() && c.listener.superseded() {
		// Shutdown may have come between the end of a request and the report of it
		c.closing = true
		c.serving.Store(false)
		return c.TCPConn.SetDeadline(past)
	}
	if c.takeLocked() {
		return nil
	}
	return c.closeLocked()
}

func (c *conn) closeLocked() error {
	c.serveLocked()
	return c.TCPConn.Close()
}

// past is a deadline that ends what is under way.
var past = time.Unix(1, 0)

// handOver takes c from its server, if nothing has come from the client yet.
func (c *conn) handOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard.IsZero() && !c.taken {
		c.takeLocked()
	}
}

// abandon closes c, if nothing has come from the client yet: Go's server, when it
// shuts down, waits for that for 5 s.
func (c *conn) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard.IsZero() && !c.taken && !c.serving.Load() {
		_ = c.TCPConn.Close()
	}
}

// takeLocked takes c from its server where that loses nothing, and there is
// another one.
func (c *conn) takeLocked() bool {
	clean := !c.current.lost && (c.current.looked || c.current.first || c.former.alone())
	if c.serving.Load() || !clean || !c.listener.superseded() {
		return false
	}
	c.taken = true
	if c.reading {
		_ = c.TCPConn.SetReadDeadline(past) // the read gives it away
	} else {
		c.giveAwayLocked(nil)
	}
	return true
}

// giveAwayLocked gives the connection to the server that leads, with what the former
// has read of a request. The error is a read's.
func (c *conn) giveAwayLocked(err error) {
	c.forgetLocked()
	if c.current.lost || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		_ = c.TCPConn.Close()
		return
	}
	_ = c.TCPConn.SetDeadline(time.Time{})
	go c.listener.socket.deliver(arrival{conn: c.TCPConn, heard: append(c.current.read, c.unread...)})
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.set(c.TCPConn.SetDeadline, t) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.set(c.TCPConn.SetReadDeadline, t) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.set(c.TCPConn.SetWriteDeadline, t) }

// set leaves alone what was taken: its deadlines are another server's.
func (c *conn) set(deadline func(time.Time) error, t time.Time) error {
	if c.serving.Load() {
		return deadline(t)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken || c.closing {
		return net.ErrClosed
	}
	return deadline(t)
}

// patience is how long a new server should wait for c's first request to be
// served: not at all where c can be taken at any time.
func (c *conn) patience(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken || c.plain || c.serving.Load() || c.heard.IsZero() {
		return 0
	}
	return max(0, quiet-now.Sub(c.heard))
}

// lastPatience is how long to wait where there is no new server.
func (c *conn) lastPatience(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken || c.serving.Load() {
		return 0
	}
	return max(0, preconnected-now.Sub(c.made), quiet-now.Sub(c.heard))
}

// Interface guard
var _ net.Conn = (*conn)(nil)
