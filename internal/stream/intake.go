package stream

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// bufferSize is what a stream reads at most at once, as proxies do.
	bufferSize = 32 << 10

	// parkedSize is the same of a parked stream, of which thousands may wait.
	parkedSize = 512
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// deadliner is a connection whose Read can be ended without harm.
type deadliner interface{ SetReadDeadline(time.Time) error }

// intake reads one direction of a stream: with a large buffer while it moves,
// with a small one while it is parked.
type intake struct {
	body  *Body
	from  io.Reader
	conn  deadliner // nil: a Read that is under way can't be ended
	large *[bufferSize]byte
	small []byte
}

func newIntake(b *Body, from io.Reader) *intake {
	in := &intake{body: b, from: from}
	in.conn, _ = from.(deadliner)
	return in
}

// read gives what there is. It can come with an error.
func (in *intake) read() ([]byte, error) {
	for {
		p := in.buffer()
		n, err := in.from.Read(p)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !in.body.goOn(in.conn) {
			return p[:n], err
		}
		if n > 0 {
			return p[:n], nil
		}
	}
}

func (in *intake) buffer() []byte {
	if !in.body.parked.Load() {
		if in.large == nil {
			in.large = buffers.Get().(*[bufferSize]byte)
		}
		return in.large[:]
	}
	in.release()
	if in.small == nil {
		in.small = make([]byte, parkedSize)
	}
	return in.small
}

// release gives the large buffer back.
func (in *intake) release() {
	if in.large != nil {
		buffers.Put(in.large)
		in.large = nil
	}
}

// longAgo ends a Read that is under way, or the next one.
var longAgo = time.Unix(1, 0)

// interrupt makes both directions choose their buffers anew. b.mu must be held.
func (b *Body) unsyncedInterrupt() {
	if conn, ok := b.upstream.(deadliner); ok {
		_ = conn.SetReadDeadline(longAgo)
	}
	if b.source != nil {
		_ = b.source.SetReadDeadline(longAgo)
	}
}

// goOn reports whether a Read that a deadline has ended was only interrupted.
func (b *Body) goOn(conn deadliner) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return conn != nil && b.phase.Load() < phaseEnded && conn.SetReadDeadline(time.Time{}) == nil
}

// setSource tells where the client's bytes come from.
func (b *Body) setSource(conn deadliner) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.source = conn
	if b.phase.Load() >= phaseEnded {
		b.unsyncedDrain()
	}
}

// unsyncedDrain gives a client that was told to close a while for it. b.mu must
// be held.
func (b *Body) unsyncedDrain() {
	if b.source != nil {
		_ = b.source.SetReadDeadline(time.Now().Add(drainGrace))
	}
}
