package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/sandman-proxy/sandman/internal/stream"
)

func TestPark_keepsAllFromTheUpstream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tun := dig(t, stream.Options{})
		tun.send(noise)
		tun.wantAtApp("before", noise)
		tun.body.Park()
		tun.body.Park()
		if tun.body.State() != stream.StateParked {
			t.Errorf("it is %s", tun.body.State())
		}
		tun.send(ping1, noise, gulp, noise2[:4], noise2[4:], ping1)
		tun.wantAtApp("parked")
		tun.wantAtClient("parked", pong1, pong1)
		_, _ = tun.app.Write(hello) // was on its way
		tun.wantAtClient("late words", hello)
		tun.wantCounted("parked", 0)

		tun.body.Unpark()
		tun.body.Unpark()
		tun.wantAtApp("awake again", noise, noise2)
		tun.send(ping1, gulp)
		tun.wantAtApp("afterwards", ping1, gulp)
		tun.wantCounted("awake by somebody else", 0)
	})
}

func TestPark_wakesByAMessageThatCounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tun := dig(t, stream.Options{})
		tun.body.Park()
		awake := make(chan error)
		tun.wake = func() error { return <-awake }
		tun.send(noise, fragment(false, ws.OpText, "k"), ping1, noise2[:0], fragment(true, ws.OpContinuation, "ey")[:3])
		tun.wantCounted("half a message", 0)
		tun.wantAtClient("half a message", pong1)
		tun.send(fragment(true, ws.OpContinuation, "ey")[3:])
		tun.wantCounted("a message", 1)
		tun.wantAtApp("while it wakes")
		awake <- nil
		tun.wantAtApp("awake", noise, fragment(false, ws.OpText, "k"), fragment(true, ws.OpContinuation, "ey"))
		if tun.body.State() != stream.StateActive || tun.body.LastCounted() != time.Now() {
			t.Errorf("it is %s and counted at %v", tun.body.State(), tun.body.LastCounted())
		}
		tun.body.Park() // by what was told before the wake
		tun.body.Unpark()
		tun.wantAtClient("in the end")
	})
}

func TestPark_inTheMiddleOfAClientsFrame(t *testing.T) {
	for _, whole := range [][]byte{ping1, noise, gulp} {
		for cut := 1; cut < len(whole); cut += 3 {
			t.Run("", func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					tun := dig(t, stream.Options{})
					tun.send(whole[:cut])
					had := tun.toApp.take()
					tun.body.Park()
					tun.send(whole[cut:], noise2)
					tun.wantAtApp("parked")
					answer := tun.toUser.take()
					tun.body.Unpark()
					got := append(had, tun.toApp.take()...)
					want := append(bytes.Clone(whole), noise2...)
					if len(had) == 0 && bytes.Equal(whole, gulp) {
						want = noise2
					}
					if !bytes.Equal(got, want) || len(answer) > 0 {
						t.Errorf("cut at %d the app got %x, want %x; the client got %x", cut, got, want, answer)
					}
				})
			})
		}
	}
}

func TestUnpark_inTheMiddleOfAClientsFrame(t *testing.T) {
	for _, whole := range [][]byte{ping1, noise, key} {
		for cut := 1; cut < len(whole); cut += 3 {
			t.Run("", func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					tun := dig(t, stream.Options{})
					tun.body.Park()
					tun.send(noise2, whole[:cut])
					tun.body.Unpark()
					tun.send(whole[cut:], noise2)
					tun.wantAtApp("in the end", noise2, whole, noise2)
					tun.wantAtClient("in the end")
				})
			})
		}
	}
}

