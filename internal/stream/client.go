package stream

import (
	"errors"
	"io"
	"slices"
	"time"

	"github.com/gobwas/ws"
)

// maxBacklog is how much noise of a parked client is kept for the upstream, in
// bytes.
const maxBacklog = 16 << 10

// maxHeld bounds the bytes of a message that is not judged yet, with its headers
// and the control frames within: a message of many tiny fragments counts.
const maxHeld = 4 * maxMessage

// smallBuffer is how much room a stream keeps for its next small message.
const smallBuffer = 512

// kept are bytes of the client that the upstream has not got yet, in the order
// in which it gets them.
type kept struct {
	pong    []byte // the last pong that came while parked
	backlog []byte // noise that came while parked
	held    []byte // of a message that is not judged yet
	control []byte // of a control frame that has not ended
	mid     bool   // the backlog goes on in a frame that the upstream has begun
	over    bool   // the backlog was too much
}

// Write forwards the client's bytes: at once while the stream counts, else when
// it is known what they mean. What can't be forwarded yet is kept.
//
// What comes after the stream was closed with CloseWith is thrown away without
// an error, because an error would make the proxy drop the client before it has
// the close frame.
//
// A close frame that is written while another Write is under way is dropped: it
// is a proxy's good-bye, written across its own copying, right before its Close.
// It would end up inside the client's frame, or wait for as long as Count blocks.
func (b *Body) Write(p []byte) (int, error) {
	if !b.writing.TryLock() {
		if b.opts.WebSocket && isCloseFrame(p) {
			return len(p), nil
		}
		b.writing.Lock()
	}
	defer b.writing.Unlock()

	b.counted = false
	n, err := b.sift(p)
	if b.client.closed {
		b.clientClosed.Store(true)
	}
	// Unpark looks at waiting after it has ended the parking, and this looks at
	// the parking after it has set waiting: one of them delivers
	b.waiting.Store(b.kept.any())
	if err == nil && b.waiting.Load() && !b.parked.Load() {
		err = b.unsyncedDeliver()
	}
	return n, err
}

// ReadFrom forwards the client's bytes from r to its end, as many Writes would.
// While the stream is parked it holds no large buffer, if r has SetReadDeadline.
func (b *Body) ReadFrom(r io.Reader) (total int64, err error) {
	in := newIntake(b, r)
	defer in.release()
	b.setSource(in.conn)
	defer b.setSource(nil)
	for {
		p, readErr := in.read()
		if len(p) > 0 {
			n, err := b.Write(p)
			total += int64(n)
			if err != nil {
				return total, err
			}
		}
		if errors.Is(readErr, io.EOF) {
			return total, nil
		}
		if readErr != nil {
			return total, readErr
		}
	}
}

