package e2e_test

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/gobwas/ws"
)

const (
	protocolError  = uint16(ws.StatusProtocolError)
	invalidPayload = uint16(ws.StatusInvalidFramePayloadData)
)

// rawFrame is a client's frame, with whatever is said in its first byte and in how its length is written.
func rawFrame(first byte, payload string) []byte {
	head := []byte{first, 0x80}
	switch n := len(payload); {
	case n < 126:
		head[1] |= byte(n)
	case n < 1<<16:
		head[1] |= 126
		head = binary.BigEndian.AppendUint16(head, uint16(n))
	default:
		head[1] |= 127
		head = binary.BigEndian.AppendUint64(head, uint64(n))
	}
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	body := []byte(payload)
	ws.Cipher(body, mask, 0)
	return append(append(head, mask[:]...), body...)
}

func frame(op ws.OpCode, payload string) []byte { return rawFrame(0x80|byte(op), payload) }

func part(op ws.OpCode, payload string) []byte { return rawFrame(byte(op), payload) }

// compressedFrames is a compressed message in so many frames, with a ping before each but the first.
func compressedFrames(payload []byte, frames int) (out []byte) {
	for i := range frames {
		first := byte(ws.OpContinuation)
		if i == 0 {
			first = 0x40 | byte(ws.OpText)
		} else {
			out = append(out, frame(ws.OpPing, "between")...)
		}
		if i == frames-1 {
			first |= 0x80
		}
		out = append(out, rawFrame(first, string(payload[i*len(payload)/frames:(i+1)*len(payload)/frames]))...)
	}
	return out
}

func send(frames ...[]byte) (steps []step) {
	for _, f := range frames {
		steps = append(steps, step{bytes: f})
	}
	return steps
}

// chopped is send in writes of n bytes, over the borders of frames.
func chopped(n int, frames ...[]byte) []step {
	var all []byte
	for _, f := range frames {
		all = append(all, f...)
	}
	return []step{{bytes: all, chop: n}}
}

func text(s string) message { return message{ws.OpText, s} }

func pong(s string) message { return message{ws.OpPong, s} }

// caseList gathers cases with their group's names.
type caseList struct {
	group string
	n     int
	cases []autobahnCase
}

func (l *caseList) begin(group string) { l.group, l.n = group, 0 }

func (l *caseList) add(c autobahnCase) {
	l.n++
	c.name = fmt.Sprintf("%s.%d", l.group, l.n)
	l.cases = append(l.cases, c)
}

// answered adds a case whose messages are answered, and which the client closes.
func (l *caseList) answered(steps []step, want ...message) {
	l.add(autobahnCase{steps: steps, want: want})
}

// refused adds a case that the server closes, after it has answered what came before.
func (l *caseList) refused(code uint16, steps []step, want ...message) {
	l.add(autobahnCase{steps: steps, code: code, want: want})
}

func autobahnCases(all bool) []autobahnCase {
	l := new(caseList)
	l.framing()
	l.pings()
	l.reservedBits()
	l.opcodes()
	l.fragments()
	l.utf8()
	l.closing()
	l.begin("10.1")
	long := strings.Repeat("*", 65536)
	l.add(autobahnCase{path: "?fragment=1300", steps: send(frame(ws.OpText, long)), want: []message{text(long)}})
	l.deflate(all)
	if all {
		l.limits()
	}
	return l.cases
}

func (l *caseList) framing() {
	for i, op := range []ws.OpCode{ws.OpText, ws.OpBinary} {
		l.begin(fmt.Sprintf("1.%d", i+1))
		fill := map[ws.OpCode]string{ws.OpText: "*", ws.OpBinary: "\xfe"}[op]
		for _, n := range []int{0, 125, 126, 127, 128, 65535, 65536} {
			payload := strings.Repeat(fill, n)
			l.answered(send(frame(op, payload)), message{op, payload})
		}
		payload := strings.Repeat(fill, 65536)
		l.answered(chopped(997, frame(op, payload)), message{op, payload})
	}
	l.begin("1.3")                                          // not of the list: what else the frame's header can have wrong
	l.refused(protocolError, send([]byte("\x81\x05hello"))) // not masked
	l.refused(protocolError, send([]byte("\x81\xfe\x00\x05\x00\x00\x00\x00hello")))
	l.refused(protocolError, send([]byte("\x81\xff\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00hello")))
}

