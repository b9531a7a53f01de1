package stream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/sandman-proxy/sandman/internal/stream"
)

// clientFrame returns a whole frame as a client sends it.
func clientFrame(op ws.OpCode, payload string) []byte {
	return ws.MustCompileFrame(ws.MaskFrameWith(ws.NewFrame(op, true, []byte(payload)), [4]byte{9, 8, 7, 6}))
}

// serverFrame returns a whole frame as a server sends it.
func serverFrame(op ws.OpCode, payload string) []byte {
	return ws.MustCompileFrame(ws.NewFrame(op, true, []byte(payload)))
}

// sink is an upstream that takes everything and says nothing.
type sink struct {
	bytes.Buffer
	closed int
}

func (s *sink) Read([]byte) (int, error) { return 0, io.EOF }

func (s *sink) Close() error {
	s.closed++
	return nil
}

// counter is an Options.Count that only counts.
type counter struct{ n atomic.Int64 }

func (c *counter) count(context.Context) error {
	c.n.Add(1)
	return nil
}

// pipe returns a Body and the app's end of its upstream.
func pipe(t *testing.T, opts stream.Options) (*stream.Body, net.Conn) {
	t.Helper()
	upstream, app := net.Pipe()
	body := stream.NewBody(t.Context(), upstream, opts)
	t.Cleanup(func() {
		_ = body.Close()
		_ = app.Close()
	})
	return body, app
}

// send writes p to the app's end without waiting for it to be read.
func send(app net.Conn, p []byte, then func()) {
	go func() {
		_, _ = app.Write(p)
		if then != nil {
			then()
		}
	}()
}

// checkEnd reads the rest of body: whole frames, and what it ends with.
func checkEnd(t *testing.T, body io.Reader, want []byte) {
	t.Helper()
	got, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the client gets %x, %v; want %x", got, err, want)
	}
}

// awaitState waits until the stream does what is wanted.
func awaitState(t *testing.T, b *stream.Body, want stream.State) {
	t.Helper()
	for b.State() != want {
		select {
		case <-t.Context().Done():
			t.Fatalf("the stream is %s, never %s", b.State(), want)
		case <-time.After(time.Millisecond):
		}
	}
}

func closing(code uint16, reason string) []byte {
	return ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusCode(code), reason)))
}

func TestWrite_countsBeforeTheMessageGoesOn(t *testing.T) {
	t.Parallel()
	ping, text := clientFrame(ws.OpPing, "p"), clientFrame(ws.OpText, "hello")
	long := clientFrame(ws.OpBinary, string(make([]byte, 1000)))
	tests := []struct {
		name      string
		raw       bool
		writes    [][]byte
		forwarded []int // bytes the upstream had at each call of Count
	}{
		{"a message", false, [][]byte{text}, []int{0}},
		{"control frames", false, [][]byte{ping, clientFrame(ws.OpPong, ""), clientFrame(ws.OpClose, "\x03\xe9")}, nil},
		{"a message after a ping", false, [][]byte{append(bytes.Clone(ping), text...)}, []int{0}},
		{"messages in one piece", false, [][]byte{bytes.Repeat(text, 3)}, []int{0}},
		{"a ping after a message", false, [][]byte{text, ping}, []int{0}},
		{"a message in pieces", false, [][]byte{long[:1], long[1:500], long[500:]}, []int{1, 500}},
		{"a ping in pieces", false, [][]byte{ping[:1], ping[1:2], ping[2:]}, nil},
		{"an empty message", false, [][]byte{clientFrame(ws.OpText, "")}, []int{0}},
		{"an unmasked ping", false, [][]byte{serverFrame(ws.OpPing, "p"), ping}, []int{0, 3}},
		{"no frames", false, [][]byte{[]byte("SSH-2.0-x"), ping}, []int{0, 9}},
		{"another protocol", true, [][]byte{ping, {0}}, []int{0, len(ping)}},
		{"nothing", false, [][]byte{{}, nil}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var upstream sink
			var forwarded []int
			body := stream.NewBody(t.Context(), &upstream, stream.Options{
				WebSocket: !tt.raw,
				Count: func(context.Context) error {
					forwarded = append(forwarded, upstream.Len())
					return nil
				},
			})
			for _, p := range tt.writes {
				if n, err := body.Write(p); n != len(p) || err != nil {
					t.Fatalf("Write of %d bytes = %d, %v", len(p), n, err)
				}
			}
			if want := bytes.Join(tt.writes, nil); !bytes.Equal(upstream.Bytes(), want) {
				t.Errorf("the upstream got %x, want %x", upstream.Bytes(), want)
			}
			if len(forwarded) != len(tt.forwarded) {
				t.Fatalf("counted with %v bytes forwarded, want %v", forwarded, tt.forwarded)
			}
			for i, want := range tt.forwarded {
				if forwarded[i] != want {
					t.Fatalf("counted with %v bytes forwarded, want %v", forwarded, tt.forwarded)
				}
			}
		})
	}
}