// sift looks at the client's bytes piece by piece for as long as they can't just
// be forwarded. b.writing must be held.
func (b *Body) sift(p []byte) (done int, err error) {
	for done < len(p) {
		if b.phase.Load() != phaseOpen {
			n, err := b.discard(p[done:])
			return done + n, err
		}
		mode := b.mode()
		if mode != modeParked && b.kept.undelivered() {
			if err := b.unsyncedDeliver(); err != nil {
				return done, err
			}
			continue
		}
		if mode == modeLive {
			n, err := b.passLive(p[done:])
			return done + n, err
		}
		begins, known := b.client.atBoundary(), b.client.counts
		n, what, v := b.client.next(p[done:])
		piece := p[done : done+n]
		if b.client.opcode.IsControl() && !b.client.lost {
			err = b.controlPiece(mode, piece, begins, what == eventFrame)
		} else {
			counts := known || what == eventCounts || what == eventMessage && v == Counts
			err = b.dataPiece(mode, piece, counts, what == eventMessage, v)
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// passLive forwards p at once, after what counts in it was counted. b.writing
// must be held.
func (b *Body) passLive(p []byte) (int, error) {
	counts := false
	if b.client.judge != nil {
		b.pace.begin(time.Since(b.began))
	}
	for at := 0; at < len(p); {
		known := b.client.counts
		b.client.spare = b.pace.spares()
		n, what, v := b.client.next(p[at:])
		b.pace.saw(what, v)
		counts = counts || what == eventCounts || what == eventMessage && v == Counts || known && b.client.opcode.IsData()
		at += n
	}
	b.client.spare = false
	if counts {
		b.count()
	}
	if err := b.flush(true); err != nil {
		return 0, err
	}
	b.sentPart = b.client.within || !b.client.atBoundary() && b.client.opcode.IsData()
	return b.forward(p)
}

const (
	// paceSpan is for how long a busy stream's messages may go on counting because
	// one of them did. It is far below any idle timeout.
	paceSpan = 100 * time.Millisecond

	// paceMessages is how many messages are looked into in each paceSpan, whatever
	// they say. A person does not send that many.
	paceMessages = 16
)

// pace keeps the cost of looking into messages bounded, which where they are
// compressed is more than that of forwarding them: once a busy stream has counted
// it counts unseen to the end of the span.
type pace struct {
	began   time.Duration // of the span, since the stream's begin
	judged  int
	counted bool
}

func (p *pace) begin(now time.Duration) {
	if now-p.began >= paceSpan {
		*p = pace{began: now}
	}
}

func (p *pace) saw(what event, v Verdict) {
	if what == eventMessage {
		p.judged++
		p.counted = p.counted || v == Counts
	}
}

func (p *pace) spares() bool { return p.counted && p.judged >= paceMessages }

// dataPiece takes a piece of a message while the stream does not count. b.writing
// must be held.
func (b *Body) dataPiece(mode mode, p []byte, counts, ended bool, v Verdict) error {
	// what began like a control frame may turn out to be none
	b.kept.held = append(append(b.kept.held, b.kept.control...), p...)
	b.kept.control = nil
	sentPart := b.sentPart
	if ended {
		b.sentPart = false
	}
	counts = counts || len(b.kept.held) > maxHeld
	switch {
	case b.opts.Count != nil && counts:
		b.client.forget()
		b.count()
		b.client.counts = b.client.within || b.client.left > 0
		b.sentPart = b.client.counts
		return b.flush(true)
	case !ended && !counts:
		return nil
	case mode == modeDormant:
		return b.flush(true)
	}
	if v != Swallow || sentPart {
		b.kept.mid = b.kept.mid || sentPart && len(b.kept.backlog) == 0
		b.kept.keep(b.kept.held)
	}
	b.kept.held = emptied(b.kept.held)
	b.sentPart = !ended // what follows belongs to what was kept
	return nil
}

// controlPiece takes a piece of a control frame while the stream does not count.
// It never overtakes a message that is held. b.writing must be held.
func (b *Body) controlPiece(mode mode, p []byte, begins, ended bool) error {
	k := &b.kept
	fresh := len(k.control) == 0
	switch {
	case mode == modeDormant && fresh && len(k.held) == 0:
		_, err := b.forward(p)
		return err
	case mode == modeParked && fresh && !begins: // the upstream has its beginning
		k.mid = k.mid || len(k.backlog) == 0
		k.keep(p)
		if ended && b.client.closed {
			b.closeLike(nil)
		}
		return nil
	}
	k.control = append(k.control, p...)
	if !ended {
		return nil
	}
	frame := k.control
	k.control = nil
	switch {
	case mode == modeParked:
		b.parkedControl(frame)
	case len(k.held) > 0:
		k.held = append(k.held, frame...)
	default:
		_, err := b.forward(frame)
		return err
	}
	return nil
}

// parkedControl answers a control frame in the upstream's place. b.writing must
// be held.
func (b *Body) parkedControl(frame []byte) {
	payload := slices.Clone(frame[2+maskLength:])
	ws.Cipher(payload, b.client.mask(), 0)
	switch b.client.opcode { //nolint:exhaustive // it is a control frame
	case ws.OpPing:
		if !b.inject(b.ctx, controlFrame(ws.OpPong, payload), false) {
			b.kept.keep(frame)
		}
	case ws.OpPong: // a client may answer the last ping only, so one is enough
		switch {
		case b.ponged(payload):
		case b.kept.mid:
			b.kept.keep(frame)
		default:
			b.kept.pong = frame
		}
	case ws.OpClose:
		b.closeLike(payload)
	}
}

// count tells the owner of a message. b.writing must be held.
func (b *Body) count() { b.recount(false) }

// recount is count; again says that it was called for the same message before.
func (b *Body) recount(again bool) {
	switch {
	case b.opts.Count == nil || b.phase.Load() != phaseOpen:
		return
	case b.unwritable.Load():
		b.missed.Store(true)
		return
	}
	if err := b.opts.Count(b.ctx); err != nil {
		b.CloseWith(StatusTryAgainLater, "the upstream can't be reached now")
		return
	}
	b.counted = true
	b.noteCounted()
	if !b.parked.Load() && !b.severed.Load() && !b.kept.over {
		return
	}
	b.mu.Lock()
	if b.parked.Load() && !again && b.opts.Live != nil && !b.opts.Live() {
		b.mu.Unlock()
		b.recount(true) // a pause has begun in between
		return
	}
	b.unsyncedUnpark()
	severed := b.severed.Load()
	b.mu.Unlock()
	switch {
	case severed:
		b.CloseWith(StatusServiceRestart, reasonSevered)
	case b.kept.over:
		b.CloseWith(StatusServiceRestart, reasonTooMuch)
	}
}

// deliver forwards what was kept while the stream was parked.
func (b *Body) deliver() {
	b.writing.Lock()
	defer b.writing.Unlock()
	if !b.parked.Load() && b.unsyncedDeliver() != nil {
		_ = b.Close()
	}
}

// unsyncedDeliver forwards what was kept, but a message that is not judged yet
// only where nothing is held. b.writing must be held.
func (b *Body) unsyncedDeliver() error {
	if b.kept.over {
		b.CloseWith(StatusServiceRestart, reasonTooMuch)
	}
	err := b.flush(b.mode() == modeLive)
	b.waiting.Store(b.kept.any())
	return err
}

// flush forwards what is kept; of a message and a frame that have not ended only
// if it is told to. b.writing must be held.
func (b *Body) flush(all bool) error {
	k := &b.kept
	if !k.any() {
		return nil
	}
	parts := [...][]byte{k.pong, k.backlog, nil, nil}
	k.pong, k.backlog, k.mid = nil, nil, false
	if all {
		parts[2], parts[3] = k.held, k.control
		k.held, k.control = emptied(k.held), nil
	}
	for _, p := range parts {
		if _, err := b.forward(p); err != nil {
			return err
		}
	}
	return nil
}

// forward writes p to the upstream. b.writing must be held.
func (b *Body) forward(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if b.deaf() {
		return b.discard(p)
	}
	n, err := b.upstream.Write(p)
	if err != nil && b.counted {
		b.missed.Store(true)
	}
	if err == nil || (b.phase.Load() == phaseOpen && !b.leaveEndToRead()) {
		return n, err
	}
	return b.discard(p)
}

// deaf reports whether the client's bytes have nowhere to go.
func (b *Body) deaf() bool {
	return b.phase.Load() != phaseOpen || b.unwritable.Load() || b.severed.Load()
}

// discard throws p away, until it is too much. b.writing must be held.
func (b *Body) discard(p []byte) (int, error) {
	b.discarded += len(p)
	if !b.opts.WebSocket || b.discarded > drainLimit || b.phase.Load() == phaseClosed {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// CloseWrite tells the upstream that the client sends no more. If the upstream's
// connection can't be closed halfway, or must not be touched now, the error is
// errors.ErrUnsupported, on which a proxy ends the stream.
//
// A WebSocket whose client sends no more is over, with or without a close frame
// (RFC 6455, section 7.1): an upstream that does not end it soon is cut off.
func (b *Body) CloseWrite() error {
	half, ok := b.upstream.(interface{ CloseWrite() error })
	switch {
	case b.phase.Load() == phaseOpen && b.parked.Load():
		return errCloseWrite
	case b.deaf():
		return nil // the stream is about to end: an error would cut it short
	case !ok:
		return errCloseWrite
	}
	if b.opts.WebSocket {
		time.AfterFunc(halfOpen, func() { _ = b.shut() })
	}
	return half.CloseWrite()
}

// halfOpen is how long an upstream has for the last it says to a client that
// sends no more.
const halfOpen = 5 * time.Second

// keep adds to the backlog, which is void once it was too much: what the upstream
// gets must be what the client has sent.
func (k *kept) keep(p []byte) {
	if k.over = k.over || len(k.backlog)+len(p) > maxBacklog; k.over {
		k.backlog = nil
		return
	}
	k.backlog = append(k.backlog, p...)
}

// undelivered reports whether there is something that was kept because the stream
// was parked.
func (k *kept) undelivered() bool { return k.over || len(k.pong)+len(k.backlog) > 0 }

func (k *kept) any() bool { return k.undelivered() || len(k.held)+len(k.control) > 0 }

// emptied keeps the room for small messages.
func emptied(p []byte) []byte {
	if cap(p) > smallBuffer {
		return nil
	}
	return p[:0]
}
