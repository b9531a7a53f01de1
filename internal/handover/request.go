package handover

import (
	"bufio"
	"bytes"
	"net/http"
)

const (
	// serverBuffer is the size of the buffer by which Go's server reads.
	serverBuffer = 4096

	// maxRead bounds what is kept of a request: longer ones are not handed over.
	// Caddy allows heads of 16 KiB where nothing else is configured.
	maxRead = 64 << 10
)

// request is what a server has read of a request, so that another one can.
type request struct {
	first  bool   // of its connection
	looked bool   // the server has begun to read it
	lost   bool   // read isn't all that the server has read
	whole  bool   // the server has all of its head
	read   []byte // up to the end of the head, and what has come with it
	later  int64  // how many bytes it has read since
}

// look is called before the server reads for a request for the first time, as
// many bytes as there is room for in its buffer: if something is left there
// that has come with the request before, and not in r.read, r is lost.
func (r *request) look(room int) {
	r.looked = true
	if !r.first && serverBuffer-room != len(r.read) {
		r.lost = true
	}
}

// add is called with what the server has read.
func (r *request) add(p []byte) {
	if len(r.read)+len(p) > maxRead {
		r.lost = true
	}
	if !r.lost {
		r.read = append(r.read, p...)
	}
}

// isHTTP2 says whether it is no request, but the beginning of HTTP/2 (RFC 9113,
// 3.4).
func (r *request) isHTTP2() bool { return bytes.HasPrefix(r.read, []byte("PRI ")) }

// alone says of an answered request whether it was all that the server had read
// when it had answered it.
func (r *request) alone() bool {
	rest := bytes.NewReader(r.read)
	buf := bufio.NewReader(rest)
	req, err := http.ReadRequest(buf)
	if err != nil || r.lost || req.ContentLength < 0 {
		return false
	}
	head := len(r.read) - rest.Len() - buf.Buffered()
	return int64(head)+req.ContentLength == int64(len(r.read))+r.later
}
