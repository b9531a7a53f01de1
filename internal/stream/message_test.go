package stream_test

import (
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/sandman-proxy/sandman/internal/stream"
)

// deflated is a message as a client sends it that takes no context over.
func deflated(t testing.TB, payload string) string {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, payload)
	_ = w.Flush()
	return strings.TrimSuffix(out.String(), "\x00\x00\xff\xff")
}

func compressedFrame(fin bool, op ws.OpCode, payload string) []byte {
	f := ws.NewFrame(op, fin, []byte(payload))
	f.Header.Rsv = ws.Rsv(op != ws.OpContinuation, false, false)
	return ws.MustCompileFrame(ws.MaskFrameWith(f, [4]byte{7, 1, 250, 3}))
}

// verdictOf is the judge of these tests: the first letter says what a message is.
func verdictOf(m stream.Message) stream.Verdict {
	switch {
	case bytes.HasPrefix(m.Payload, []byte("noise")):
		return stream.Noise
	case bytes.HasPrefix(m.Payload, []byte("swallow")):
		return stream.Swallow
	default:
		return stream.Counts
	}
}

func TestJudge_seesWholeMessages(t *testing.T) {
	t.Parallel()
	ping := clientFrame(ws.OpPing, "p")
	full := strings.Repeat("x", 4096)
	packed := deflated(t, full+full)
	tests := []struct {
		name    string
		inflate bool
		frames  [][]byte
		judged  []string // "t" or "b" and the payload
		counts  int      // with what nobody was asked about
	}{
		{"text", false, [][]byte{clientFrame(ws.OpText, "hello")}, []string{"thello"}, 1},
		{"binary", false, [][]byte{clientFrame(ws.OpBinary, "\x00\x01")}, []string{"b\x00\x01"}, 1},
		{"empty", false, [][]byte{clientFrame(ws.OpText, "")}, []string{"t"}, 1},
		{"fragments with a ping between", false, [][]byte{
			fragment(false, ws.OpBinary, "he"), ping, fragment(false, ws.OpContinuation, ""), ping, fragment(true, ws.OpContinuation, "llo"),
		}, []string{"bhello"}, 1},
		{"noise and more", false, [][]byte{clientFrame(ws.OpText, "noise"), clientFrame(ws.OpText, "x")}, []string{"tnoise", "tx"}, 1},
		{"noise only", false, [][]byte{clientFrame(ws.OpText, "noise"), ping}, []string{"tnoise"}, 0},
		{"longest", false, [][]byte{clientFrame(ws.OpText, full)}, []string{"t" + full}, 1},
		{"too long", false, [][]byte{clientFrame(ws.OpText, "noise"+full)}, nil, 1},
		{"too long in fragments", false, [][]byte{fragment(false, ws.OpText, "noise"), fragment(true, ws.OpContinuation, full)}, nil, 1},
		{"compressed, not to be inflated", false, [][]byte{compressedFrame(true, ws.OpText, deflated(t, "noise"))}, nil, 1},
		{"compressed", true, [][]byte{compressedFrame(true, ws.OpText, deflated(t, "noise"))}, []string{"tnoise"}, 0},
		{"compressed to fragments", true, [][]byte{
			compressedFrame(false, ws.OpText, packed[:3]), ping, compressedFrame(true, ws.OpContinuation, packed[3:]),
		}, []string{"t" + full + full}, 1},
		{"compressed and empty", true, [][]byte{compressedFrame(true, ws.OpText, "\x00")}, []string{"t"}, 1},
		{"compressed to almost nothing", true, [][]byte{compressedFrame(true, ws.OpText, deflated(t, strings.Repeat("noise", 20_000)))}, nil, 1},
		{"compressed, broken", true, [][]byte{compressedFrame(true, ws.OpText, "\xff\xff\xff")}, nil, 1},
		{"compressed, cut short", true, [][]byte{compressedFrame(true, ws.OpText, packed[:len(packed)-2])}, nil, 1},
		{"a fragment without a beginning", false, [][]byte{fragment(true, ws.OpContinuation, "noise")}, []string{"tnoise"}, 0},
		{"two beginnings", false, [][]byte{fragment(false, ws.OpText, "lost"), clientFrame(ws.OpText, "noise")}, []string{"tnoise"}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			all := bytes.Join(tt.frames, nil)
			for cut := 1; cut <= len(all); cut += 1 + cut/9 {
				var out sink
				var n counter
				var judged []string
				missed := 0
				body := stream.NewBody(t.Context(), &out, stream.Options{WebSocket: true, Count: n.count, Inflate: tt.inflate, Judge: func(m stream.Message) stream.Verdict {
					if m.Payload == nil {
						missed++
						return stream.Noise // which must not matter
					}
					judged = append(judged, map[bool]string{true: "b", false: "t"}[m.Binary]+string(m.Payload))
					return verdictOf(m)
				}})
				for piece := range slices.Chunk(all, cut) {
					if n, err := body.Write(piece); n != len(piece) || err != nil {
						t.Fatalf("Write of %d bytes = %d, %v", len(piece), n, err)
					}
				}
				if !slices.Equal(judged, tt.judged) {
					t.Fatalf("in pieces of %d it judged %.60q, want %.60q", cut, judged, tt.judged)
				}
				if unseen := tt.counts > 0 && len(tt.judged) == 0; unseen != (missed == 1) {
					t.Fatalf("in pieces of %d the judge was told %d times of a message that it does not see", cut, missed)
				}
				if got := n.n.Load(); (got > 0) != (tt.counts > 0) {
					t.Fatalf("in pieces of %d it counted %d times", cut, got)
				}
				if !bytes.Equal(out.Bytes(), all) {
					t.Fatalf("in pieces of %d the upstream got %x", cut, out.Bytes())
				}
			}
		})
	}
}

