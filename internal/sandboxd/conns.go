package sandboxd

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// conns are the connections into sandboxes that this process has dialled, for
// the fault that cuts them. Without the fault nothing is kept of them.
type conns struct {
	mu   sync.Mutex // guards open
	open map[string]map[*trackedConn]struct{}
}

// trackedConn takes itself off the list when it is closed.
type trackedConn struct {
	*net.TCPConn
	owner *conns
	id    string
}

func (c *trackedConn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.open[c.id], c)
	c.owner.mu.Unlock()
	return c.TCPConn.Close()
}

func (cs *conns) track(id string, c *net.TCPConn) net.Conn {
	t := &trackedConn{TCPConn: c, owner: cs, id: id}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		cs.open = map[string]map[*trackedConn]struct{}{}
	}
	if cs.open[id] == nil {
		cs.open[id] = map[*trackedConn]struct{}{}
	}
	cs.open[id][t] = struct{}{}
	return t
}

// cut resets a sandbox's connections, as a host that stops a machine does.
func (cs *conns) cut(id string) {
	cs.mu.Lock()
	list := cs.open[id]
	delete(cs.open, id)
	cs.mu.Unlock()
	for c := range list {
		_ = c.SetLinger(0)
		_ = c.TCPConn.Close()
	}
}

// ErrNotRunning says that a sandbox is not running at the moment.
var ErrNotRunning = fmt.Errorf("the sandbox is not running")

// DialContext opens a connection to a port of a running sandbox. The error wraps
// [ErrUnknown] or [ErrNotRunning], or is that of the dial, such as
// syscall.ECONNREFUSED where nothing listens. Under the fault cut_connections the
// connection is reset when the sandbox is paused; otherwise it is kept, and goes
// on after the resume.
func (h *Host) DialContext(ctx context.Context, id string, port uint16) (net.Conn, error) {
	l, err := h.Lookup(id)
	if err != nil {
		return nil, fmt.Errorf("dialling sandbox %q: %w", id, err)
	}
	if l.State != StateRunning {
		return nil, fmt.Errorf("dialling sandbox %q: %w", id, ErrNotRunning)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", l.Addr(port).String())
	if err != nil {
		return nil, fmt.Errorf("dialling sandbox %q: %w", id, err)
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok || !h.currentFaults().CutConnections {
		return c, nil
	}
	return h.conns.track(id, tcp), nil
}
