package stream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/sandman-proxy/sandman/internal/stream"
)

func TestCloseWith_endsAtAFrameBoundary(t *testing.T) {
	t.Parallel()
	text, ping := serverFrame(ws.OpText, "hello"), serverFrame(ws.OpPing, "")
	bye := closing(1012, "restart")
	tests := []struct {
		name   string
		before []byte // read by the client before CloseWith
		after  []byte // sent by the app afterwards; it then freezes
		want   []byte
	}{
		{"before the first frame", nil, nil, bye},
		{"after a frame", text, nil, bye},
		{"between fragments", ws.MustCompileFrame(ws.NewFrame(ws.OpText, false, []byte("a"))), nil, bye},
		{"in a header", text[:1], text[1:], append(bytes.Clone(text[1:]), bye...)},
		{"in a payload", text[:4], text[4:], append(bytes.Clone(text[4:]), bye...)},
		{"in a payload, more behind it", text[:4], append(bytes.Clone(text[4:]), text[:3]...), append(bytes.Clone(text[4:]), bye...)},
		{"in a payload, whole frames behind it", text[:4], bytes.Join([][]byte{text[4:], ping, text, text[:1]}, nil), bytes.Join([][]byte{text[4:], ping, text, bye}, nil)},
		{"in a payload that never ends", text[:4], text[4:5], text[4:5]},
		{"after the app's own close frame", closing(1000, ""), nil, nil},
		{"in the app's own close frame", closing(1000, "")[:3], closing(1000, "")[3:], closing(1000, "")[3:]},
		{"after bytes that are no frame", []byte{0xff}, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var done atomic.Int64
				body, app := pipe(t, stream.Options{WebSocket: true, Done: func() { done.Add(1) }})
				if len(tt.before) > 0 {
					send(app, tt.before, nil)
					if _, err := io.ReadFull(body, make([]byte, len(tt.before))); err != nil {
						t.Fatal(err)
					}
				}
				var reading sync.WaitGroup
				reading.Go(func() { checkEnd(t, body, tt.want) })
				synctest.Wait() // the Read is parked
				began := time.Now()
				body.CloseWith(1012, "restart")
				body.CloseWith(4000, "the first one holds")
				if len(tt.after) > 0 {
					send(app, tt.after, nil)
				}
				reading.Wait()
				if took := time.Since(began); took > time.Second {
					t.Errorf("the client waited for %v", took)
				}
				if n, err := app.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("the app can still write: %d, %v", n, err)
				}
				synctest.Wait()
				if done.Load() != 1 {
					t.Errorf("done %d times", done.Load())
				}
			})
		})
	}
}

func TestCloseWith_isSafeAtAnyTime(t *testing.T) {
	t.Parallel()
	text := serverFrame(ws.OpBinary, string(make([]byte, 3000)))
	for range 50 {
		body, app := pipe(t, stream.Options{WebSocket: true})
		go func() {
			for {
				if _, err := app.Write(text); err != nil {
					return
				}
			}
		}()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { body.CloseWith(1012, "") })
		}
		all.Go(func() {
			got, err := io.ReadAll(body)
			frames := bytes.TrimSuffix(got, closing(1012, ""))
			if err != nil || len(frames) != len(got)-4 || len(frames)%len(text) != 0 {
				t.Errorf("the client got %d bytes, %d before the close frame, %v", len(got), len(frames), err)
			}
		})
		all.Wait()
	}
}

func TestCloseWith_givesTheFrameInSmallPieces(t *testing.T) {
	t.Parallel()
	body, _ := pipe(t, stream.Options{WebSocket: true})
	body.CloseWith(1012, "restart")
	var got []byte
	for p := make([]byte, 1); ; {
		n, err := body.Read(p)
		if errors.Is(err, io.EOF) {
			break
		}
		if got = append(got, p[:n]...); err != nil || n != 1 {
			t.Fatalf("Read = %d, %v", n, err)
		}
	}
	if !bytes.Equal(got, closing(1012, "restart")) {
		t.Fatalf("the client got %x", got)
	}
}

func TestCloseWith_justEndsOtherProtocols(t *testing.T) {
	t.Parallel()
	body, app := pipe(t, stream.Options{})
	body.CloseWith(1012, "restart")
	checkEnd(t, body, nil)
	if _, err := body.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write = %v", err)
	}
	checkEnd(t, app, nil)
}