func TestPark_neverThinsWhatItKeeps(t *testing.T) {
	for _, own := range []bool{true, false} {
		t.Run("", func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tun := dig(t, stream.Options{})
				tun.body.Park()
				long := clientFrame(ws.OpText, "noise"+strings.Repeat(".", 4000))
				tun.send(long, long, long, long)
				tun.wantCounted("almost too much", 0)
				tun.send(long, ping1)
				tun.wantAtClient("too much", pong1)
				if own {
					tun.send(key)
					tun.wantCounted("a key", 1)
				} else {
					tun.body.Unpark()
				}
				tun.wantAtApp("awake")
				tun.wantAtClient("awake", closing(1012, "too much was sent while the sandbox slept"))
				tun.wantEnd()
			})
		})
	}
}

func TestPark_aClientsCloseWakesNothing(t *testing.T) {
	for body, want := range map[string][]byte{
		"":              closing(1000, ""),
		"\x03\xe9bye":   closing(1001, ""),
		"\x0f\xa0mine":  closing(4000, ""),
		"\x03\xedfake!": closing(1000, ""), // 1005 is never sent
	} {
		t.Run("", func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tun := dig(t, stream.Options{})
				tun.body.Park()
				tun.send(noise, clientFrame(ws.OpClose, body))
				tun.wantAtClient("closing", want)
				tun.wantAtApp("closing")
				tun.wantCounted("closing", 0)
				tun.wantEnd()
			})
		})
	}
}

func TestPark_keepsOnePong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tun := dig(t, stream.Options{})
		tun.body.Park()
		tun.send(clientFrame(ws.OpPong, "1"), noise, clientFrame(ws.OpPong, "2"))
		tun.body.Unpark()
		tun.wantAtApp("awake", clientFrame(ws.OpPong, "2"), noise)
	})
}

func TestPark_endsWithTheClientsConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tun := dig(t, stream.Options{})
		tun.body.Park()
		_ = tun.client.Close()
		tun.wantEnd()
		tun.wantCounted("gone", 0)
	})
}

func TestPing_asksTheClient(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tun := dig(t, stream.Options{OnUpstreamEnd: paused})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := tun.body.Ping(ctx); !errors.Is(err, stream.ErrNotParked) {
			t.Errorf("Ping of a stream that is not parked = %v", err)
		}
		tun.body.Park()
		answers := make(chan error, 2)
		for range 2 {
			go func() { answers <- tun.body.Ping(ctx) }()
			synctest.Wait()
		}
		asked := tun.toUser.take()
		if len(asked) != 20 || asked[0] != 0x89 || bytes.Equal(asked[:10], asked[10:]) {
			t.Fatalf("the client got %x", asked)
		}
		// a client may answer the last ping only
		tun.send(clientFrame(ws.OpPong, "another's"), clientFrame(ws.OpPong, string(asked[12:])))
		for range 2 {
			if err := <-answers; err != nil {
				t.Errorf("Ping of a client that answers = %v", err)
			}
		}
		if err := tun.body.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Ping of a client that does not answer = %v", err)
		}
		go func() { answers <- tun.body.Ping(t.Context()) }()
		synctest.Wait()
		tun.body.Unpark()
		if err := <-answers; !errors.Is(err, stream.ErrNotParked) {
			t.Errorf("Ping of a stream that wakes = %v", err)
		}
		tun.wantAtApp("awake", clientFrame(ws.OpPong, "another's"))

		_ = tun.toUser.take()
		_, _ = tun.app.Write(hello[:3])
		tun.body.Park()
		if err := tun.body.Ping(t.Context()); err == nil || errors.Is(err, stream.ErrNotParked) {
			t.Errorf("Ping within a frame = %v", err)
		}
		tun.body.CloseWith(1001, "")
		if err := tun.body.Ping(t.Context()); err == nil {
			t.Error("Ping of a stream that ends succeeds")
		}
	})
}

