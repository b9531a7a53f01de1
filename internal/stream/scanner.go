package stream

import (
	"encoding/binary"

	"github.com/gobwas/ws"
)

const (
	finBit     = 0x80 // of a header's first byte
	rsvBits    = 0x70
	rsv1Bit    = 0x40 // compressed (RFC 7692)
	opcodeBits = 0x0f
	maskBit    = 0x80 // of a header's second byte
	lengthBits = 0x7f
	maskLength = 4
)

// scanner follows the WebSocket frames (RFC 6455, section 5.2) of one direction
// of a stream, cut into pieces of any size. It keeps the bytes of an unfinished
// header and nothing else.
//
// A library's reader can't be used: it wants the whole header in one go, or
// blocks the stream until it is there.
type scanner struct {
	masked bool // frames of this direction must be masked: they are a client's

	// lost is set by the first header that is none. Where frames begin is not
	// known from then on, so that every byte counts: in doubt somebody is there.
	lost   bool
	closed bool // a whole close frame has passed
	within bool // a fragmented message has begun and not ended

	head   [14]byte // the current header, with the mask's key
	got    int      // bytes of head that are there
	need   int      // bytes of head that it will have, as far as is known
	opcode ws.OpCode
	length uint64 // of the current frame's payload
	left   uint64 // bytes of it that are still to come

	message uint64 // bytes of the last data message's payload, as far as it has been announced
}

// atBoundary reports whether the next byte begins a frame.
func (s *scanner) atBoundary() bool {
	return !s.lost && s.got == 0 && s.left == 0
}

// scan goes on through p. It returns the offset of the first byte that counts,
// len(p) if none does, and the last frame boundary in p, -1 if there is none.
// The boundary may be 0: then p began at one, and no frame ended in it.
//
// The bytes of data frames count, from the header's first byte to the payload's
// last; those of control frames don't.
func (s *scanner) scan(p []byte) (first, boundary int) {
	first, boundary = len(p), -1
	if s.atBoundary() {
		boundary = 0
	}
	for at := 0; at < len(p); {
		n, _ := s.step(p[at:])
		if s.lost || s.opcode.IsData() {
			first = min(first, at)
		}
		at += n
		if s.atBoundary() {
			boundary = at
		}
	}
	return first, boundary
}

// part is what a step has taken.
type part uint8

const (
	partHead    part = iota // a byte of a header that goes on
	partHeadEnd             // the last byte of a header
	partPayload             // some of a payload
	partLost                // bytes that are no frame
)

// step takes a header or a byte of one, or what p holds of the payload. A frame has
// ended with it if it leaves the scanner at a boundary.
func (s *scanner) step(p []byte) (n int, what part) {
	switch {
	case s.lost:
		return len(p), partLost
	case s.left > 0:
		return s.payload(p), partPayload
	case s.got == 0 && len(p) >= len(s.head) && s.wholeHeader([14]byte(p)):
		n, what = s.need, s.beginPayload()
	default:
		n, what = 1, s.header(p[0])
	}
	s.lost = s.lost || what == partLost
	return n, what
}

// wholeHeader takes a header in one go, for speed. False: what p begins with is
// none, and was not taken.
func (s *scanner) wholeHeader(p [14]byte) bool {
	if !validFirst(p[0]) {
		return false
	}
	s.opcode = ws.OpCode(p[0] & opcodeBits)
	if !s.validSecond(p[1]) {
		return false
	}
	s.head, s.need = p, headLength(p[1])
	return true
}

func (s *scanner) payload(p []byte) int {
	n := len(p)
	if uint64(n) > s.left {
		n = int(s.left)
	}
	s.left -= uint64(n)
	if s.left == 0 {
		s.endFrame()
	}
	return n
}

// header takes the next byte of a header; partLost if no frame can begin like
// this.
func (s *scanner) header(b byte) part {
	s.head[s.got] = b
	s.got++
	switch s.got {
	case 1:
		s.opcode = ws.OpCode(b & opcodeBits)
		if !validFirst(b) {
			return partLost
		}
		return partHead
	case 2:
		s.need = headLength(b)
		if !s.validSecond(b) {
			return partLost
		}
	}
	if s.got < s.need {
		return partHead
	}
	return s.beginPayload()
}

// beginPayload reads the length from the finished header. The most significant
// bit of a 64-bit length must be zero.
func (s *scanner) beginPayload() part {
	length := uint64(s.head[1] & lengthBits)
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(s.head[2:]))
	case 127:
		length = binary.BigEndian.Uint64(s.head[2:])
	}
	if length>>63 != 0 {
		return partLost
	}
	if s.opcode.IsData() {
		s.beginPart(length)
	}
	s.got, s.length, s.left = 0, length, length
	if length == 0 {
		s.endFrame()
	}
	return partHeadEnd
}

// beginPart is called for each frame of a data message.
func (s *scanner) beginPart(length uint64) {
	if s.opcode != ws.OpContinuation {
		s.message = 0
	}
	s.message += length
	s.within = !s.fin()
}

func (s *scanner) endFrame() {
	if s.opcode == ws.OpClose {
		s.closed = true
	}
}

// The following are of the current frame, once its header is there.

func (s *scanner) fin() bool        { return s.head[0]&finBit != 0 }
func (s *scanner) compressed() bool { return s.head[0]&rsv1Bit != 0 }

// mask gives the key that the payload is masked with.
func (s *scanner) mask() [4]byte {
	if !s.masked {
		return [4]byte{}
	}
	return [4]byte(s.head[s.need-maskLength:])
}

// validFirst judges opcode, FIN and the reserved bits. Control frames are never
// fragmented nor compressed. RSV1 of a data frame is not held against the
// handshake: it counts either way.
func validFirst(b byte) bool {
	opcode := ws.OpCode(b & opcodeBits)
	switch {
	case opcode.IsReserved():
		return false
	case opcode.IsControl():
		return b&finBit != 0 && b&rsvBits == 0
	default:
		return b&rsvBits&^rsv1Bit == 0
	}
}

// validSecond judges the mask bit and the length of control frames.
func (s *scanner) validSecond(b byte) bool {
	if s.opcode.IsControl() && b&lengthBits > ws.MaxControlFramePayloadSize {
		return false
	}
	return (b&maskBit != 0) == s.masked
}

// headLength returns how long a header is, by its second byte.
func headLength(b byte) int {
	length := 2
	switch b & lengthBits {
	case 126:
		length += 2
	case 127:
		length += 8
	}
	if b&maskBit != 0 {
		length += maskLength
	}
	return length
}
