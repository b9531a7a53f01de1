package noise

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"strings"
	"time"
)

// VS Code's protocol, as its page speaks it to code-server, OpenVSCode and
// others. A WebSocket message holds one or more protocol messages, each with a
// header of 13 bytes:
//
//	type (1)  id (4)  ack (4)  length (4)  body…        big endian
//
// Types 3 (ack) and 9 (keep-alive) have no body and stand in both directions
// every few seconds. A person is in type 1 (regular) only, whose body names what
// is asked for: on the extension host's connection
//
//	kind (1)  request (4)  rpc (1)  length (1)  $name  arguments…
//
// and on the management connection, in a serialisation of its own,
//
//	[kind, request, "channel", "command"]  arguments…
//
// The handshake does not tell the two connections apart, but the bodies do.

const (
	vscodeHeader = 13
	// vscodeLargest bounds what a length is believed. VS Code cuts at 256 KiB.
	vscodeLargest = 64 << 20
)

// Types of protocol messages.
const (
	typeRegular   = 1
	typeControl   = 2
	typeAck       = 3
	typeClose     = 5
	typeReplay    = 6
	typePause     = 7
	typeResume    = 8
	typeKeepAlive = 9
)

// A page that has waited for an acknowledgement for 20 s, and got nothing at all
// for as long, takes its connection for dead: it opens a second one, then covers
// the editor with a dialog that takes the keys. The server's keep-alive is enough
// for it to wait on; it acknowledges nothing.
// (PersistentProtocol of src/vs/base/parts/ipc/common/ipc.net.ts, as of VS Code
// 1.100.)
const (
	vscodeKeepAlive = string(rune(typeKeepAlive)) + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	vscodeEvery     = 10 * time.Second

	// vscodeWhole is the length of a WebSocket message behind which a new protocol
	// message begins. The server writes whole ones, but cuts what it writes every
	// 256 KiB, and no more than 1,032 bytes can be inflated from one.
	vscodeWhole = 256<<10/1032 - 1
	// vscodeSilence is more than lies between the pieces of one such write, which
	// wait for nothing.
	vscodeSilence = time.Second
)

func vscodeStream(r *http.Request, _ string, s *Stream) bool {
	q := r.URL.Query()
	// without frames, what follows the 101 is no WebSocket
	if !q.Has("reconnectionToken") || !q.Has("reconnection") || q.Get("skipWebSocketFrames") == "true" {
		return false
	}
	s.judge = new(vscodeJudge)
	s.alive = &KeepAlive{Ping: vscodeKeepAlive, Binary: true, After: vscodeWhole, Silence: vscodeSilence, Every: vscodeEvery}
	s.key = strings.Clone(q.Get("reconnectionToken")) // it would keep the whole query
	s.resends = q.Get("reconnection") == "true"
	return true
}

// vscodeJudge walks the headers. Browsers send each protocol message within one
// WebSocket message, but nothing says that they must: what is cut is followed.
type vscodeJudge struct {
	rules []names
	rest  int                // of a body that goes on in the next WebSocket message
	carry Verdict            // of that body
	head  [vscodeHeader]byte // of a message whose header was cut
	have  int                // bytes of head
}

func (j *vscodeJudge) withNames(rules []names) judge { return &vscodeJudge{rules: rules} }

func (j *vscodeJudge) judge(m Message) Verdict {
	if m.Payload == nil || !m.Binary || len(m.Payload) == 0 {
		j.lose()
		return Counts
	}
	verdict := Swallow
	for p := m.Payload; len(p) > 0; {
		v, n := j.next(p)
		if n <= 0 { // no such message exists: believe nothing of the remainder
			j.lose()
			return Counts
		}
		verdict, p = min(verdict, v), p[n:]
	}
	return verdict
}

// lose assumes that the next WebSocket message begins with a header again. If it
// does not, what is read there is no protocol message, and counts.
func (j *vscodeJudge) lose() { j.rest, j.have, j.carry = 0, 0, Counts }

// next judges the first protocol message of p, or the piece of one, and returns
// how many bytes it takes; 0 if p is not VS Code's protocol.
func (j *vscodeJudge) next(p []byte) (Verdict, int) {
	if j.rest > 0 {
		n := min(j.rest, len(p))
		j.rest -= n
		return j.carry, n
	}
	if j.have > 0 || len(p) < vscodeHeader {
		return j.cutHeader(p)
	}
	length := binary.BigEndian.Uint32(p[9:])
	if length > vscodeLargest {
		return Counts, 0
	}
	body := p[vscodeHeader:min(len(p), vscodeHeader+int(length))]
	v, ok := j.message(p[:vscodeHeader], body, int(length))
	if !ok {
		return Counts, 0
	}
	j.rest, j.carry = int(length)-len(body), min(v, Noise)
	return v, vscodeHeader + len(body)
}

// cutHeader gathers the header of a message that is cut there. Such a message
// counts whatever it is: it is not worth keeping more than the header.
func (j *vscodeJudge) cutHeader(p []byte) (Verdict, int) {
	n := copy(j.head[j.have:], p)
	j.have += n
	if j.have == vscodeHeader {
		length := binary.BigEndian.Uint32(j.head[9:])
		if length > vscodeLargest {
			return Counts, 0
		}
		j.have, j.rest, j.carry = 0, int(length), Counts
	}
	return Counts, n
}

