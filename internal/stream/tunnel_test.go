package stream_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/sandman-proxy/sandman/internal/stream"
)

// tunnel is a stream between a client and an app, with a proxy that copies.
type tunnel struct {
	t       *testing.T
	body    *stream.Body
	client  net.Conn // the client's end
	app     net.Conn // the app's end
	toApp   *collector
	toUser  *collector
	counted atomic.Int64
	live    atomic.Bool
	wake    func() error // of Count, nil: succeeds
	ended   chan struct{}
}

// collector keeps what arrives at an end.
type collector struct {
	in  chan []byte
	all []byte
}

func collect(conn io.Reader) *collector {
	c := &collector{in: make(chan []byte, 10_000)}
	go func() {
		defer close(c.in)
		for {
			p := make([]byte, 4096)
			n, err := conn.Read(p)
			if n > 0 {
				c.in <- p[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	return c
}

// take gives what has arrived since the last call.
func (c *collector) take() []byte {
	synctest.Wait()
	for {
		select {
		case p, ok := <-c.in:
			if ok {
				c.all = append(c.all, p...)
				continue
			}
		default:
		}
		got := c.all
		c.all = nil
		return got
	}
}

// dig opens a tunnel, in a bubble of synctest. It is live from a message that counts to the next send.
func dig(t *testing.T, opts stream.Options) *tunnel {
	t.Helper()
	tun := &tunnel{t: t, ended: make(chan struct{})}
	upstream, app := net.Pipe()
	proxy, client := net.Pipe()
	opts.WebSocket = true
	opts.Judge, opts.Live = verdictOf, tun.live.Load
	opts.Count = func(context.Context) error {
		tun.counted.Add(1)
		var err error
		if tun.wake != nil {
			err = tun.wake()
		}
		tun.live.Store(err == nil)
		return err
	}
	tun.body, tun.client, tun.app = stream.NewBody(t.Context(), upstream, opts), client, app
	tun.toApp, tun.toUser = collect(app), collect(client)
	go tun.copy(proxy)
	t.Cleanup(func() {
		_, _ = client.Close(), app.Close()
		<-tun.ended
	})
	synctest.Wait() // the proxy copies
	return tun
}

// copy is what a reverse proxy does with a 101.
func (tun *tunnel) copy(proxy net.Conn) {
	defer close(tun.ended)
	done := make(chan error, 2)
	go func() { // the client gets the end of its connection with the upstream's
		_, err := io.Copy(proxy, tun.body)
		_ = proxy.Close()
		done <- err
	}()
	go func() {
		_, err := io.Copy(tun.body, proxy)
		if err == nil {
			err = tun.body.CloseWrite()
		}
		_ = tun.body.Close()
		done <- err
	}()
	<-done
	<-done
}

func (tun *tunnel) send(frames ...[]byte) {
	tun.t.Helper()
	tun.live.Store(false)
	for _, f := range frames {
		if _, err := tun.client.Write(f); err != nil {
			tun.t.Fatalf("the client can't send: %v", err)
		}
	}
	synctest.Wait()
}

func (tun *tunnel) wantAtApp(what string, want ...[]byte) {
	tun.t.Helper()
	if got := tun.toApp.take(); !bytes.Equal(got, bytes.Join(want, nil)) {
		tun.t.Errorf("%s: the app got %x, want %x", what, got, bytes.Join(want, nil))
	}
}

func (tun *tunnel) wantAtClient(what string, want ...[]byte) {
	tun.t.Helper()
	if got := tun.toUser.take(); !bytes.Equal(got, bytes.Join(want, nil)) {
		tun.t.Errorf("%s: the client got %x, want %x", what, got, bytes.Join(want, nil))
	}
}

func (tun *tunnel) wantCounted(what string, want int64) {
	tun.t.Helper()
	synctest.Wait()
	if got := tun.counted.Load(); got != want {
		tun.t.Errorf("%s: counted %d times, want %d", what, got, want)
	}
}

// wantEnd checks that the client's connection has ended, and all that served it.
func (tun *tunnel) wantEnd() {
	tun.t.Helper()
	synctest.Wait()
	_ = tun.client.Close() // a browser does as soon as it has seen the end
	select {
	case <-tun.ended:
	case <-time.After(10 * time.Second):
		tun.t.Error("the stream does not end")
	}
}

var (
	key    = clientFrame(ws.OpText, "key")
	noise  = clientFrame(ws.OpText, "noise")
	noise2 = clientFrame(ws.OpBinary, "noise 2")
	gulp   = clientFrame(ws.OpText, "swallow")
	ping1  = clientFrame(ws.OpPing, "are you there?")
	pong1  = serverFrame(ws.OpPong, "are you there?")
	hello  = serverFrame(ws.OpText, "hello")
)

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Parallel()
	synctest.Test(t, f)
}
