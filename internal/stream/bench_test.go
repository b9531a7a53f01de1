package stream_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/gobwas/ws"

	"github.com/sandman-proxy/sandman/internal/stream"
)

// endless gives the same frames for ever, in pieces that don't end with a frame,
// and takes everything.
type endless struct {
	io.Writer
	frames []byte
	at     int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.frames[e.at:])
	e.at = (e.at + n) % len(e.frames)
	return n, nil
}

func (e *endless) Close() error { return nil }

func frames(size int) (client, server []byte) {
	payload := string(make([]byte, size))
	return bytes.Repeat(clientFrame(ws.OpBinary, payload), 8), bytes.Repeat(serverFrame(ws.OpBinary, payload), 8)
}

func metered(t testing.TB, upstream io.ReadWriteCloser) *stream.Body {
	var n atomic.Int64
	return stream.NewBody(t.Context(), upstream, stream.Options{
		WebSocket:   true,
		Count:       func(context.Context) error { n.Add(1); return nil },
		CountServer: func() { n.Add(1) },
	})
}

func TestAllocations_noneOnTheHotPath(t *testing.T) { // not parallel: it counts the process's
	client, server := frames(4 << 10)
	body := metered(t, &endless{Writer: io.Discard, frames: server})
	meter := stream.NewMeter(&endless{frames: server}, func() {}, func() {})
	p := make([]byte, 32<<10)
	for name, f := range map[string]func(){
		"Body.Write": func() { _, _ = body.Write(client) },
		"Body.Read":  func() { _, _ = body.Read(p) },
		"Meter.Read": func() { _, _ = meter.Read(p) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// The cost of the metering itself: nothing is moved but one copy in memory.
func BenchmarkBody(b *testing.B) {
	for _, size := range []int{1, 4 << 10} {
		client, server := frames(size)
		name := map[int]string{1: "1B", 4 << 10: "4KiB"}[size]
		p := make([]byte, len(client)/8)
		b.Run("write/"+name, func(b *testing.B) {
			body := metered(b, &endless{Writer: io.Discard})
			b.ReportAllocs()
			for b.Loop() {
				_, _ = body.Write(client[:len(client)/8])
			}
		})
		b.Run("read/"+name, func(b *testing.B) {
			body := metered(b, &endless{frames: server})
			b.ReportAllocs()
			for b.Loop() {
				_, _ = body.Read(p)
			}
		})
	}
}

// BenchmarkTunnel copies 4 KiB frames through a body over real TCP, as a proxy
// does, beside the same with no Body between.
func BenchmarkTunnel(b *testing.B) {
	client, server := frames(4 << 10)
	for _, wrap := range []struct {
		name string
		body func(io.ReadWriteCloser) io.ReadWriteCloser
	}{
		{"bare", func(c io.ReadWriteCloser) io.ReadWriteCloser { return c }},
		{"metered", func(c io.ReadWriteCloser) io.ReadWriteCloser { return metered(b, c) }},
	} {
		b.Run("write/"+wrap.name, func(b *testing.B) {
			conn, app := tcpPair(b)
			go func() { _, _ = io.Copy(io.Discard, app) }()
			body := wrap.body(conn)
			frame := client[:len(client)/8]
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := body.Write(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("read/"+wrap.name, func(b *testing.B) {
			conn, app := tcpPair(b)
			go func() {
				for {
					if _, err := app.Write(server); err != nil {
						return
					}
				}
			}()
			body := wrap.body(conn)
			p := make([]byte, len(server)/8)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := io.ReadFull(body, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func tcpPair(b *testing.B) (conn, app net.Conn) {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	if app, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		b.Fatal(err)
	}
	if conn, err = listener.Accept(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = conn.Close()
		_ = app.Close()
	})
	return conn, app
}

func BenchmarkMeter(b *testing.B) {
	var n atomic.Int64
	_, server := frames(4 << 10)
	meter := stream.NewMeter(&endless{frames: server}, func() { n.Add(1) }, func() {})
	p := make([]byte, 4<<10)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = meter.Read(p)
	}
}