// message judges by the type; not ok where there is no such type or it can't have a body.
func (j *vscodeJudge) message(head, body []byte, length int) (v Verdict, ok bool) {
	switch head[0] {
	case typeAck, typeKeepAlive:
		return Swallow, length == 0 && binary.BigEndian.Uint32(head[1:]) == 0
	case typeRegular:
		return j.regular(body, length), true
	case typeControl, typeClose, typeReplay, typePause, typeResume:
		return Noise, true
	default:
		return Counts, false
	}
}

// regular judges a body of which the beginning may be all that is there.
func (j *vscodeJudge) regular(body []byte, length int) Verdict {
	if c, ok := parseCall(body); ok {
		return j.channelCall(c, body, length)
	}
	return j.hostCall(body, length)
}

// Kinds of messages on the management connection.
const (
	callPromise  = 100
	replyInit    = 200
	replySuccess = 201
)

// actionExecuted is the telemetry event of a command that was given by key, menu
// or palette. It may be all that a person's key press sends.
var actionExecuted = []byte("workbenchActionExecuted")

func (j *vscodeJudge) channelCall(c call, body []byte, length int) Verdict {
	switch c.kind {
	case callPromise:
		if string(c.channel) == "telemetry" && (len(body) < length || bytes.Contains(body, actionExecuted)) {
			return Counts
		}
		if len(c.command) > 0 && (vscodeNames.have(c.channel, c.command) || haveAny(j.rules, c.channel, c.command)) {
			return Noise
		}
	case replyInit:
		return Noise
	case replySuccess: // of nothing: an answer with something in it may be a person's choice
		if length == c.size+1 && c.next == 0 {
			return Noise
		}
	}
	return Counts
}

// Kinds of messages on the extension host's connection. Up to lastRequest they
// have a name; 8 to 11 are answers with a value, which may be a person's choice.
const (
	lastRequest   = 4
	acknowledged  = 5
	cancelled     = 6
	repliedEmpty  = 7
	repliedFailed = 12
)

func (j *vscodeJudge) hostCall(body []byte, length int) Verdict {
	if length == 5 && len(body) == 5 {
		switch body[0] {
		case acknowledged, cancelled, repliedEmpty, repliedFailed:
			return Noise
		}
	}
	const before = 7 // kind, request, rpc, length of the name
	if len(body) < before || body[0] == 0 || body[0] > lastRequest {
		return Counts
	}
	end := before + int(body[6])
	if end > len(body) || body[6] == 0 || body[before] != '$' {
		return Counts
	}
	name := body[before:end]
	if vscodeNames.have(nil, name) || haveAny(j.rules, nil, name) {
		return Noise
	}
	if string(name) == activation && len(body) == length && bytes.Contains(body[end:], tunnelEvent) {
		return Noise
	}
	return Counts
}

// Extensions are activated by what a person does, and by a port that a program
// opened: the page looks for those by itself.
const activation = "$activateByEvent"

var tunnelEvent = []byte(`["onTunnel"`)

// call is the beginning of a message on the management connection.
type call struct {
	kind             uint32
	channel, command []byte
	size             int  // bytes up to the arguments
	next             byte // the first of the arguments; 0 is "undefined"
}

// Tags of the serialisation, each followed by a variable-length number.
const (
	tagString = 1
	tagArray  = 4
	tagInt    = 6
)

// parseCall reads [kind, request] or [kind, request, channel, command]. An
// extension host's body never looks like it: it begins with a kind of 1 to 12 and
// the first byte of a request number, which is 0 for the first 16 million.
func parseCall(p []byte) (call, bool) {
	var c call
	r := reader{p: p}
	fields := r.tagged(tagArray)
	c.kind = r.tagged(tagInt)
	if fields == 0 || fields > 4 || c.kind < callPromise {
		return c, false
	}
	if fields > 1 {
		r.tagged(tagInt)
	}
	if fields == 4 {
		c.channel, c.command = r.string(), r.string()
	}
	if r.bad || len(r.p) == 0 { // the arguments are at least one byte
		return c, false
	}
	c.size, c.next = len(p)-len(r.p), r.p[0]
	return c, true
}

// reader takes values off p until one is not there; then it is bad for good.
type reader struct {
	p   []byte
	bad bool
}

// tagged reads a tag, which must be the one given, and the number behind it.
func (r *reader) tagged(tag byte) uint32 {
	if r.bad || len(r.p) == 0 || r.p[0] != tag {
		r.bad = true
		return 0
	}
	v, n := binary.Uvarint(r.p[1:])
	if n <= 0 || v > vscodeLargest {
		r.bad = true
		return 0
	}
	r.p = r.p[1+n:]
	return uint32(v)
}

func (r *reader) string() []byte {
	n := int(r.tagged(tagString))
	if r.bad || n > len(r.p) {
		r.bad = true
		return nil
	}
	s := r.p[:n]
	r.p = r.p[n:]
	return s
}