func (l *caseList) pings() {
	ping := func(payload string) []byte { return frame(ws.OpPing, payload) }
	binary := "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
	full := strings.Repeat("\xfe", 125)
	l.begin("2")
	l.answered(send(ping("")), pong(""))
	l.answered(send(ping("Hello, world!")), pong("Hello, world!"))
	l.answered(send(ping(binary)), pong(binary))
	l.answered(send(ping(full)), pong(full))
	l.refused(protocolError, send(ping(full+"\xfe")))
	l.answered(chopped(1, ping(full)), pong(full))
	l.answered(send(frame(ws.OpPong, ""), ping("sync")), pong("sync"))
	l.answered(send(frame(ws.OpPong, "unsolicited"), ping("sync")), pong("sync"))
	l.answered(send(frame(ws.OpPong, "unsolicited pong payload"), ping("ping payload")), pong("ping payload"))
	var ten [][]byte
	var pongs []message
	for i := range 10 {
		ten, pongs = append(ten, ping(fmt.Sprint("payload-", i))), append(pongs, pong(fmt.Sprint("payload-", i)))
	}
	l.answered(send(ten...), pongs...)
	l.answered(chopped(1, ten...), pongs...)
}

func (l *caseList) reservedBits() {
	hello, sync := frame(ws.OpText, "Hello, world!"), frame(ws.OpPing, "sync")
	rsv := func(op ws.OpCode, bits byte) []byte { return rawFrame(0x80|bits<<4|byte(op), "Hello, world!") }
	l.begin("3")
	l.refused(protocolError, send(rsv(ws.OpText, 1)))
	l.refused(protocolError, chopped(0, hello, rsv(ws.OpText, 2), sync), text("Hello, world!"))
	l.refused(protocolError, send(hello, rsv(ws.OpText, 3), sync), text("Hello, world!"))
	l.refused(protocolError, chopped(1, hello, rsv(ws.OpText, 4)), text("Hello, world!"))
	l.refused(protocolError, send(rsv(ws.OpBinary, 5)))
	l.refused(protocolError, send(rsv(ws.OpPing, 6)))
	l.refused(protocolError, send(rawFrame(0x80|7<<4|byte(ws.OpClose), "\x03\xe8")))
}

func (l *caseList) opcodes() {
	hello := frame(ws.OpText, "Hello, world!")
	for i, first := range []ws.OpCode{3, 11} {
		l.begin(fmt.Sprintf("4.%d", i+1))
		l.refused(protocolError, send(frame(first, "")))
		l.refused(protocolError, send(frame(first+1, "reserved opcode payload")))
		l.refused(protocolError, chopped(0, hello, frame(first+2, ""), frame(ws.OpPing, "")), text("Hello, world!"))
		l.refused(protocolError, send(hello, frame(first+3, "reserved"), frame(ws.OpPing, "")), text("Hello, world!"))
		l.refused(protocolError, chopped(1, hello, frame(first+4, "reserved")), text("Hello, world!"))
	}
}

func (l *caseList) fragments() {
	one, two := part(ws.OpText, "fragment1"), frame(ws.OpContinuation, "fragment2")
	both, hello := text("fragment1fragment2"), frame(ws.OpText, "Hello, world!")
	ping := frame(ws.OpPing, "ping payload")
	l.begin("5")
	for _, op := range []ws.OpCode{ws.OpPing, ws.OpPong} {
		l.refused(protocolError, send(part(op, "fragment1"), two))
	}
	for _, between := range [][][]byte{{one, two}, {one, ping, two}} {
		want := []message{both}
		if len(between) == 3 {
			want = []message{pong("ping payload"), both}
		}
		l.answered(chopped(0, between...), want...)
		l.answered(send(between...), want...)
		l.answered(chopped(1, between...), want...)
	}
	for _, lost := range [][]byte{frame(ws.OpContinuation, "non-continuation payload"), part(ws.OpContinuation, "non-continuation payload")} {
		l.refused(protocolError, chopped(0, lost, hello))
		l.refused(protocolError, send(lost, hello))
		l.refused(protocolError, chopped(1, lost))
	}
	l.refused(protocolError, send(one, two, part(ws.OpContinuation, "fragment3"), frame(ws.OpText, "fragment4")), both)
	for _, first := range [][]byte{part(ws.OpContinuation, "fragment1"), frame(ws.OpContinuation, "fragment1")} {
		l.refused(protocolError, send(first, part(ws.OpText, "fragment3"), frame(ws.OpContinuation, "fragment4")))
	}
	l.refused(protocolError, send(one, frame(ws.OpText, "fragment2")))
	five := [][]byte{
		one, part(ws.OpContinuation, "fragment2"), frame(ws.OpPing, "pongme 1!"), part(ws.OpContinuation, "fragment3"),
		part(ws.OpContinuation, "fragment4"), frame(ws.OpPing, "pongme 2!"), frame(ws.OpContinuation, "fragment5"),
	}
	want := []message{pong("pongme 1!"), pong("pongme 2!"), text("fragment1fragment2fragment3fragment4fragment5")}
	l.answered(send(five...), want...)
	slow := send(five...)
	slow[3].wait, slow[6].wait = 1, 2 // for the pongs
	l.answered(slow, want...)
}

