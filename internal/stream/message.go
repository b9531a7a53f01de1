package stream

import (
	"sync"

	"github.com/gobwas/ws"
)

// Message is one whole message of a client.
type Message struct {
	Binary  bool
	Size    int64  // bytes of its payload as it was sent
	Payload []byte // unmasked and inflated; valid until the judge returns; nil: not known
}

// Verdict is what a message means.
type Verdict uint8

const (
	// Counts: somebody is there, or may be.
	Counts Verdict = iota
	// Noise: no person has sent it.
	Noise
	// Swallow: Noise that need not be delivered if it came while the stream was
	// parked.
	Swallow
)

// maxMessage is how many bytes of payload a message may have to be looked into.
// Longer ones count.
const maxMessage = 4 << 10

// scratches keep the payloads of messages that have not ended yet.
var scratches = sync.Pool{New: func() any { return new([maxMessage]byte) }}

// messages follows the messages of a client: data frames to whole messages,
// which are judged at their end, or as soon as they are known to count.
type messages struct {
	scanner
	judge   func(Message) Verdict // nil: each message counts
	inflate bool                  // compressed messages can be inflated one by one
	spare   bool                  // messages count and are not looked into
	missed  bool                  // the judge knows that it has not seen the last ones

	counts     bool // the message under way is known to count
	binary     bool // of the message under way
	compressed bool // of the message under way
	size       int  // bytes in scratch
	scratch    *[maxMessage]byte
}

// event is what the bytes that next has taken have led to.
type event uint8

const (
	eventNone    event = iota
	eventCounts        // the message under way is known to count, or there are no frames
	eventMessage       // a message has ended that was judged
	eventFrame         // any other frame has ended
)

// next takes bytes of p up to the next event: at most one frame's. After an
// eventMessage the verdict is the message's.
func (m *messages) next(p []byte) (n int, what event, v Verdict) {
	for n < len(p) {
		at := n
		taken, part := m.step(p[n:])
		n += taken
		switch {
		case part == partLost:
			m.forget()
			return n, eventCounts, Counts
		case m.opcode.IsControl():
		case part == partHeadEnd:
			if m.begin() {
				return n, eventCounts, Counts
			}
		case part == partPayload && m.scratch != nil:
			m.keep(p[at:n])
		}
		if part != partHead && m.atBoundary() {
			what, v = m.end()
			return n, what, v
		}
	}
	return n, eventNone, Counts
}

// begin looks at the header of a data frame. It reports whether the message is
// known from now on to count.
func (m *messages) begin() bool {
	if m.opcode != ws.OpContinuation {
		m.forget()
		m.binary, m.compressed = m.opcode == ws.OpBinary, m.scanner.compressed()
	}
	if m.counts {
		return false
	}
	if m.judge == nil || m.spare || m.compressed && !m.inflate || m.length > uint64(maxMessage-m.size) {
		m.miss()
		m.forget()
		m.counts = m.within || m.left > 0
		return true
	}
	if m.scratch == nil {
		m.scratch = scratches.Get().(*[maxMessage]byte)
	}
	return false
}

// keep adds a piece of a frame's payload to the message.
func (m *messages) keep(p []byte) {
	n := copy(m.scratch[m.size:], p)
	offset := m.length - m.left - uint64(n) // of the piece in its frame
	ws.Cipher(m.scratch[m.size:m.size+n], m.mask(), int(offset%maskLength))
	m.size += n
}

// end is called at the end of each frame.
func (m *messages) end() (event, Verdict) {
	switch {
	case m.opcode.IsControl() || m.within:
		return eventFrame, Counts
	case m.scratch == nil:
		m.forget()
		return eventFrame, Counts
	}
	v := m.verdict(m.scratch[:m.size])
	m.forget()
	return eventMessage, v
}

func (m *messages) verdict(payload []byte) Verdict {
	msg := Message{Binary: m.binary, Size: int64(len(payload)), Payload: payload}
	if m.compressed {
		out, ok := inflateMessage(payload)
		if !ok {
			m.miss()
			return Counts
		}
		defer inflated.Put(out)
		msg.Payload = out.bytes()
	}
	m.missed = false
	return m.judge(msg)
}

// miss tells the judge, once, that it does not see all.
func (m *messages) miss() {
	if m.judge != nil && !m.missed {
		m.missed = true
		m.judge(Message{Binary: m.binary})
	}
}

// forget ends what is known of the message under way.
func (m *messages) forget() {
	if m.scratch != nil {
		scratches.Put(m.scratch)
	}
	m.scratch, m.size, m.counts = nil, 0, false
}
