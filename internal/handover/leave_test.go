package handover_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
)

// At the end a connection is refused, or its request is answered.
func TestLeave_answersWhatItHasAccepted(t *testing.T) {
	t.Parallel()
	for range 10 {
		var p place
		s := p.next(t, "last", nil)
		asked := make(chan struct{}, 20)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for {
					c, err := net.Dial("tcp", p.addr)
					if err != nil {
						return // refused
					}
					conn := &client{Conn: c, r: bufio.NewReader(c)}
					_, err = io.WriteString(c, getRequest)
					if err == nil {
						_, _, err = conn.receive()
					}
					c.Close()
					if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
						return // it has waited to be accepted
					}
					if err != nil {
						t.Errorf("a request is lost: %v", err)
						return
					}
					select {
					case asked <- struct{}{}:
					default:
					}
				}
			})
		}
		for range cap(asked) {
			<-asked
		}
		p.sockets.Leave(t.Context())
		requireEnded(t, s.shutDown(t))
		all.Wait()
	}
}

// Go's server would wait for it.
func TestLeave_closesWhatIsSilent(t *testing.T) {
	t.Parallel()
	p := place{made: make(chan struct{}, 1)}
	s := p.next(t, "last", nil)
	conn := p.dial(t)
	<-p.made
	p.sockets.Leave(t.Context())
	if got, _, err := conn.receive(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v; want the end", got, err)
	}
	requireEnded(t, s.shutDown(t))
}

func TestLeave_waitsForWhatHasNotCome(t *testing.T) {
	t.Parallel()
	p := place{made: make(chan struct{}, 1)}
	s := p.next(t, "last", nil)
	conn := p.dial(t)
	conn.send(t, getRequest[:30])
	<-p.made
	go func() {
		if _, err := io.WriteString(conn, getRequest[30:]); err != nil {
			t.Error(err)
		}
	}()
	p.sockets.Leave(t.Context())
	down := s.shutDown(t)
	conn.expect(t, "last: GET /a ")
	requireEnded(t, down)
}
