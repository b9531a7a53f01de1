package caddymodule

import (
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// dialect is a protocol over HTTP that has errors of its own.
type dialect uint8

const (
	plain dialect = iota
	dialectGRPC
	connectUnary
	connectStream
)

// dialectOf goes by what the protocols' specifications demand of each request:
// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and
// https://connectrpc.com/docs/protocol
func dialectOf(r *http.Request) dialect {
	if r.Method == http.MethodGet {
		if strings.Contains(r.URL.RawQuery, "connect=v1") {
			return connectUnary
		}
		return plain
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Method != http.MethodPost:
		return plain
	case strings.HasPrefix(kind, "application/grpc"):
		return dialectGRPC
	case strings.HasPrefix(kind, "application/connect+"):
		return connectStream
	case r.Header.Get("Connect-Protocol-Version") != "":
		return connectUnary
	}
	return plain
}

// callCodes are those of gRPC, by their HTTP status.
var callCodes = map[int]struct {
	grpc    int
	connect string
}{
	http.StatusBadRequest:         {3, "invalid_argument"},
	http.StatusForbidden:          {7, "permission_denied"},
	http.StatusNotFound:           {5, "not_found"},
	http.StatusBadGateway:         {14, "unavailable"},
	http.StatusServiceUnavailable: {14, "unavailable"},
}

// writeGRPC answers a gRPC call, of the web, too. Its own way would be a 200
// with the status in trailers; nothing of ours is a 200, which a cache or a
// retrying proxy would take for the sandbox's. Clients bear it: those that look
// at the HTTP status first (grpc-go, connect) make 503 to UNAVAILABLE, as the
// specification tells them, and those that look for grpc-status first
// (grpc-java, C-core) find the same, and the message. UNAVAILABLE is what retry
// policies repeat.
func (p problem) writeGRPC(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	code, ok := callCodes[p.Status]
	if !ok {
		code.grpc = 2 // UNKNOWN
	}
	h.Set("Content-Type", r.Header.Get("Content-Type"))
	h.Set("Grpc-Status", strconv.Itoa(code.grpc))
	h.Set("Grpc-Message", url.PathEscape(p.Detail))
	if p.retryAfter > 0 {
		h.Set("Grpc-Retry-Pushback-Ms", strconv.FormatInt(p.retryAfter.Milliseconds(), 10))
	}
	w.WriteHeader(p.Status)
}

// writeConnect answers a call of the Connect protocol. A unary one has its errors
// as JSON with an HTTP status; clients of a stream take the status for the
// error where it is no 200, and leave the body.
func (p problem) writeConnect(w http.ResponseWriter) {
	code, ok := callCodes[p.Status]
	if !ok {
		code.connect = "unknown"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(struct { // fails only when the client has left
		Code    string `json:"code"`
		Message string `json:"message"`
	}{code.connect, p.Detail})
}