func (l *caseList) closing() {
	hello := frame(ws.OpText, "Hello World!")
	bye := func(code uint16, reason string) []byte {
		return frame(ws.OpClose, string(binary.BigEndian.AppendUint16(nil, code))+reason)
	}
	done := func(steps []step, want ...message) { l.add(autobahnCase{steps: steps, want: want, bye: true}) }
	normal := bye(1000, "")
	big := strings.Repeat("BAsd7&jh23", 26<<10)
	l.begin("7.1") // nothing is done after a close
	done(send(hello, normal), text("Hello World!"))
	done(chopped(0, normal, normal))
	done(chopped(0, normal, frame(ws.OpPing, "")))
	done(chopped(0, normal, hello))
	done(chopped(0, part(ws.OpText, "fragment1"), normal, frame(ws.OpContinuation, "fragment2")))
	done(chopped(0, frame(ws.OpText, big), normal, frame(ws.OpPing, "")), text(big))

	l.begin("7.3") // payloads
	done(send(frame(ws.OpClose, "")))
	l.refused(protocolError, send(frame(ws.OpClose, "a")))
	done(send(normal))
	done(send(bye(1000, "Hello World!")))
	done(send(bye(1000, strings.Repeat("*", 123))))
	l.refused(protocolError, send(bye(1000, strings.Repeat("*", 124))))

	l.begin("7.5")
	l.refused(invalidPayload, send(bye(1000, "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited")))

	l.begin("7.7") // codes
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		done(send(bye(code, "")))
	}
	l.begin("7.9")
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535} {
		l.refused(protocolError, send(bye(code, "")))
	}
}

// limits are the large messages.
func (l *caseList) limits() {
	for i, op := range []ws.OpCode{ws.OpText, ws.OpBinary} {
		l.begin(fmt.Sprintf("9.%d", i+1))
		for _, kib := range []int{64, 256, 1 << 10, 4 << 10, 8 << 10, 16 << 10} {
			payload := strings.Repeat("*", kib<<10)
			l.answered(send(frame(op, payload)), message{op, payload})
		}
		l.begin(fmt.Sprintf("9.%d", i+3))
		for size := 64; size <= 4<<20; size *= 4 {
			payload := strings.Repeat("*", 4<<20)
			frames := part(op, payload[:size])
			for at := size; at < len(payload); at += size {
				frames = append(frames, part(ws.OpContinuation, payload[:size])...)
			}
			l.answered([]step{{bytes: append(frames, frame(ws.OpContinuation, "")...)}}, message{op, payload})
		}
		l.begin(fmt.Sprintf("9.%d", i+5))
		for chop := 64; chop <= 2048; chop *= 2 {
			payload := strings.Repeat("*", 1<<20)
			l.answered(chopped(chop, frame(op, payload)), message{op, payload})
		}
		l.begin(fmt.Sprintf("9.%d", i+7))
		for _, size := range []int{0, 16, 64, 256, 1 << 10, 4 << 10, 16 << 10} {
			var c autobahnCase
			for range 1000 {
				payload := strings.Repeat("*", size)
				c.steps, c.want = append(c.steps, step{bytes: frame(op, payload)}), append(c.want, message{op, payload})
			}
			l.add(c)
		}
	}
}