func TestOnUpstreamEnd_givesTheClientACloseFrame(t *testing.T) {
	t.Parallel()
	text := serverFrame(ws.OpText, "hello")
	restart := closing(1012, "the sandbox was paused")
	tests := []struct {
		name   string
		raw    bool
		client []byte // sent before the end
		server []byte // sent before the end
		ok     bool
		asked  int
		want   []byte
	}{
		{"at once", false, nil, nil, true, 1, restart},
		{"after a message", false, nil, text, true, 1, append(bytes.Clone(text), restart...)},
		{"in a message", false, nil, text[:4], true, 0, text[:4]},
		{"not wanted", false, nil, text, false, 1, text},
		{"after the server's close frame", false, nil, closing(4000, "x"), true, 0, closing(4000, "x")},
		{"after the client's close frame", false, clientFrame(ws.OpClose, "\x03\xe8"), text, true, 0, text},
		{"after bytes that are no frame", false, nil, []byte{0xff}, true, 0, []byte{0xff}},
		{"another protocol", true, nil, text, true, 0, text},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			var body *stream.Body
			body, app := pipe(t, stream.Options{WebSocket: !tt.raw, OnUpstreamEnd: func(context.Context) bool {
				asked++
				if tt.ok {
					body.Park()
					body.Unpark() // it is awake again
				}
				return tt.ok
			}})
			go func() {
				_, _ = io.ReadFull(app, make([]byte, len(tt.client)))
				_, _ = app.Write(tt.server)
				_ = app.Close()
			}()
			if len(tt.client) > 0 {
				if _, err := body.Write(tt.client); err != nil {
					t.Fatal(err)
				}
			}
			checkEnd(t, body, tt.want)
			checkEnd(t, body, nil) // the end stays the end
			if asked != tt.asked {
				t.Errorf("asked %d times, want %d", asked, tt.asked)
			}
		})
	}
}

func TestOnUpstreamEnd_mayHoldTheClient(t *testing.T) {
	t.Parallel()
	held := make(chan struct{})
	body, app := pipe(t, stream.Options{WebSocket: true, OnUpstreamEnd: func(ctx context.Context) bool {
		close(held)
		<-ctx.Done()
		return false
	}})
	_ = app.Close()
	var reading sync.WaitGroup
	reading.Go(func() { checkEnd(t, body, closing(1012, "awake again")) })
	<-held
	body.CloseWith(1012, "awake again") // by somebody else, while the owner holds it
	reading.Wait()
}

// broken is an upstream that refuses bytes, and has still something to say.
type broken struct {
	io.Reader
	closed chan struct{}
}

func (b broken) Write([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (b broken) Close() error {
	close(b.closed)
	return nil
}

// until is a reader that blocks until the upstream is closed.
type until chan struct{}

func (u until) Read([]byte) (int, error) {
	<-u
	return 0, io.ErrClosedPipe
}

func TestWrite_leavesTheEndOfTheUpstreamToRead(t *testing.T) {
	t.Parallel()
	bye := closing(4000, "my last words")
	tests := []struct {
		name  string
		words []byte
		ends  bool
		want  []byte
	}{
		{"with its last words unread", bye, true, bye},
		{"without a word", nil, true, closing(1012, "the sandbox was paused")},
		{"without an end", nil, false, closing(1012, "the sandbox was paused")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var n counter
				upstream := broken{bytes.NewReader(tt.words), make(chan struct{})}
				if !tt.ends {
					upstream.Reader = until(upstream.closed)
				}
				body := stream.NewBody(t.Context(), upstream, stream.Options{
					WebSocket: true, Count: n.count,
					OnUpstreamEnd: func(context.Context) bool { return true },
				})
				for range 3 {
					if _, err := body.Write(clientFrame(ws.OpText, "x")); err != nil {
						t.Fatalf("Write = %v: the proxy would drop the client before it has the close frame", err)
					}
				}
				if err := body.CloseWrite(); err != nil {
					t.Errorf("CloseWrite = %v", err)
				}
				checkEnd(t, body, tt.want)
				if n.n.Load() == 0 {
					t.Error("nothing has counted: who wakes the sandbox?")
				}
				_ = body.Close()
				<-upstream.closed
			})
		})
	}
}

func TestWrite_reportsAnEndThatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	for _, opts := range []stream.Options{{WebSocket: true}, {OnUpstreamEnd: func(context.Context) bool { return true }}} {
		body := stream.NewBody(t.Context(), broken{nil, make(chan struct{})}, opts)
		if _, err := body.Write(clientFrame(ws.OpText, "x")); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Write with %+v = %v", opts, err)
		}
	}
}

// lastWords gives bytes and an error in one Read, as io.Reader allows.
type lastWords struct {
	sink
	words []byte
	err   error
}

func (l *lastWords) Read(p []byte) (int, error) {
	n := copy(p, l.words)
	l.words = l.words[n:]
	return n, l.err
}

func TestRead_keepsTheErrorThatCameWithBytes(t *testing.T) {
	t.Parallel()
	text := serverFrame(ws.OpText, "x")
	boom := errors.New("connection reset by peer")
	body := stream.NewBody(t.Context(), &lastWords{words: text, err: boom}, stream.Options{WebSocket: true})
	got, err := io.ReadAll(body)
	if !bytes.Equal(got, text) || !errors.Is(err, boom) {
		t.Errorf("the client gets %x, %v", got, err)
	}
	if n, err := body.Read(nil); n != 0 || err != nil {
		t.Errorf("Read into nothing = %d, %v", n, err)
	}
}
