package stream

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
)

// Options says how a Body is metered and ended. The zero value forwards bytes
// and does nothing else.
type Options struct {
	// WebSocket says that both directions are WebSocket frames. Of any other
	// protocol every byte counts, and no close frame can be sent.
	WebSocket bool

	// Count is called before a client's bytes that count are forwarded: those of
	// a data message, or of any message once the frames can't be followed. It is
	// called at most once per Write, so also for each further piece of a long
	// message, and never by two goroutines at once. It may block, and the stream
	// with it; ctx ends when the stream does. An error closes the stream with
	// 1013, or with whatever Count has called CloseWith with, and the message is
	// not forwarded.
	Count func(ctx context.Context) error

	// CountServer is called after each Read with bytes of the server that count.
	// It must not block. Nil: the server's messages don't count.
	CountServer func()

	// OnUpstreamEnd is called once when the upstream's side of a WebSocket has
	// ended although neither side has sent a close frame. If ok, the client gets
	// a close frame with the code and reason, unless it was left in the middle of
	// a frame; otherwise it sees the end as it came. It may block, and the
	// client's connection stays open meanwhile; ctx ends when the stream does.
	OnUpstreamEnd func(ctx context.Context) (code uint16, reason string, ok bool)

	// Done is called once, when the connection to the upstream has been closed
	// from this side, by whichever goroutine did. A proxy closes it at the end of
	// each stream.
	Done func()
}

// The phases of a Body, in the order in which they can follow each other.
const (
	phaseOpen    int32 = iota
	phaseClosing       // to be closed, but the client is in the middle of a frame
	phaseEnded         // the upstream is not read any more: the close frame, then EOF
	phaseClosed        // closed by the proxy
)

// Body stands for the body of a 101 answer, between a proxy and the upstream.
// Write takes the client's bytes, Read gives the upstream's. One goroutine may
// read while another writes; all other methods are safe at any time.
type Body struct {
	upstream io.ReadWriteCloser
	opts     Options
	ctx      context.Context // ends with the stream
	cancel   context.CancelFunc
	over     atomic.Bool // the stream was shut
	hangUp   sync.Once   // guards the closing of upstream

	writing   sync.Mutex // held by Write; guards the following fields
	client    scanner
	discarded int

	clientClosed atomic.Bool // the client has sent a close frame
	unwritable   atomic.Bool // the upstream refused bytes; Read will find its end

	phase atomic.Int32 // changed under mu

	mu     sync.Mutex // guards the following fields
	server scanner    // changed by Read only
	tail   []byte     // what the client still gets in phaseEnded

	// Used by Read only.
	readErr error // what the upstream's side ended with
	endTold bool  // OnUpstreamEnd was called
}

// NewBody returns a Body over upstream, which is from then on the Body's to
// close. The contexts of opts' functions derive from ctx, but its end does not
// close the Body.
func NewBody(ctx context.Context, upstream io.ReadWriteCloser, opts Options) *Body {
	ctx, cancel := context.WithCancel(ctx)
	return &Body{
		upstream: upstream,
		opts:     opts,
		ctx:      ctx,
		cancel:   cancel,
		client:   scanner{masked: true, lost: !opts.WebSocket},
		server:   scanner{lost: !opts.WebSocket},
	}
}

// Write forwards the client's bytes, and calls Count before the first one that
// counts. What comes after the stream was closed with CloseWith is thrown away
// without an error, because an error would make the proxy drop the client before
// it has the close frame.
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

	first, _ := b.client.scan(p)
	if b.client.closed {
		b.clientClosed.Store(true)
	}
	n, err := b.forward(p[:first])
	if err != nil || first == len(p) {
		return n, err
	}
	b.count()
	m, err := b.forward(p[first:])
	return n + m, err
}

// count tells the owner of a message. b.writing must be held.
func (b *Body) count() {
	if b.opts.Count == nil || b.deaf() {
		return
	}
	if err := b.opts.Count(b.ctx); err != nil {
		b.CloseWith(StatusTryAgainLater, "the upstream can't be reached now")
	}
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
	if err == nil || (b.phase.Load() == phaseOpen && !b.leaveEndToRead()) {
		return n, err
	}
	return b.discard(p)
}

// deaf reports whether the client's bytes have nowhere to go.
func (b *Body) deaf() bool {
	return b.phase.Load() != phaseOpen || b.unwritable.Load()
}

// discard throws p away, until it is too much. b.writing must be held.
func (b *Body) discard(p []byte) (int, error) {
	b.discarded += len(p)
	if !b.opts.WebSocket || b.discarded > drainLimit || b.phase.Load() == phaseClosed {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// Read gives the upstream's bytes to the client. After CloseWith, it gives whole
// frames only, then the close frame, then io.EOF. After Close it returns
// io.ErrClosedPipe.
func (b *Body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for b.phase.Load() < phaseEnded {
		n, err := b.readUpstream(p)
		n = b.pass(p[:n])
		if n > 0 {
			return n, nil // an error is kept for the next Read
		}
		if err == nil && b.phase.Load() < phaseEnded {
			return 0, nil
		}
		if err = b.upstreamEnded(err); err != nil {
			return 0, err
		}
	}
	return b.readTail(p)
}

func (b *Body) readUpstream(p []byte) (n int, err error) {
	if b.readErr == nil {
		n, b.readErr = b.upstream.Read(p)
	}
	return n, b.readErr
}

// pass looks at bytes of the upstream, and returns how many of them the client
// gets: all, or those up to the last frame boundary if the stream is to end.
func (b *Body) pass(p []byte) int {
	b.mu.Lock()
	first, boundary := b.server.scan(p)
	n, counts := len(p), first < len(p)
	ends := b.phase.Load() != phaseOpen && boundary >= 0
	if ends {
		n = boundary
		b.endReading(true)
	}
	b.mu.Unlock()

	if ends {
		_ = b.shut()
	}
	if counts && b.opts.CountServer != nil {
		b.opts.CountServer()
	}
	return n
}
