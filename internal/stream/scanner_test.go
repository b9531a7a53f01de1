package stream

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/gobwas/ws"
)

// frame returns one frame as a client sends it (masked) or as a server does.
func frame(t testing.TB, masked bool, h ws.Header, payload []byte) []byte {
	t.Helper()
	h.Length = int64(len(payload))
	f := ws.Frame{Header: h, Payload: payload}
	if masked {
		f = ws.MaskFrameWith(f, [4]byte{1, 2, 3, 4})
	}
	raw, err := ws.CompileFrame(f)
	if err != nil {
		t.Fatalf("compiling a frame: %v", err)
	}
	return raw
}

// trace scans p byte by byte: which bytes count, and after which is a boundary.
func trace(s *scanner, p []byte) (counts, boundary []bool) {
	for i := range p {
		first, last := s.scan(p[i : i+1])
		counts = append(counts, first == 0)
		boundary = append(boundary, last == 1)
	}
	return counts, boundary
}

// checkChunk compares one scan of p with what a trace found.
func checkChunk(t testing.TB, s *scanner, p []byte, counts, boundary []bool) {
	t.Helper()
	wantFirst, wantLast := len(p), -1
	if s.atBoundary() {
		wantLast = 0
	}
	for i := range p {
		if counts[i] {
			wantFirst = min(wantFirst, i)
		}
		if boundary[i] {
			wantLast = i + 1
		}
	}
	if first, last := s.scan(p); first != wantFirst || last != wantLast {
		t.Fatalf("scan of %d bytes = %d, %d; byte by byte it was %d, %d", len(p), first, last, wantFirst, wantLast)
	}
}

func TestScanner_tellsDataFromControl(t *testing.T) {
	t.Parallel()
	const fin = true
	data := bytes.Repeat([]byte("x"), 1<<16)
	tests := []struct {
		name   string
		header ws.Header
		size   int
		counts bool
	}{
		{"empty text", ws.Header{Fin: fin, OpCode: ws.OpText}, 0, true},
		{"one byte", ws.Header{Fin: fin, OpCode: ws.OpBinary}, 1, true},
		{"longest short length", ws.Header{Fin: fin, OpCode: ws.OpText}, 125, true},
		{"shortest 16-bit length", ws.Header{Fin: fin, OpCode: ws.OpText}, 126, true},
		{"longest 16-bit length", ws.Header{Fin: fin, OpCode: ws.OpText}, 1<<16 - 1, true},
		{"shortest 64-bit length", ws.Header{Fin: fin, OpCode: ws.OpText}, 1 << 16, true},
		{"compressed", ws.Header{Fin: fin, OpCode: ws.OpBinary, Rsv: ws.Rsv(true, false, false)}, 14, true},
		{"first fragment", ws.Header{OpCode: ws.OpText}, 14, true},
		{"middle fragment", ws.Header{OpCode: ws.OpContinuation}, 14, true},
		{"last fragment", ws.Header{Fin: fin, OpCode: ws.OpContinuation}, 14, true},
		{"ping", ws.Header{Fin: fin, OpCode: ws.OpPing}, 0, false},
		{"ping with the most it can hold", ws.Header{Fin: fin, OpCode: ws.OpPing}, 125, false},
		{"pong", ws.Header{Fin: fin, OpCode: ws.OpPong}, 4, false},
		{"close without a code", ws.Header{Fin: fin, OpCode: ws.OpClose}, 0, false},
		{"close", ws.Header{Fin: fin, OpCode: ws.OpClose}, 2, false},
	}
	for _, tt := range tests {
		for _, masked := range []bool{true, false} {
			t.Run(tt.name+map[bool]string{true: " of a client", false: " of a server"}[masked], func(t *testing.T) {
				t.Parallel()
				raw := frame(t, masked, tt.header, data[:tt.size])
				counts, boundary := trace(&scanner{masked: masked}, raw)
				for i := range raw {
					if counts[i] != tt.counts {
						t.Fatalf("byte %d of %d counts = %v", i, len(raw), counts[i])
					}
					if last := i == len(raw)-1; boundary[i] != last {
						t.Fatalf("boundary after byte %d of %d = %v", i, len(raw), boundary[i])
					}
				}
				for cut := range min(len(raw), 300) {
					s := scanner{masked: masked}
					checkChunk(t, &s, raw[:cut], counts[:cut], boundary[:cut])
					checkChunk(t, &s, raw[cut:], counts[cut:], boundary[cut:])
					if s.closed != (tt.header.OpCode == ws.OpClose) {
						t.Fatalf("cut at %d: closed = %v", cut, s.closed)
					}
				}
			})
		}
	}
}