func TestKeepAlive_speaksForTheServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var seen [][]byte
		tun := dig(t, stream.Options{
			ObserveServer: func(p []byte) { seen = append(seen, bytes.Clone(p)) },
			KeepAlive:     func() stream.KeepAlive { return stream.KeepAlive{Ping: "2", Pong: "noise 3", Every: 10 * time.Second} },
		})
		answer, beat := clientFrame(ws.OpText, "noise 3"), serverFrame(ws.OpText, "2")
		_, _ = tun.app.Write(append(bytes.Clone(hello), serverFrame(ws.OpBinary, "x")...))
		tun.wantAtClient("awake", hello, serverFrame(ws.OpBinary, "x"))
		if len(seen) != 1 || string(seen[0]) != "hello" {
			t.Errorf("the owner saw %q", seen)
		}
		tun.body.Park()
		tun.send(answer) // to the server's own
		time.Sleep(6 * time.Second)
		tun.wantAtClient("half a period later", beat)
		tun.send(answer)
		time.Sleep(10 * time.Second)
		tun.wantAtClient("a period later", beat)
		tun.send(answer, ping1)
		tun.wantAtClient("a ping", pong1)
		tun.wantCounted("parked", 0)
		tun.body.Unpark()
		tun.wantAtApp("awake", answer)
		time.Sleep(time.Minute)
		tun.wantAtClient("awake")

		_, _ = tun.app.Write(ws.MustCompileFrame(ws.NewFrame(ws.OpText, false, []byte("a"))))
		_ = tun.toUser.take()
		tun.body.Park()
		time.Sleep(time.Minute)
		tun.wantAtClient("within a message")
	})
}

// A protocol whose messages may be cut into several of WebSocket, all but the last
// of which are long.
func TestKeepAlive_comesBetweenAProtocolsMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tun := dig(t, stream.Options{KeepAlive: func() stream.KeepAlive {
			return stream.KeepAlive{Ping: "alive", Binary: true, After: 20, Every: 10 * time.Second}
		}})
		_, _ = tun.app.Write(hello)
		_ = tun.toUser.take()
		tun.body.Park()
		time.Sleep(6 * time.Second)
		alive := serverFrame(ws.OpBinary, "alive")
		tun.wantAtClient("half a period later", alive)
		tun.send(clientFrame(ws.OpText, "")) // no answer: none is awaited
		tun.wantCounted("an empty message", 1)

		for i, long := range [][]byte{
			serverFrame(ws.OpBinary, strings.Repeat("x", 21)),
			slices.Concat(
				ws.MustCompileFrame(ws.NewFrame(ws.OpBinary, false, bytes.Repeat([]byte("x"), 11))), serverFrame(ws.OpPing, ""),
				ws.MustCompileFrame(ws.NewFrame(ws.OpContinuation, true, bytes.Repeat([]byte("x"), 10)))),
		} {
			_, _ = tun.app.Write(long)
			_ = tun.toUser.take()
			tun.body.Park()
			time.Sleep(time.Minute)
			tun.wantAtClient(fmt.Sprintf("after long message %d", i))
			_, _ = tun.app.Write(serverFrame(ws.OpBinary, "end"))
			_ = tun.toUser.take()
			time.Sleep(10 * time.Second)
			tun.wantAtClient(fmt.Sprintf("after the end of message %d", i), alive)
			tun.body.Unpark()
		}
	})
}

// A server that has been silent before the pause has said all of its message, unless
// more of it comes.
func TestKeepAlive_followsWhatTheServerHadSaidLongBefore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tun := dig(t, stream.Options{KeepAlive: func() stream.KeepAlive {
			return stream.KeepAlive{Ping: "alive", Binary: true, After: 20, Silence: time.Second, Every: 10 * time.Second}
		}})
		long := serverFrame(ws.OpBinary, strings.Repeat("x", 21))
		alive := serverFrame(ws.OpBinary, "alive")
		for _, silence := range []time.Duration{999 * time.Millisecond, time.Second} {
			_, _ = tun.app.Write(long)
			_ = tun.toUser.take()
			time.Sleep(silence)
			tun.body.Park()
			time.Sleep(6 * time.Second)
			if silence < time.Second {
				tun.wantAtClient("too soon after a long message")
				tun.body.Unpark()
				continue
			}
			tun.wantAtClient("after a long message and silence", alive)
		}
		_, _ = tun.app.Write(long) // it was sent before the pause, and comes now
		_ = tun.toUser.take()
		time.Sleep(time.Minute)
		tun.wantAtClient("after a late message")
	})
}

