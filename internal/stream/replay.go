package stream

import (
	"errors"
	"io"
	"sync"
)

// errAttemptOver is what a body of an earlier attempt is read with.
var errAttemptOver = errors.New("reading a request body: the attempt that it was made for is over")

// Replay lets a request's body be sent more than once: it keeps what was read,
// up to a limit, while it passes through.
//
// A transport may go on reading the body of an attempt when that attempt has long
// failed. Each attempt therefore has a body of its own; bytes that such a late
// read takes from the source are kept for the next attempt, never lost.
type Replay struct {
	source io.Reader
	limit  int64

	mu      sync.Mutex // guards the following fields, and those of each attempt
	turn    sync.Cond  // a read of source ended, or an attempt is over
	reading bool       // source is being read, without mu
	current *attempt
	kept    []byte // all that was read of source, until spent
	spent   bool   // more than limit was read: current is the last attempt
	err     error  // what source ended with
}

// NewReplay returns a Replay that keeps up to limit bytes of body. The body stays
// its owner's to close, when no attempt is going on any more. It is not for
// http.NoBody, which a transport knows by its identity.
func NewReplay(body io.ReadCloser, limit int64) *Replay {
	r := &Replay{source: body, limit: limit}
	r.turn.L = &r.mu
	return r
}

// Attempt returns the body for the next attempt, the first too: from its start,
// what was kept and then what is still unread. The body of the attempt before is
// over. It returns false if more than the limit was read already. Closing the
// returned body does not close the one beneath.
func (r *Replay) Attempt() (io.ReadCloser, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spent {
		return nil, false
	}
	if r.current != nil {
		r.current.over = true
	}
	r.current = &attempt{replay: r}
	r.turn.Broadcast()
	return r.current, true
}

// read takes the next bytes of the source into p, and keeps them unless a is the
// last attempt. If a is over meanwhile they are kept even above the limit: the
// next attempt, which may have begun, was promised them.
// r.mu must be held; it is given up while the source is read.
func (r *Replay) read(a *attempt, p []byte) int {
	n := r.readUnlocked(p)
	if r.spent {
		return n
	}
	r.kept = append(r.kept, p[:n]...)
	r.spent = int64(len(r.kept)) > r.limit
	if !a.over {
		a.advance(n)
	}
	return n
}

// readUnlocked reads the source without the lock, which the attempts need in
// order to end while the client sends nothing.
func (r *Replay) readUnlocked(p []byte) (n int) {
	var err error
	r.reading = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.reading, r.err = false, err
		r.turn.Broadcast()
	}()
	n, err = r.source.Read(p)
	return n
}

// attempt is the body of one attempt.
type attempt struct {
	replay *Replay
	pos    int // of kept
	over   bool
}

func (a *attempt) Read(p []byte) (int, error) {
	r := a.replay
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case a.over:
			return 0, errAttemptOver
		case len(p) == 0:
			return 0, nil
		case a.pos < len(r.kept):
			n := copy(p, r.kept[a.pos:])
			a.advance(n)
			return n, nil
		case r.err != nil:
			return 0, r.err
		case r.reading: // by an attempt that is over
			r.turn.Wait()
		default:
			if n := r.read(a, p); !a.over && (n > 0 || r.err == nil) {
				return n, nil
			}
		}
	}
}

// advance moves a on by n kept bytes. Those that nobody will ask for again are
// let go. a.replay.mu must be held.
func (a *attempt) advance(n int) {
	a.pos += n
	if a.replay.spent && a.pos == len(a.replay.kept) {
		a.replay.kept, a.pos = nil, 0
	}
}

// Close ends the attempt. It does not wait for a Read that is under way.
func (a *attempt) Close() error {
	a.replay.mu.Lock()
	defer a.replay.mu.Unlock()
	a.over = true
	a.replay.turn.Broadcast()
	return nil
}
