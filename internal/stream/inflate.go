package stream

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"sync"
)

// maxInflated is how long a message may become that is looked into. A longer
// one counts: a small message that hides a large one is not a keep-alive.
const maxInflated = 64 << 10

// messageTail is what a sender leaves away at a message's end (RFC 7692, section
// 7.2.2), and an empty last block, so that the reader sees an end.
var messageTail = []byte("\x00\x00\xff\xff\x01\x00\x00\xff\xff")

// inflater holds what it takes to inflate one message, and the message.
type inflater struct {
	from   bytes.Reader
	tail   bytes.Reader
	source io.Reader
	flate  io.ReadCloser
	out    [maxInflated]byte
	n      int
}

var inflated = sync.Pool{New: func() any { return newInflater() }}

func newInflater() *inflater {
	f := new(inflater)
	f.source = byteSource{f}
	f.flate = flate.NewReader(f.source)
	return f
}

// inflateMessage inflates a message that refers to nothing before it. False:
// it does, is no deflated data, or is too long. The result belongs back into
// the pool.
func inflateMessage(p []byte) (*inflater, bool) {
	f := inflated.Get().(*inflater)
	f.from.Reset(p)
	f.tail.Reset(messageTail)
	f.n = 0
	err := f.flate.(flate.Resetter).Reset(f.source, nil)
	for err == nil && f.n < len(f.out) {
		var n int
		n, err = f.flate.Read(f.out[f.n:])
		f.n += n
	}
	// a last block that the sender has marked as such leaves its padding unread
	whole := f.from.Len() <= 1
	f.from.Reset(nil)
	if !errors.Is(err, io.EOF) || !whole {
		inflated.Put(f)
		return nil, false
	}
	return f, true
}

func (f *inflater) bytes() []byte { return f.out[:f.n] }

// byteSource gives the message and its tail, byte by byte where that is wanted,
// so that flate needs no buffer of its own.
type byteSource struct{ f *inflater }

func (s byteSource) Read(p []byte) (int, error) {
	if s.f.from.Len() > 0 {
		return s.f.from.Read(p)
	}
	return s.f.tail.Read(p)
}

func (s byteSource) ReadByte() (byte, error) {
	if s.f.from.Len() > 0 {
		return s.f.from.ReadByte()
	}
	return s.f.tail.ReadByte()
}
