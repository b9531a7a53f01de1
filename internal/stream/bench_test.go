package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
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

// watched is a Body that does all it can: it judges, inflates and counts both sides.
func watched(t testing.TB, upstream io.ReadWriteCloser, live bool) *stream.Body {
	var n atomic.Int64
	return stream.NewBody(t.Context(), upstream, stream.Options{
		WebSocket: true, Inflate: true, Judge: verdictOf,
		Live:        func() bool { return live },
		Count:       func(context.Context) error { n.Add(1); return nil },
		CountServer: func() { n.Add(1) },
	})
}

func TestAllocations_noneOnTheHotPath(t *testing.T) { // not parallel: it counts the process's
	if raceDetector {
		t.Log("pools forget at random under the race detector: nothing is counted")
		return
	}
	client, server := frames(4 << 10)
	large, _ := frames(5 << 10)
	packed := compressedFrame(true, ws.OpText, deflated(t, strings.Repeat("noise", 100)))
	upstream := &endless{Writer: io.Discard, frames: server}
	live, dormant, parked := watched(t, upstream, true), watched(t, upstream, false), watched(t, upstream, false)
	parked.Park()
	meter := stream.NewMeter(&endless{frames: server}, func() {}, func() {})
	p := make([]byte, 32<<10)
	write := func(b *stream.Body, p []byte) func() { return func() { _, _ = b.Write(p) } }
	for name, f := range map[string]func(){
		"live, judged":        write(live, client),
		"live, too large":     write(live, large),
		"live, compressed":    write(live, packed),
		"dormant, noise":      write(dormant, noise),
		"dormant, compressed": write(dormant, packed),
		"parked, swallowed":   write(parked, gulp),
		"Meter.Read":          func() { _, _ = meter.Read(p) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: allocates %v times", name, n)
		}
	}
	// to begin with, and nothing for each of its 256 reads
	if n := testing.AllocsPerRun(10, func() { _, _ = live.WriteTo(&budget{8 << 20}) }); n > 4 {
		t.Errorf("WriteTo of 8 MiB allocates %v times", n)
	}
}

// budget takes bytes until it is used up.
type budget struct{ left int }

func (b *budget) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left <= 0 {
		return len(p), io.ErrShortWrite
	}
	return len(p), nil
}

// A parked stream holds what it needs to wait, and two stacks: 10,000 of them may.
func TestMemory_ofParkedStreams(t *testing.T) { // not parallel: it measures the process
	const streams = 1000
	before := inUse()
	ended := make(chan struct{}, 2*streams)
	all := make([]*stream.Body, streams)
	var clients []net.Conn
	for i := range all {
		upstream, app := net.Pipe()
		proxy, client := net.Pipe()
		b := watched(t, upstream, false)
		all[i], clients = b, append(clients, client, app)
		go func() { _, _ = io.Copy(proxy, b); ended <- struct{}{} }()
		go func() { _, _ = io.Copy(b, proxy); ended <- struct{}{} }()
		_, _ = client.Write(noise)
		_, _ = io.ReadFull(app, make([]byte, len(noise)))
		go func() { _, _ = app.Write(hello) }()
		_, _ = io.ReadFull(client, make([]byte, len(hello)))
	}
	for _, b := range all {
		b.Park()
	}
	for i := range all { // both directions have taken their small buffers once they answer
		_, _ = clients[2*i].Write(gulp)
		_, _ = clients[2*i].Write(ping1)
		_, _ = io.ReadFull(clients[2*i], make([]byte, len(pong1)))
		_, _ = clients[2*i+1].Write(hello[:0])
	}
	each := (inUse() - before) / streams
	t.Logf("%d bytes for each parked stream, with its two goroutines and the pipes", each)
	if each > 20<<10 && !raceDetector {
		t.Errorf("a parked stream takes %d bytes", each)
	}
	for _, c := range clients {
		_ = c.Close()
	}
	for _, b := range all {
		_ = b.Close()
	}
	for range 2 * streams {
		<-ended
	}
}

func inUse() int {
	runtime.GC()
	runtime.GC() // the pools let go in the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// The cost of the metering itself: nothing is moved but one copy in memory.
func BenchmarkBody(b *testing.B) {
	for _, size := range []int{1, 4 << 10, 16 << 10} {
		client, server := frames(size)
		name := strconv.Itoa(size) + "B"
		b.Run("write/"+name, func(b *testing.B) {
			body := watched(b, &endless{Writer: io.Discard}, true)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = body.Write(client[:len(client)/8])
			}
		})
		b.Run("read/"+name, func(b *testing.B) {
			body := watched(b, &endless{frames: server}, true)
			b.ReportAllocs()
			b.SetBytes(int64(len(server) / 8))
			_, _ = body.WriteTo(&budget{b.N * len(server) / 8})
		})
	}
}

// BenchmarkTunnel copies frames through a body over real TCP, as a proxy does,
// beside the same with no Body between.
func BenchmarkTunnel(b *testing.B) {
	for _, size := range []int{100, 4 << 10} {
		client, server := frames(size)
		for _, wrap := range []struct {
			name string
			body func(net.Conn) io.ReadWriter
		}{
			{"bare", func(c net.Conn) io.ReadWriter { return struct{ io.ReadWriter }{c} }},
			{"metered", func(c net.Conn) io.ReadWriter { return watched(b, c, true) }},
		} {
			b.Run(fmt.Sprintf("write/%dB/%s", size, wrap.name), func(b *testing.B) {
				conn, app := tcpPair(b)
				go func() { _, _ = io.Copy(io.Discard, app) }()
				benchmarkCopy(b, wrap.body(conn), &pieces{frame: client[:len(client)/8], left: b.N}, len(client)/8)
			})
			b.Run(fmt.Sprintf("read/%dB/%s", size, wrap.name), func(b *testing.B) {
				conn, app := tcpPair(b)
				go func() {
					for {
						if _, err := app.Write(server); err != nil {
							return
						}
					}
				}()
				benchmarkCopy(b, &budget{b.N * len(server) / 8}, wrap.body(conn), len(server)/8)
			})
		}
	}
}

func benchmarkCopy(b *testing.B, to io.Writer, from io.Reader, frame int) {
	b.Helper()
	b.SetBytes(int64(frame))
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := io.Copy(to, from); err != nil && !errors.Is(err, io.ErrShortWrite) {
		b.Fatal(err)
	}
}

// pieces gives one frame at each Read.
type pieces struct {
	frame []byte
	left  int
}

func (p *pieces) Read(to []byte) (int, error) {
	if p.left--; p.left < 0 {
		return 0, io.EOF
	}
	return copy(to, p.frame), nil
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
