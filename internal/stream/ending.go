package stream

import (
	"errors"
	"fmt"
	"time"

	"github.com/gobwas/ws"
)

var errCloseWrite = fmt.Errorf("closing the upstream's write side: %w", errors.ErrUnsupported)

const (
	// frameGrace is how long a stream that is to be closed may go on, because it
	// is in the middle of a frame or its end has not been read yet.
	frameGrace = time.Second

	// drainLimit is how many bytes of a client that was told to close are thrown
	// away before its connection is. Closing at once could lose the close frame:
	// unread bytes turn the end of a TCP connection into a reset.
	drainLimit = 1 << 20

	// drainGrace is how long such a client has to close its connection.
	drainGrace = 5 * time.Second
)

// CloseWith ends the stream: the client gets a close frame with the code and the
// reason (cut to 123 bytes) at the next frame boundary, then the end, and the
// connection to the upstream is closed. A Read or WriteTo that is under way
// returns for it. An upstream that does not finish its frame within a second is
// cut off without a close frame, and so is a protocol that has none. Only the
// first call of CloseWith or Close has an effect. Neither blocks.
//
// The client is expected to close its connection then. Of one that doesn't,
// ReadFrom ends with an error after 5 s, if the connection has SetReadDeadline.
func (b *Body) CloseWith(code uint16, reason string) {
	b.mu.Lock()
	if b.phase.Load() != phaseOpen {
		b.mu.Unlock()
		return
	}
	b.tail = closeFrame(code, reason)
	b.phase.Store(phaseClosing)
	ends := b.server.lost || b.server.atBoundary()
	if ends {
		b.endReading(!b.server.lost)
	}
	b.mu.Unlock()

	if ends {
		_ = b.shut()
		return
	}
	time.AfterFunc(frameGrace, func() { _ = b.shut() })
}

// Close closes the connection to the upstream at once. Reads and Writes that are
// under way return. It is idempotent: only the first call can return an error.
func (b *Body) Close() error {
	b.mu.Lock()
	b.phase.Store(phaseClosed)
	b.mu.Unlock()
	b.pull.close()
	return b.shut()
}

// closeLike ends a parked stream whose client has sent a close frame with this
// payload, and repeats its code as the upstream would.
func (b *Body) closeLike(payload []byte) {
	code, _ := ws.ParseCloseFrameData(payload)
	if code < 1000 || code > 4999 || code.IsProtocolReserved() {
		code = ws.StatusNormalClosure
	}
	b.clientClosed.Store(true)
	b.CloseWith(uint16(code), "")
}

// upstreamEnded decides what the client sees of the upstream's end: err, if it is
// returned, otherwise what the phase says. It blocks while the client is parked
// without an upstream.
func (b *Body) upstreamEnded(err error) error {
	switch b.phase.Load() {
	case phaseOpen:
		if b.sever() {
			<-b.ctx.Done()
		}
		if b.phase.Load() == phaseOpen {
			return err
		}
	case phaseClosing: // in the middle of a frame, for good
		b.mu.Lock()
		b.endReading(false)
		b.mu.Unlock()
		_ = b.shut()
	}
	return nil
}

// endReading leaves what is in tail as the last that the client gets, if it can
// have a close frame. b.mu must be held.
func (b *Body) endReading(atBoundary bool) {
	if !atBoundary || b.server.closed {
		b.tail = nil
	}
	if b.phase.Load() < phaseEnded {
		b.phase.Store(phaseEnded)
		b.unsyncedDrain()
	}
}

// leaveEndToRead is called when the upstream can't be written to. Its last words
// may still be unread, and if the owner wants to tell the client of the end, it
// is Read that does. Where Read notices nothing in time it is made to.
func (b *Body) leaveEndToRead() bool {
	if !b.opts.WebSocket || b.opts.OnUpstreamEnd == nil {
		return false
	}
	if !b.unwritable.Swap(true) {
		time.AfterFunc(frameGrace, func() { _ = b.closeUpstream() })
	}
	return true
}

// shut ends what the stream holds, once.
func (b *Body) shut() error {
	if b.over.Swap(true) {
		return nil
	}
	b.cancel()
	b.mu.Lock()
	b.unsyncedStopBeating()
	b.mu.Unlock()
	err := b.closeUpstream()
	if b.opts.Done != nil {
		b.opts.Done()
	}
	return err
}

func (b *Body) closeUpstream() (err error) {
	b.hangUp.Do(func() { err = b.upstream.Close() })
	return err
}