// What a busy stream sends is looked into a few times in each 100 ms; what is not looked into counts only
// where something that was has just counted.
func TestJudge_isSparedByABusyStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out sink
		var n counter
		asked, missed := 0, 0
		body := stream.NewBody(t.Context(), &out, stream.Options{WebSocket: true, Count: n.count, Judge: func(m stream.Message) stream.Verdict {
			if m.Payload == nil {
				missed++
				return stream.Noise
			}
			asked++
			return verdictOf(m)
		}})
		const few = 16
		send := func(what string, times, wantAsked, wantMissed int, wantCounts bool) {
			t.Helper()
			asked, missed = 0, 0
			before := n.n.Load()
			for range times {
				_, _ = body.Write(clientFrame(ws.OpText, what))
			}
			if counts := n.n.Load() > before; asked != wantAsked || missed != wantMissed || counts != wantCounts {
				t.Errorf("of %d times %q it was asked about %d and told that it missed some %d times, counted: %v", times, what, asked, missed, counts)
			}
		}
		send("noise", 1000, 1000, 0, false) // noise alone is looked into for as long as it comes
		send("key", 1000, 1, 1, true)
		send("noise", 1, 0, 0, true)
		time.Sleep(99 * time.Millisecond)
		send("noise", 1, 0, 0, true)
		time.Sleep(time.Millisecond)
		send("noise", few-1, few-1, 0, false)
		send("key", 1, 1, 0, true)
		send("noise", 1, 0, 1, true)
		time.Sleep(100 * time.Millisecond)
		send("key", few-2, few-2, 0, true) // a person's pace
		send("noise", 1, 1, 0, false)
		if want := 1000 + 1000 + 2 + few + 1 + few - 1; len(out.Bytes()) == 0 || frameCount(out.Bytes()) != want {
			t.Errorf("the upstream got %d messages, want %d", frameCount(out.Bytes()), want)
		}
	})
}

// frameCount counts short frames of a client.
func frameCount(p []byte) (n int) {
	for ; len(p) > 0; n++ {
		p = p[2+4+int(p[1]&0x7f):]
	}
	return n
}

func TestWrite_holdsNothingWhileLive(t *testing.T) {
	t.Parallel()
	var out sink
	var n counter
	body := stream.NewBody(t.Context(), &out, stream.Options{WebSocket: true, Count: n.count, Judge: verdictOf, Live: func() bool { return true }})
	whole := clientFrame(ws.OpText, "noise, and then more")
	for i := range whole {
		_, _ = body.Write(whole[i : i+1])
		if out.Len() != i+1 {
			t.Fatalf("after %d bytes the upstream had %d", i+1, out.Len())
		}
	}
	if n.n.Load() != 0 || !body.LastCounted().IsZero() {
		t.Errorf("noise counted %d times, last %v", n.n.Load(), body.LastCounted())
	}
}

func TestWrite_holdsADormantMessageUntilItIsJudged(t *testing.T) {
	t.Parallel()
	ping := clientFrame(ws.OpPing, "p")
	tests := []struct {
		name   string
		writes [][]byte
		has    []int // bytes the upstream has after each write
		counts int64
	}{
		{"noise", [][]byte{clientFrame(ws.OpText, "noise")[:7], clientFrame(ws.OpText, "noise")[7:]}, []int{0, 11}, 0},
		{"swallow is delivered all the same", [][]byte{clientFrame(ws.OpText, "swallow")}, []int{13}, 0},
		{"counting", [][]byte{clientFrame(ws.OpText, "k")[:6], clientFrame(ws.OpText, "k")[6:]}, []int{0, 7}, 1},
		{"pings are not held", [][]byte{ping[:3], ping[3:]}, []int{3, 7}, 0},
		{"a ping within a message follows it", [][]byte{fragment(false, ws.OpText, "noi"), ping[:3], ping[3:], fragment(true, ws.OpContinuation, "se")}, []int{0, 0, 0, 9 + 7 + 8}, 0},
		{"too long is known by its header", [][]byte{clientFrame(ws.OpText, "noise"+strings.Repeat("x", 5000))[:8], []byte("xyz")}, []int{8, 11}, 2},
		{"many fragments", [][]byte{fragment(false, ws.OpText, "noise"), bytes.Repeat(fragment(false, ws.OpContinuation, ""), 3000)}, []int{0, 11 + 6*3000}, 1},
		{"no frames", [][]byte{{0xff}, {0xff}}, []int{1, 2}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out sink
			var n counter
			live := false
			body := stream.NewBody(t.Context(), &out, stream.Options{WebSocket: true, Judge: verdictOf, Live: func() bool { return live }, Count: n.count})
			if body.State() != stream.StateDormant {
				t.Errorf("it is %s", body.State())
			}
			for i, p := range tt.writes {
				if _, err := body.Write(p); err != nil {
					t.Fatal(err)
				}
				if out.Len() != tt.has[i] {
					t.Errorf("after write %d the upstream has %d bytes, want %d", i, out.Len(), tt.has[i])
				}
			}
			if got := n.n.Load(); (got > 0) != (tt.counts > 0) || tt.counts == 1 && tt.name == "counting" && got != 1 {
				t.Errorf("counted %d times, want %d", got, tt.counts)
			}
		})
	}
}