func TestWrite_closesTheStreamWhenCountFails(t *testing.T) {
	t.Parallel()
	boom := errors.New("no wake today")
	tests := []struct {
		name string
		code uint16 // that Count itself closes with
		want []byte
	}{
		{"by itself", 0, closing(stream.StatusTryAgainLater, "the upstream can't be reached now")},
		{"as the owner says", 4001, closing(4001, "mine")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var body *stream.Body
			var calls atomic.Int64
			body, app := pipe(t, stream.Options{WebSocket: true, Count: func(context.Context) error {
				calls.Add(1)
				if tt.code != 0 {
					body.CloseWith(tt.code, "mine")
				}
				return boom
			}})
			for range 2 { // the second finds the stream closed
				p := clientFrame(ws.OpText, "wake up")
				if n, err := body.Write(p); n != len(p) || err != nil {
					t.Fatalf("Write = %d, %v: the proxy would drop the client before it has the close frame", n, err)
				}
			}
			if calls.Load() != 1 {
				t.Errorf("Count was called %d times", calls.Load())
			}
			checkEnd(t, body, tt.want)
			if got, err := io.ReadAll(app); len(got) != 0 || err != nil {
				t.Errorf("the app got %x, %v", got, err)
			}
		})
	}
}

func TestWrite_endsAClientThatIgnoresTheClose(t *testing.T) {
	t.Parallel()
	body, _ := pipe(t, stream.Options{WebSocket: true})
	body.CloseWith(1001, "")
	p := clientFrame(ws.OpBinary, string(make([]byte, 64<<10)))
	var err error
	var taken int
	for err == nil && taken < 8<<20 {
		_, err = body.Write(p)
		taken += len(p)
	}
	if !errors.Is(err, io.ErrClosedPipe) || taken < 1<<20 {
		t.Fatalf("after %d bytes: %v", taken, err)
	}
}

func TestWrite_dropsAGoodByeThatCrossesAnotherWrite(t *testing.T) {
	t.Parallel()
	inCount, ended := make(chan struct{}), make(chan error, 1)
	var upstream sink
	body := stream.NewBody(t.Context(), &upstream, stream.Options{WebSocket: true, Count: func(ctx context.Context) error {
		close(inCount)
		<-ctx.Done()
		return ctx.Err()
	}})
	go func() {
		_, err := body.Write(clientFrame(ws.OpText, "x"))
		ended <- err
	}()
	<-inCount
	bye := clientFrame(ws.OpClose, "\x03\xe9")
	if n, err := body.Write(bye); n != len(bye) || err != nil {
		t.Errorf("Write of the close frame = %d, %v", n, err)
	}
	if err := body.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the Write that waited = %v", err)
	}
	if upstream.Len() != 0 || upstream.closed != 1 {
		t.Errorf("the upstream got %x and was closed %d times", upstream.Bytes(), upstream.closed)
	}
}