// Bytes of a protocol that nobody knows: each wakes, none is answered.
func TestPark_otherProtocols(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var out sink
		awake := make(chan error)
		var live atomic.Bool
		body := stream.NewBody(t.Context(), &out, stream.Options{Live: live.Load, Count: func(context.Context) error {
			err := <-awake
			live.Store(true)
			return err
		}})
		body.Park()
		go func() { _, _ = body.Write(ping1) }()
		synctest.Wait()
		if out.Len() != 0 {
			t.Errorf("parked, the upstream got %x", out.Bytes())
		}
		awake <- nil
		synctest.Wait()
		if !bytes.Equal(out.Bytes(), ping1) || body.State() != stream.StateActive {
			t.Errorf("awake, the upstream got %x; it is %s", out.Bytes(), body.State())
		}
		_ = body.Close()
	})
}

// Of a stream whose messages don't count all is noise.
func TestPark_whereNothingCounts(t *testing.T) {
	t.Parallel()
	var out sink
	body := stream.NewBody(t.Context(), &out, stream.Options{WebSocket: true})
	body.Park()
	_, _ = body.Write(key)
	_, _ = body.Write(noise)
	if out.Len() != 0 {
		t.Errorf("parked, the upstream got %x", out.Bytes())
	}
	body.Unpark()
	_, _ = body.Write(ping1)
	if want := bytes.Join([][]byte{key, noise, ping1}, nil); !bytes.Equal(out.Bytes(), want) {
		t.Errorf("the upstream got %x, want %x", out.Bytes(), want)
	}
}

// A pause by hand begins while a message is being counted: the message does not undo it, but wakes.
func TestPark_whileAMessageIsCounted(t *testing.T) {
	t.Parallel()
	var (
		out  sink
		live atomic.Bool
		body *stream.Body
		n    int
	)
	body = stream.NewBody(t.Context(), &out, stream.Options{WebSocket: true, Judge: verdictOf, Live: live.Load, Count: func(context.Context) error {
		switch n++; n {
		case 1: // it counts; then the pause begins, before the message goes on
			body.Park()
		case 2: // the sandbox has slept, and was woken
			if out.Len() != 0 || body.State() != stream.StateParked {
				t.Errorf("asleep, the upstream got %x; the stream is %s", out.Bytes(), body.State())
			}
			live.Store(true)
		}
		return nil
	}})
	if _, err := body.Write(key); err != nil {
		t.Fatal(err)
	}
	if n != 2 || !bytes.Equal(out.Bytes(), key) || body.State() != stream.StateActive {
		t.Errorf("counted %d times; the upstream got %x; the stream is %s", n, out.Bytes(), body.State())
	}
	_ = body.Close()
}

// What the server sent before a pause, and the client reads after it, wakes nothing.
func TestPark_countsNoWordsFromBefore(t *testing.T) {
	t.Parallel()
	counted := 0
	upstream := readOnly{bytes.NewReader(serverFrame(ws.OpText, "printed"))}
	body := stream.NewBody(t.Context(), upstream, stream.Options{WebSocket: true, CountServer: func() { counted++ }})
	body.Park()
	var got bytes.Buffer
	_, _ = io.Copy(&got, io.LimitReader(body, 9))
	if counted != 0 || got.Len() != 9 {
		t.Errorf("the client got %x, which counted %d times", got.Bytes(), counted)
	}
	_ = body.Close()
}

type readOnly struct{ io.Reader }

func (readOnly) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (readOnly) Close() error              { return nil }
