package e2e_test

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/flate"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// The Autobahn test suite itself is in neither Debian nor PyPI today, only its library is. So this is its published
// list of cases, written anew: a client that sends frames byte by byte as each case wants them, malformed
// ones too, to a strict server by Autobahn's own library in a sandbox. Each case is played at the sandbox's
// own address and through Sandman: all that the client sees must be the same, frame by frame. The server's
// word on a violation is in its close frame, so what is malformed has reached it as it was.
//
// SANDMAN_AUTOBAHN=all adds what takes minutes: large messages (group 9), and thousands of compressed ones (12, 13).

const autobahnPort = 9001

func TestAutobahn_sameVerdictsWithAndWithoutTheProxy(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id := s.create(t)
	script, err := filepath.Abs("autobahn/echo.py")
	if err != nil {
		t.Fatal(err)
	}
	// not any python3 on the path, but Debian's: the library comes from there
	s.run(t, id, fmt.Sprintf("setsid /usr/bin/python3 %s %d >echo.log 2>&1 </dev/null &", script, autobahnPort))
	address := net.JoinHostPort(strings.TrimSpace(s.run(t, id, "echo $SANDBOX_IP")), fmt.Sprint(autobahnPort))
	eventually(t, readyWithin, "the echo server listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	sandbox := place{address: address, host: address}
	proxy := place{
		address: strings.TrimPrefix(s.data, "http://"),
		host:    s.request(t.Context(), http.MethodGet, id, autobahnPort, "/", nil).Host,
	}
	for _, c := range autobahnCases(os.Getenv("SANDMAN_AUTOBAHN") == "all") {
		t.Run(c.name, func(t *testing.T) {
			direct, err := sandbox.play(c)
			if err != nil {
				t.Fatal(err)
			}
			c.requireVerdict(t, direct)
			through, err := proxy.play(c)
			if err != nil {
				t.Fatalf("through Sandman: %v", err)
			}
			requireSameSession(t, c, direct, through)
		})
	}
	if state := s.record(t, id); state.Totals.Pauses != 0 {
		t.Errorf("it was paused %d times meanwhile", state.Totals.Pauses)
	}
}

// autobahnCase is what a client sends, and what becomes of it.
type autobahnCase struct {
	name  string
	path  string // what the server is asked for, "" nothing
	offer string // Sec-WebSocket-Extensions, "" none
	steps []step
	want  []message // echoes and pongs, in order
	code  uint16    // of the server's close frame; 0: the client closes once it has all that it wants, with 1000
	bye   bool      // the steps have a close frame of the client in them
}

// step is something to send: bytes, in writes of at most chop bytes (0: in one), or a message to be
// compressed as the handshake says. A step with wait is sent when so much has come of what is wanted.
type step struct {
	bytes    []byte
	chop     int
	compress bool // bytes is a text message
	parts    int  // in so many frames, with pings between
	wait     int
}

// message is an echo or a pong.
type message struct {
	op      ws.OpCode
	payload string
}

// place is where the server can be reached.
type place struct{ address, host string }

// session is one play of a case.
type session struct {
	c         autobahnCase
	conn      net.Conn
	in        *bufio.Reader
	extension string
	seen      []string  // a line for each frame, and one for the end
	got       []message // echoes and pongs
	code      uint16    // of the server's close frame
	noContext bool      // the client compresses without context takeover

	parts   message            // of a message that goes on
	packed  bool               // it is compressed
	window  []byte             // what the server's compression can refer to
	arrived chan int           // how much of what is wanted has come
	closing chan ws.StatusCode // the client is to close, with this code
}

const autobahnDeadline = 15 * time.Second

func (p place) play(c autobahnCase) (*session, error) {
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline := autobahnDeadline
	if len(c.want) > 100 {
		deadline = 5 * time.Minute
	}
	_ = conn.SetDeadline(time.Now().Add(deadline))
	s := &session{c: c, conn: conn, in: bufio.NewReader(conn), arrived: make(chan int, len(c.want)+1), closing: make(chan ws.StatusCode, 2)}
	if err := s.handshake(p.host); err != nil {
		return nil, err
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.write()
	}()
	s.read()
	close(s.arrived)
	close(s.closing)
	_ = conn.SetWriteDeadline(time.Now()) // nobody reads what is not sent yet
	<-written
	return s, nil
}

func (s *session) handshake(host string) error {
	extensions := ""
	if s.c.offer != "" {
		extensions = "Sec-WebSocket-Extensions: " + s.c.offer + "\r\n"
	}
	_, err := fmt.Fprintf(s.conn, "GET /%s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", s.c.path, host, extensions)
	if err != nil {
		return err
	}
	res, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return fmt.Errorf("reading the answer to the handshake: %w", err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		return fmt.Errorf("the handshake was answered %s %v", res.Status, res.Header)
	}
	s.extension = strings.Join(res.Header.Values("Sec-Websocket-Extensions"), ", ")
	s.noContext = strings.Contains(s.extension, noContextTakeover)
	return nil
}

const noContextTakeover = "client_no_context_takeover"

// write sends the steps, then the close frame when read says so. An error is not its to report: the
// server may have had enough, and that is what read sees.
func (s *session) write() {
	var packed bytes.Buffer
	pack, _ := flate.NewWriter(&packed, flate.DefaultCompression) // fails for no such level only
	come := 0
	for _, st := range s.c.steps {
		for come < st.wait {
			n, ok := <-s.arrived
			if !ok {
				return
			}
			come = n
		}
		data := st.bytes
		if st.compress {
			if s.noContext {
				pack.Reset(&packed)
			}
			packed.Reset()
			_, _ = pack.Write(data)
			_ = pack.Flush()
			data = compressedFrames(bytes.TrimSuffix(packed.Bytes(), []byte("\x00\x00\xff\xff")), max(1, st.parts))
		}
		for piece := range slices.Chunk(data, cmp.Or(st.chop, max(1, len(data)))) {
			if _, err := s.conn.Write(piece); err != nil {
				return
			}
		}
	}
	if code, ok := <-s.closing; ok {
		_, _ = s.conn.Write(frame(ws.OpClose, string(ws.NewCloseFrameBody(code, ""))))
	}
}

// read notes what comes up to the end of the connection.
func (s *session) read() {
	s.progress()
	for {
		header, err := ws.ReadHeader(s.in)
		if err != nil {
			s.seen = append(s.seen, endOf(err))
			return
		}
		payload := make([]byte, header.Length)
		if _, err := io.ReadFull(s.in, payload); err != nil {
			s.seen = append(s.seen, "cut within a frame: "+err.Error())
			return
		}
		s.seen = append(s.seen, fmt.Sprintf("opcode %d fin %t rsv %d masked %t, %d bytes %x", header.OpCode, header.Fin, header.Rsv, header.Masked,
			header.Length, sha256.Sum256(payload)))
		s.take(header, payload)
	}
}

// endOf says how a connection ended. A server that leaves while something is on its way to it ends with a
// reset or without, as it happens; but it is an end.
func endOf(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "still open at the deadline"
	}
	return "ended"
}