func TestWrite_waitsForItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var upstream sink
		release := make(chan struct{})
		body := stream.NewBody(t.Context(), &upstream, stream.Options{WebSocket: true, Count: func(context.Context) error {
			<-release
			return nil
		}})
		var both sync.WaitGroup
		both.Go(func() { _, _ = body.Write(clientFrame(ws.OpText, "first")) })
		synctest.Wait()
		close(release)
		both.Go(func() { _, _ = body.Write(clientFrame(ws.OpPing, "second")) })
		both.Wait()
		want := append(clientFrame(ws.OpText, "first"), clientFrame(ws.OpPing, "second")...)
		if !bytes.Equal(upstream.Bytes(), want) {
			t.Errorf("the upstream got %x, want %x", upstream.Bytes(), want)
		}
	})
}

func TestRead_countsTheServerOnlyIfAsked(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		raw   bool
		bytes []byte
		want  int
	}{
		{"message", false, serverFrame(ws.OpText, "x"), 1},
		{"ping", false, serverFrame(ws.OpPing, ""), 0},
		{"other protocol", true, []byte("x"), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var client counter
			got := 0
			body, app := pipe(t, stream.Options{WebSocket: !tt.raw, Count: client.count, CountServer: func() { got++ }})
			send(app, tt.bytes, func() { _ = app.Close() })
			checkEnd(t, body, tt.bytes)
			if got != tt.want || client.n.Load() != 0 {
				t.Errorf("the server counted %d times, want %d; the client %d times", got, tt.want, client.n.Load())
			}
		})
	}
}

func TestClose_endsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var done atomic.Int64
		body, _ := pipe(t, stream.Options{WebSocket: true, Done: func() { done.Add(1) }})
		ended := make(chan error, 1)
		go func() {
			_, err := body.Read(make([]byte, 10))
			ended <- err
		}()
		synctest.Wait() // the Read is parked
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { _ = body.Close() })
		}
		all.Wait()
		if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the Read that waited = %v", err)
		}
		if _, err := body.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("a Write afterwards = %v", err)
		}
		body.CloseWith(1012, "too late")
		if _, err := body.Read(make([]byte, 10)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("a Read afterwards = %v", err)
		}
		if done.Load() != 1 {
			t.Errorf("done %d times", done.Load())
		}
	})
}

type halfCloser struct {
	sink
	err   error
	calls int
}

func (h *halfCloser) CloseWrite() error {
	h.calls++
	return h.err
}

func TestCloseWrite_isTheUpstreams(t *testing.T) {
	t.Parallel()
	upstream := &halfCloser{err: errors.New("mine")}
	body := stream.NewBody(t.Context(), upstream, stream.Options{})
	if err := body.CloseWrite(); !errors.Is(err, upstream.err) || upstream.calls != 1 {
		t.Errorf("CloseWrite = %v after %d calls", err, upstream.calls)
	}
	if err := stream.NewBody(t.Context(), &sink{}, stream.Options{}).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("CloseWrite without one beneath = %v", err)
	}
	body.CloseWith(1012, "")
	if err := body.CloseWrite(); err != nil || upstream.calls != 1 {
		t.Errorf("CloseWrite after CloseWith = %v after %d calls: the close frame may be still unread", err, upstream.calls)
	}
}

func TestCloseWrite_ofAWebSocketIsItsEnd(t *testing.T) {
	t.Parallel()
	for _, websocket := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var done atomic.Bool
			body := stream.NewBody(t.Context(), new(halfCloser), stream.Options{WebSocket: websocket, Done: func() { done.Store(true) }})
			if err := body.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(4 * time.Second)
			if done.Load() {
				t.Error("the upstream had no time for its last words")
			}
			time.Sleep(2 * time.Second)
			if done.Load() != websocket {
				t.Errorf("WebSocket: %t; the upstream was cut off: %t", websocket, done.Load())
			}
			_ = body.Close()
		})
	}
}