func TestResends_proveNothingAtTheBeginning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n counter
		body := stream.NewBody(t.Context(), &sink{}, stream.Options{WebSocket: true, Count: n.count, Judge: verdictOf, Resends: 10 * time.Second})
		key := clientFrame(ws.OpText, "k")
		_, _ = body.Write(key)
		if n.n.Load() != 0 {
			t.Error("what is sent again counts")
		}
		body.Park()
		_, _ = body.Write(key)
		if n.n.Load() != 1 {
			t.Error("it does not count on a parked stream")
		}
		time.Sleep(10 * time.Second)
		_, _ = body.Write(key)
		if n.n.Load() != 2 {
			t.Error("it does not count later")
		}
	})
}

// FuzzMessages holds for any bytes: whatever way they are cut, the same messages
// are judged, the same bytes have been forwarded when something first counts, and
// the same in the end.
func FuzzMessages(f *testing.F) {
	mixed := bytes.Join([][]byte{
		clientFrame(ws.OpPing, "a"), clientFrame(ws.OpText, "noise 1"), fragment(false, ws.OpBinary, "swallow"), clientFrame(ws.OpPong, ""),
		fragment(true, ws.OpContinuation, " 2"), compressedFrame(true, ws.OpText, deflated(f, "noise, more noise")), clientFrame(ws.OpText, "key"),
		clientFrame(ws.OpText, "noise 3"), clientFrame(ws.OpBinary, string(make([]byte, 4097))), clientFrame(ws.OpText, "noise 4"),
		clientFrame(ws.OpClose, "\x03\xe8"), clientFrame(ws.OpText, "late"),
	}, nil)
	for mode := range uint8(3) {
		f.Add(mixed, uint64(mode), mode)
		f.Add(append(bytes.Clone(mixed), mixed[:40]...)[30:], uint64(mode), mode)
		f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint64(mode), mode)
	}
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64, mode uint8) {
		whole := runMessages(t, [][]byte{raw}, mode%3)
		random := rand.New(rand.NewPCG(seed, 1))
		var pieces [][]byte
		for rest := raw; len(rest) > 0; {
			n := 1 + random.IntN(min(len(rest), 1+random.IntN(60)))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		cut := runMessages(t, pieces, mode%3)
		if !slices.Equal(whole.judged, cut.judged) || !bytes.Equal(whole.out, cut.out) {
			t.Fatalf("mode %d: in one piece %+v, in %d pieces %+v", mode%3, whole, len(pieces), cut)
		}
		if mode%3 == 0 && !bytes.Equal(whole.out, raw) {
			t.Fatalf("live: the upstream got %x, want %x", whole.out, raw)
		}
		// what looks like the header of a ping may turn out to be none
		if late := cut.first - whole.first; mode%3 != 0 && (late < 0 || late > 13 || late > 0 && whole.first < 0) && len(raw) < 16<<10 {
			t.Fatalf("mode %d: something first counted after %d bytes in one piece, %d in pieces", mode%3, whole.first, cut.first)
		}
		if mode%3 == 1 && !bytes.HasPrefix(raw, whole.out) {
			t.Fatalf("dormant: the upstream got %x of %x", whole.out, raw)
		}
	})
}

type messagesRun struct {
	judged []string
	out    []byte
	first  int // bytes the upstream had at the first Count, -1
}

// runMessages writes pieces to a stream that is live (0), dormant for ever (1) or
// parked at first (2).
func runMessages(t *testing.T, pieces [][]byte, mode uint8) messagesRun {
	run := messagesRun{first: -1}
	var out sink
	body := stream.NewBody(t.Context(), &out, stream.Options{
		WebSocket: true, Inflate: true,
		Live: func() bool { return mode == 0 },
		Judge: func(m stream.Message) stream.Verdict {
			run.judged = append(run.judged, fmt.Sprint(m.Binary, m.Size, string(m.Payload)))
			return verdictOf(m)
		},
		Count: func(context.Context) error {
			if run.first < 0 {
				run.first = out.Len()
			}
			return nil
		},
	})
	if mode == 2 {
		body.Park()
	}
	for _, p := range pieces {
		if n, err := body.Write(p); n != len(p) || err != nil {
			t.Fatalf("Write of %d bytes = %d, %v", len(p), n, err)
		}
	}
	run.out = bytes.Clone(out.Bytes())
	return run
}
