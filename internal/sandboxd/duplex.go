package sandboxd

import (
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// maxDrain is how much of a request's body is read, and discarded, after the
	// answer is complete; as net/http does by itself.
	maxDrain = 256 << 10
	// drainTimeout is how long the rest of the body is waited for.
	drainTimeout = 5 * time.Second
)

// serveDuplex serves a request whose answer may begin before its body was read
// to the end, as a stream's does.
//
// By default an HTTP/1 server takes the body away when an answer begins; a
// transport that still reads it, be it only for its end, then breaks the
// connection into the sandbox off, and the answer with it. In full duplex the
// body stays, but nothing makes sure that it was read to its end before the
// connection's next request is: its rest would be taken for that request. So it
// is read here, or else the connection closed.
func serveDuplex(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rc := http.NewResponseController(w)
	if r.ProtoMajor != 1 || r.Body == nil || r.Body == http.NoBody || rc.EnableFullDuplex() != nil {
		next.ServeHTTP(w, r)
		return
	}
	body := &sharedBody{src: r.Body}
	r.Body = body
	next.ServeHTTP(w, r)
	if body.ended() {
		return
	}
	// also wakes the transport if it is waiting for more
	_ = rc.SetReadDeadline(time.Now().Add(drainTimeout))
	if !body.drain() {
		panic(http.ErrAbortHandler) // the one way to close the connection
	}
	_ = rc.SetReadDeadline(time.Time{})
}

// sharedBody is a request's body that the transport may still be reading when
// its request is over.
type sharedBody struct {
	mu  sync.Mutex // held while reading
	src io.Reader
	err error // the end, or why there is none

	endMu sync.Mutex // guards end, so that ended doesn't wait for a read
	end   bool
}

func (b *sharedBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	if b.err = err; err == io.EOF {
		b.endMu.Lock()
		b.end = true
		b.endMu.Unlock()
	}
	return n, err
}

// Close leaves the body to the server, which closes it.
func (b *sharedBody) Close() error { return nil }

func (b *sharedBody) ended() bool {
	b.endMu.Lock()
	defer b.endMu.Unlock()
	return b.end
}

// drain reads what is left, and reports whether that brought it to its end.
func (b *sharedBody) drain() bool {
	_, _ = io.CopyN(io.Discard, b, maxDrain)
	return b.ended()
}