func (s *session) take(header ws.Header, payload []byte) {
	switch {
	case header.OpCode == ws.OpClose:
		code, _ := ws.ParseCloseFrameData(payload)
		s.code = uint16(code)
		if s.c.code != 0 { // answer it
			offer(s.closing, code)
		}
		return
	case header.OpCode == ws.OpPong:
		s.got = append(s.got, message{header.OpCode, string(payload)})
	case header.OpCode.IsData():
		if header.OpCode != ws.OpContinuation {
			s.parts, s.packed = message{op: header.OpCode}, header.Rsv1()
		}
		s.parts.payload += string(payload)
		if !header.Fin {
			return
		}
		if s.packed {
			s.parts.payload = s.inflate(s.parts.payload)
		}
		s.got = append(s.got, s.parts)
	}
	s.progress()
}

// progress tells write of what has come.
func (s *session) progress() {
	offer(s.arrived, len(s.got))
	if len(s.got) == len(s.c.want) && s.c.code == 0 && !s.c.bye {
		offer(s.closing, ws.StatusNormalClosure)
	}
}

// offer sends what there is room for: a server that says more than is wanted must not block the reader.
func offer[T any](to chan T, v T) {
	select {
	case to <- v:
	default:
	}
}

// inflate unpacks a message of the server, which may refer to those before.
func (s *session) inflate(payload string) string {
	r := flate.NewReaderDict(io.MultiReader(strings.NewReader(payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")), s.window)
	out, err := io.ReadAll(r)
	if err != nil {
		return "not inflatable: " + err.Error()
	}
	s.window = append(s.window, out...)
	s.window = s.window[max(0, len(s.window)-32<<10):]
	return string(out)
}

// requireVerdict fails the test unless the server has done as the case wants: else it compares nothing.
func (c autobahnCase) requireVerdict(t *testing.T, s *session) {
	t.Helper()
	for i := range min(len(c.want), len(s.got)) {
		if c.want[i] != s.got[i] {
			t.Fatalf("message %d is %.60q of opcode %d, want %.60q of %d", i, s.got[i].payload, s.got[i].op, c.want[i].payload, c.want[i].op)
		}
	}
	want := c.code
	if want == 0 {
		want = uint16(ws.StatusNormalClosure)
	}
	if len(s.got) != len(c.want) || s.code != want || s.seen[len(s.seen)-1] != "ended" {
		t.Fatalf("%d messages and close code %d, want %d and %d; seen:\n%s", len(s.got), s.code, len(c.want), want, strings.Join(s.seen, "\n"))
	}
}

// requireSameSession fails the test where a client sees through Sandman anything else than directly.
func requireSameSession(t *testing.T, c autobahnCase, direct, through *session) {
	t.Helper()
	want := direct.extension
	if want != "" && !direct.noContext {
		want += "; " + noContextTakeover // Sandman's own, so that messages can be told apart
	}
	if through.extension != want {
		t.Errorf("the extension is %q, want %q", through.extension, want)
	}
	if !slices.Equal(direct.seen, through.seen) || !slices.Equal(direct.got, through.got) {
		t.Errorf("directly\n%s\nthrough Sandman\n%s", strings.Join(direct.seen, "\n"), strings.Join(through.seen, "\n"))
	}
}