func TestScanner_givesUpOnMalformedFrames(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		masked bool
		raw    []byte
		quiet  int // bytes before the one that gives it away
	}{
		{"reserved data opcode", true, []byte{0x83, 0x80, 0, 0, 0, 0}, 0},
		{"reserved control opcode", true, []byte{0x8b, 0x80, 0, 0, 0, 0}, 0},
		{"second reserved bit", true, []byte{0xa1, 0x80, 0, 0, 0, 0}, 0},
		{"third reserved bit", true, []byte{0x91, 0x80, 0, 0, 0, 0}, 0},
		{"compressed ping", true, []byte{0xc9, 0x80, 0, 0, 0, 0}, 0},
		{"fragmented ping", true, []byte{0x09, 0x80, 0, 0, 0, 0}, 0},
		{"ping with a 16-bit length", true, []byte{0x89, 0xfe, 0, 126, 0, 0, 0, 0}, 1},
		{"ping with a 64-bit length", true, []byte{0x89, 0xff, 0, 0, 0, 0, 0, 0, 0, 1}, 1},
		{"client's ping without a mask", true, []byte{0x89, 0x00, 0x89, 0x00}, 1},
		{"server's ping with a mask", false, []byte{0x89, 0x80, 0, 0, 0, 0}, 1},
		{"client's text without a mask", true, []byte{0x81, 0x01, 'x'}, 0},
		{"length above 63 bits", true, []byte{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0},
		{"text that is no frame at all", true, []byte("GET / HTTP/1.1\r\n\r\n"), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := scanner{masked: tt.masked}
			counts, boundary := trace(&s, tt.raw)
			for i := range tt.raw {
				if counts[i] != (i >= tt.quiet) || boundary[i] {
					t.Fatalf("byte %d: counts = %v, boundary = %v", i, counts[i], boundary[i])
				}
			}
			ping := frame(t, tt.masked, ws.Header{Fin: true, OpCode: ws.OpPing}, nil)
			if first, last := s.scan(ping); !s.lost || first != 0 || last != -1 {
				t.Fatalf("a ping afterwards: scan = %d, %d; lost = %v", first, last, s.lost)
			}
		})
	}
}

func TestScanner_seesThroughFragmentsAndControlFrames(t *testing.T) {
	t.Parallel()
	text := func(fin bool, op ws.OpCode) []byte {
		return frame(t, true, ws.Header{Fin: fin, OpCode: op}, []byte("payload"))
	}
	ping := frame(t, true, ws.Header{Fin: true, OpCode: ws.OpPing}, []byte("p"))
	parts := [][]byte{ping, text(false, ws.OpText), ping, text(false, ws.OpContinuation), ping, ping, text(true, ws.OpContinuation), ping}
	s := scanner{masked: true}
	for i, part := range parts {
		first, last := s.scan(part)
		isPing := bytes.Equal(part, ping)
		if last != len(part) || isPing != (first == len(part)) || !isPing && first != 0 {
			t.Fatalf("part %d: scan = %d, %d of %d", i, first, last, len(part))
		}
	}
	all := bytes.Join(parts, nil)
	if first, last := (&scanner{masked: true}).scan(all); first != len(ping) || last != len(all) {
		t.Fatalf("in one piece: scan = %d, %d", first, last)
	}
}

func TestScanner_losesNoLengthToOverflow(t *testing.T) {
	t.Parallel()
	s := scanner{masked: true}
	head := []byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}
	if first, last := s.scan(head); first != 0 || last != 0 || s.lost {
		t.Fatalf("scan of the longest length = %d, %d; lost = %v", first, last, s.lost)
	}
	if first, last := s.scan(make([]byte, 1<<20)); first != 0 || last != -1 {
		t.Fatalf("scan of its payload = %d, %d", first, last)
	}
	if want := uint64(1)<<63 - 1 - 1<<20; s.left != want {
		t.Fatalf("left = %d, want %d", s.left, want)
	}
}

