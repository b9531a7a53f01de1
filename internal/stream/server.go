package stream

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// WriteTo gives the upstream's bytes to w, the client, until the stream ends.
// After CloseWith, these are whole frames only, then the close frame, and it
// returns nil; after Close it returns io.ErrClosedPipe. While it runs, w is also
// what pongs and keep-alives of a parked stream are written to; w is not used
// after it has returned. While the stream is parked it holds no large buffer, if
// the upstream has SetReadDeadline.
func (b *Body) WriteTo(w io.Writer) (total int64, err error) {
	b.setClient(w)
	defer b.setClient(nil)
	in := newIntake(b, b.upstream)
	defer in.release()
	for b.phase.Load() < phaseEnded {
		p, readErr := in.read()
		n, err := b.give(w, p)
		total += int64(n)
		if err != nil {
			return total, err
		}
		if readErr == nil {
			continue
		}
		in.release()
		if err := b.upstreamEnded(readErr); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
	}
	n, err := b.giveTail(w)
	return total + int64(n), err
}

// setClient tells where frames of our own can be written to.
func (b *Body) setClient(w io.Writer) {
	b.out <- struct{}{}
	b.to = w
	<-b.out
}

// give writes bytes of the upstream to the client, as many as it may get.
func (b *Body) give(w io.Writer, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b.out <- struct{}{}
	defer func() { <-b.out }()
	n := b.pass(p)
	if n == 0 {
		return 0, nil
	}
	return w.Write(p[:n])
}

// pass looks at bytes of the upstream, and returns how many of them the client
// gets: all, or those up to the last frame boundary if the stream is to end.
func (b *Body) pass(p []byte) int {
	b.mu.Lock()
	first, boundary := b.scanServer(p)
	n, counts := len(p), first < len(p)
	ends := b.phase.Load() != phaseOpen && boundary >= 0
	if ends {
		n = boundary
		b.endReading(true)
	}
	b.silent, b.settled = false, false
	if b.opts.KeepAlive != nil {
		b.heard = time.Since(b.began)
	}
	b.mu.Unlock()

	if ends {
		_ = b.shut()
	}
	if counts && b.opts.CountServer != nil && !b.parked.Load() { // else it was sent before the pause
		b.opts.CountServer()
		b.noteCounted()
	}
	return n
}

// scanServer is a scan that lets the owner see messages, if it wants to. b.mu
// must be held.
func (b *Body) scanServer(p []byte) (first, boundary int) {
	s := &b.server
	if s.judge == nil {
		return s.scan(p)
	}
	first, boundary = len(p), -1
	if s.atBoundary() {
		boundary = 0
	}
	for at := 0; at < len(p); {
		n, _, _ := s.next(p[at:])
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

func (b *Body) giveTail(w io.Writer) (int, error) {
	b.out <- struct{}{}
	defer func() { <-b.out }()
	b.mu.Lock()
	tail := b.tail
	b.tail = nil
	closed := b.phase.Load() == phaseClosed
	b.mu.Unlock()
	if closed {
		return 0, io.ErrClosedPipe
	}
	if len(tail) == 0 {
		return 0, nil
	}
	return w.Write(tail)
}

// injectTimeout is how long a frame of our own may take to be written. It is a
// few bytes, so that a client for which it is too long has long stopped reading.
const injectTimeout = 5 * time.Second

// inject writes a frame of our own to the client, now, or not at all: where the
// client is in the middle of a frame, or where data says that the frame is a
// message and no keep-alive fits there.
func (b *Body) inject(ctx context.Context, frame []byte, data bool) bool {
	select {
	case b.out <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-b.out }()
	b.mu.Lock()
	fits := b.server.atBoundary() && !b.server.closed && b.phase.Load() == phaseOpen && (!data || b.unsyncedAliveFits())
	b.mu.Unlock()
	if !fits || b.to == nil {
		return false
	}
	if conn, ok := b.to.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = conn.SetWriteDeadline(time.Now().Add(injectTimeout))
		defer func() { _ = conn.SetWriteDeadline(time.Time{}) }()
	}
	if _, err := b.to.Write(frame); err != nil {
		_ = b.Close() // the client may have half of it
		return false
	}
	return true
}

// unsyncedAliveFits tells whether a keep-alive may come here: not within a message,
// nor between two that the client may take for one. b.mu must be held.
func (b *Body) unsyncedAliveFits() bool {
	return !b.server.within && (b.alive.After == 0 || b.server.message <= b.alive.After || b.settled)
}

// pull is where Read reads what WriteTo gives.
type pull struct {
	start sync.Once
	mu    sync.Mutex // guards from
	from  *io.PipeReader
}

// Read gives the upstream's bytes to a client whose proxy does not use WriteTo,
// through a goroutine that ends with the stream. At its end it returns io.EOF, or
// WriteTo's error.
func (b *Body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b.pull.start.Do(func() {
		from, to := io.Pipe()
		b.pull.set(from)
		if b.phase.Load() == phaseClosed {
			_ = from.Close()
		}
		go func() {
			_, err := b.WriteTo(to)
			_ = to.CloseWithError(err)
		}()
	})
	b.pull.mu.Lock()
	from := b.pull.from
	b.pull.mu.Unlock()
	return from.Read(p)
}

func (l *pull) set(from *io.PipeReader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.from = from
}

// close ends a write that nobody reads any more.
func (l *pull) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.from != nil {
		_ = l.from.Close()
	}
}
