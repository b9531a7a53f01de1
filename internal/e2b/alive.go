package e2b

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strings"
)

// IsCommand tells whether r starts a process in a sandbox, or connects to one, at
// its daemon: its answer is a stream that lasts as long as the process.
func IsCommand(r *http.Request) bool {
	return r.URL.Path == "/process.Process/Start" || r.URL.Path == "/process.Process/Connect"
}

// HasTimeout tells whether a caller of the daemon has said how long it waits, as
// SDKs do for commands but those in the background.
func HasTimeout(r *http.Request) bool { return r.Header.Get("Connect-Timeout-Ms") != "" }

// Events follows a stream of the daemon's events, which Connect frames as
//
//	flags (1)  length (4)  message…        big endian
//
// and tells events from signs of life, which the daemon sends each
// Keepalive-Ping-Interval. What it can't follow are events.
// Source: https://connectrpc.com/docs/protocol/#streaming-rpcs and envd's
// process.proto and filesystem.proto.
type Events struct {
	json    bool
	head    [5]byte
	got     int // bytes of head
	left    uint32
	message []byte // as far as it is short
}

// NewEvents follows the answer to a call of one of the daemon's streams. It is
// nil where the answer is no such stream.
func NewEvents(header http.Header) *Events {
	format, ok := strings.CutPrefix(header.Get("Content-Type"), "application/connect+")
	if !ok {
		return nil
	}
	return &Events{json: format == "json"}
}

// longestSign is longer than any sign of life, in bytes.
const longestSign = 64

// In tells whether p, the next bytes of the stream, hold an event or a piece of
// one, and not only signs of life.
func (e *Events) In(p []byte) bool {
	found := false
	for len(p) > 0 {
		if e.got < len(e.head) {
			n := copy(e.head[e.got:], p)
			e.got, p = e.got+n, p[n:]
			if e.got < len(e.head) {
				break
			}
			e.left, e.message = binary.BigEndian.Uint32(e.head[1:]), e.message[:0]
		}
		n := min(len(p), int(e.left))
		if e.short() {
			e.message = append(e.message, p[:n]...)
		} else {
			found = true
		}
		e.left, p = e.left-uint32(n), p[n:]
		if e.left == 0 {
			e.got = 0
			found = found || !e.isSign()
		}
	}
	return found
}

// short tells whether the message under way may be a sign of life, which is
// neither compressed nor the stream's end.
func (e *Events) short() bool {
	return e.head[0] == 0 && binary.BigEndian.Uint32(e.head[1:]) <= longestSign
}

// Signs of life in protobuf: field 4 of a process's event, which is field 1 of
// the answer, and field 3 of a watch's answer.
var (
	processSign = []byte{0x0a, 0x02, 0x22, 0x00}
	watchSign   = []byte{0x1a, 0x00}
)

func (e *Events) isSign() bool {
	if !e.short() {
		return false
	}
	if !e.json {
		return bytes.Equal(e.message, processSign) || bytes.Equal(e.message, watchSign)
	}
	var answer struct {
		Event     map[string]json.RawMessage
		Keepalive json.RawMessage
	}
	if json.Unmarshal(e.message, &answer) != nil {
		return false
	}
	return answer.Keepalive != nil || len(answer.Event) == 1 && answer.Event["keepalive"] != nil
}