// FuzzScanner compares with gobwas/ws, which reads whole headers from a reader,
// and any way to cut the bytes with any other.
func FuzzScanner(f *testing.F) {
	for _, op := range []ws.OpCode{ws.OpText, ws.OpContinuation, ws.OpPing, ws.OpClose, 0x3, 0xf} {
		for _, size := range []int{0, 3, 126, 1 << 16} {
			raw := frame(f, true, ws.Header{Fin: true, OpCode: op}, make([]byte, size))
			raw = raw[:min(len(raw), 400)] // a long seed only makes fuzzing slow
			f.Add(append(raw, raw...), true, uint64(size))
			f.Add(raw[:len(raw)/2+1], false, uint64(size))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, masked bool, seed uint64) {
		counts, boundary := trace(&scanner{masked: masked}, raw)
		checkAgainstLibrary(t, raw, masked, counts, boundary)

		random := rand.New(rand.NewPCG(seed, 0))
		s := scanner{masked: masked}
		for at := 0; at < len(raw); {
			n := 1 + random.IntN(min(len(raw)-at, 1+random.IntN(300)))
			checkChunk(t, &s, raw[at:at+n], counts[at:at+n], boundary[at:at+n])
			at += n
		}
	})
}

// checkAgainstLibrary walks raw by gobwas/ws for as long as the frames are whole
// and valid.
func checkAgainstLibrary(t *testing.T, raw []byte, masked bool, counts, boundary []bool) {
	t.Helper()
	state := ws.StateClientSide | ws.StateExtended // who receives the frames
	if masked {
		state = ws.StateServerSide | ws.StateExtended
	}
	in := bytes.NewReader(raw)
	for in.Len() > 0 {
		begin := len(raw) - in.Len()
		h, err := ws.ReadHeader(in)
		if err != nil {
			return
		}
		// stricter than the library: the reserved bits, and a control frame with
		// more length bytes than it needs
		bad := h.Rsv&0b011 != 0 || h.OpCode.IsControl() && (h.Rsv != 0 || raw[1]&lengthBits > 125)
		if h.OpCode == ws.OpContinuation {
			state = state.Set(ws.StateFragmented) // the order of fragments is not looked at
		} else {
			state = state.Clear(ws.StateFragmented)
		}
		if bad || ws.CheckHeader(h, state) != nil || int64(in.Len()) < h.Length {
			return
		}
		end := len(raw) - in.Len() + int(h.Length)
		for i := begin; i < end; i++ {
			if counts[i] != h.OpCode.IsData() || boundary[i] != (i == end-1) {
				t.Fatalf("frame %d to %d %+v, byte %d: counts = %v, boundary = %v", begin, end, h, i, counts[i], boundary[i])
			}
		}
		in.Reset(raw[end:])
		raw, counts, boundary = raw[end:], counts[end:], boundary[end:]
	}
}

func TestCloseFrame_isWhatALibraryReads(t *testing.T) {
	t.Parallel()
	long := string(bytes.Repeat([]byte("ä"), 100)) // 200 bytes; 123 would split one
	tests := []struct {
		name, reason, want string
	}{
		{"no reason", "", ""},
		{"a reason", "service restart", "service restart"},
		{"longest", long[:122], long[:122]},
		{"too long", long, long[:122]},
		{"no text at all", string(bytes.Repeat([]byte{0xff}, 200)), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := bytes.NewReader(closeFrame(StatusServiceRestart, tt.reason))
			h, err := ws.ReadHeader(in)
			if err != nil {
				t.Fatal(err)
			}
			if err := ws.CheckHeader(h, ws.StateClientSide); err != nil || h.Length != int64(in.Len()) {
				t.Fatalf("header %+v before %d bytes: %v", h, in.Len(), err)
			}
			payload := make([]byte, h.Length)
			_, _ = in.Read(payload)
			code, reason := ws.ParseCloseFrameData(payload)
			if code != StatusServiceRestart || reason != tt.want {
				t.Fatalf("close frame = %d %q, want %q", code, reason, tt.want)
			}
		})
	}
}

func TestIsCloseFrame_wantsExactlyOne(t *testing.T) {
	t.Parallel()
	bye := frame(t, true, ws.Header{Fin: true, OpCode: ws.OpClose}, []byte{0x03, 0xe9})
	ping := frame(t, true, ws.Header{Fin: true, OpCode: ws.OpPing}, nil)
	tests := []struct {
		name string
		p    []byte
		want bool
	}{
		{"close", bye, true},
		{"nothing", nil, false},
		{"half of it", bye[:5], false},
		{"two", append(bytes.Clone(bye), bye...), false},
		{"after a ping", append(bytes.Clone(ping), bye...), false},
		{"a ping", ping, false},
		{"a server's", closeFrame(1001, ""), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := isCloseFrame(tt.p); got != tt.want {
				t.Fatalf("isCloseFrame(%x) = %v", tt.p, got)
			}
		})
	}
}
