package main

import (
	"bytes"
	"cmp"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/gobwas/ws"
)

// The two ends of a busy WebSocket. Both cost as little as can be, so that what is
// measured is the proxy between them: a message is made once and sent again and
// again, each by a write of its own, as WebSocket libraries do. What is received is
// counted, frame by frame, and not unmasked.

const framesPath = "/frames"

// flood says what one side sends to the other.
type flood struct {
	size    int    // of a message before it is compressed
	deflate bool   // permessage-deflate
	way     string // up to the server, down to the client, or to and fro: the next when the last is back
}

const (
	up   = "up"
	down = "down"
	fro  = "to and fro"
)

func (f flood) String() string {
	s := fmt.Sprintf("%d B", f.size)
	if f.size >= 1<<10 {
		s = fmt.Sprintf("%d KiB", f.size>>10)
	}
	if f.deflate {
		s += " deflated"
	}
	return s + ", " + f.way
}

func (f flood) query() string {
	return fmt.Sprintf("?size=%d&deflate=%t&way=%s", f.size, f.deflate, url.QueryEscape(f.way))
}

func floodOf(r *http.Request) (f flood, err error) {
	q := r.URL.Query()
	f.way = q.Get("way")
	f.size, err = strconv.Atoi(q.Get("size"))
	if err == nil {
		f.deflate, err = strconv.ParseBool(q.Get("deflate"))
	}
	return f, err
}

// header is what either side says of compression in the handshake.
func (f flood) header() string {
	if !f.deflate {
		return ""
	}
	return "Sec-WebSocket-Extensions: permessage-deflate\r\n"
}

// frame is the message that is sent, the same on every call.
func (f flood) frame(masked bool) ([]byte, error) {
	payload := words(f.size)
	frame := ws.NewTextFrame(payload)
	if f.deflate {
		var out bytes.Buffer
		w, err := flate.NewWriter(&out, flate.BestSpeed)
		if err == nil {
			_, err = w.Write(payload)
		}
		if err = cmp.Or(err, w.Flush()); err != nil {
			return nil, err
		}
		// what every message ends with is left away (RFC 7692, section 7.2.1)
		frame = ws.NewTextFrame(bytes.TrimSuffix(out.Bytes(), []byte{0, 0, 0xff, 0xff}))
		frame.Header.Rsv = ws.Rsv(true, false, false)
	}
	if masked {
		frame = ws.MaskFrameInPlaceWith(frame, [4]byte{'m', 'a', 's', 'k'})
	}
	return ws.CompileFrame(frame)
}

// words gives text that compresses as well as what editors send.
func words(size int) []byte {
	vocabulary := strings.Fields(`{"method": "params": "textDocument/didChange" line character 0, 1, 2, 17, 4096, range
		start end text version uri file:///home/user/work/main.go func return error string context nil if err != {} [ ] "\n"`)
	random := rand.New(rand.NewPCG(1, 2)) // the same text everywhere
	var b bytes.Buffer
	for b.Len() < size {
		b.WriteString(vocabulary[random.IntN(len(vocabulary))])
		b.WriteByte(' ')
	}
	return b.Bytes()[:size]
}

// serveFrames is the server's side. Its close frame tells how many messages it has
// seen, or sent.
func serveFrames(w http.ResponseWriter, r *http.Request) {
	f, err := floodOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	conn, err := acceptWebSocket(w, r, f.header())
	if err != nil {
		return
	}
	defer conn.Close()
	// the client says when it is ready
	if err := echoMessage(conn); err != nil {
		return
	}
	n, err := f.exchange(conn)
	if err == nil {
		_ = ws.WriteFrame(conn, ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, strconv.Itoa(n))))
	}
}

// exchange counts the client's messages, answers each, or sends its own, up to the
// client's close frame.
func (f flood) exchange(conn net.Conn) (n int, err error) {
	switch f.way {
	case up:
		n, _, err = countFrames(conn, nil)
		return n, err
	case down:
		var closed atomic.Bool
		go func() { // ends with the connection
			_, _, _ = countFrames(conn, nil)
			closed.Store(true)
		}()
		return f.send(conn, false, closed.Load)
	}
	frame, err := f.frame(false)
	if err != nil {
		return 0, err
	}
	n, _, err = countFrames(conn, func() error {
		_, err := conn.Write(frame)
		return err
	})
	return n, err
}

// send writes messages one by one until it is enough.
func (f flood) send(w io.Writer, masked bool, enough func() bool) (n int, err error) {
	frame, err := f.frame(masked)
	for ; err == nil && !enough(); n++ {
		_, err = w.Write(frame)
	}
	return n, err
}

// countFrames counts the frames before the close frame, whose payload it returns.
// After each it calls then, if that is not nil.
func countFrames(r io.Reader, then func() error) (n int, farewell []byte, err error) {
	buf := make([]byte, 256<<10)
	have := 0
	for {
		got, err := r.Read(buf[have:])
		have += got
		at := 0
		for {
			payload, end := frameBounds(buf[at:have])
			if end < 0 {
				break
			}
			if ws.OpCode(buf[at]&0xf) == ws.OpClose {
				return n, bytes.Clone(buf[at+payload : at+end]), nil
			}
			n, at = n+1, at+end
			if then == nil {
				continue
			}
			if err := then(); err != nil {
				return n, nil, err
			}
		}
		have = copy(buf, buf[at:have])
		if err != nil {
			return n, nil, err
		}
	}
}

// frameBounds tells where in p the payload of its first frame begins and ends, -1
// where it is not whole.
func frameBounds(p []byte) (payload, end int) {
	if len(p) < 2 {
		return -1, -1
	}
	payload, length := 2, int(p[1]&0x7f)
	switch {
	case length == 126 && len(p) >= 4:
		payload, length = 4, int(binary.BigEndian.Uint16(p[2:]))
	case length == 127 && len(p) >= 10:
		payload, length = 10, int(binary.BigEndian.Uint64(p[2:]))
	case length >= 126:
		return -1, -1
	}
	if p[1]&0x80 != 0 {
		payload += 4
	}
	if payload+length > len(p) {
		return -1, -1
	}
	return payload, payload + length
}
