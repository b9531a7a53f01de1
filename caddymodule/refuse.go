package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// problem is an answer that is not the sandbox's, as RFC 9457 has it. It is
// never stored by a cache, and never HTML to anything but a navigation.
type problem struct {
	Title     string        `json:"title"`
	Status    int           `json:"status"`
	Detail    string        `json:"detail"`
	Code      string        `json:"code"`
	SandboxID string        `json:"sandboxID,omitempty"`
	State     session.State `json:"state,omitempty"`

	retryAfter time.Duration
}

// problemOf is the one place where an error becomes a status.
func problemOf(t e2b.Target, err error) problem {
	p := problem{SandboxID: t.SandboxID, Detail: err.Error()} // what no host has said, but for the cases below
	var notYet *wake.NotYetError
	var refused *wake.RefusedError
	switch {
	case errors.Is(err, e2b.ErrBadTarget):
		p.Title, p.Status, p.Code = "Bad sandbox address", http.StatusBadRequest, "bad-address"
	case errors.Is(err, e2b.ErrNoTarget), errors.Is(err, errWellKnown):
		p.Title, p.Status, p.Code = "Not found", http.StatusNotFound, "not-found"
	case errors.Is(err, wake.ErrKilled):
		p.Title, p.Status, p.Code, p.State = "Sandbox is gone", http.StatusNotFound, "killed", session.Killed
		p.Detail = "This sandbox was ended at its host and can't be resumed."
	case errors.Is(err, wake.ErrUnknown), errors.Is(err, wake.ErrGone):
		p.Title, p.Status, p.Code = "No such sandbox", http.StatusNotFound, "unknown-sandbox"
		p.Detail = "No host knows a sandbox of this ID."
	case errors.Is(err, errMethod):
		p.Title, p.Status, p.Code = "Method not allowed", http.StatusMethodNotAllowed, "method-not-allowed"
	case errors.Is(err, errCrossOrigin):
		p.Title, p.Status, p.Code = "Not from here", http.StatusForbidden, "cross-origin"
	case errors.As(err, &refused):
		p.Title, p.Status, p.Code, p.State = "Sandbox is asleep", http.StatusServiceUnavailable, refused.Code, session.Paused
		p.Detail = "The sandbox sleeps, and this request does not wake it: " + refused.Reason + "."
		p.retryAfter = refused.RetryAfter
	case errors.Is(err, errWaking):
		p.Title, p.Status, p.Code, p.State = "Sandbox is not awake yet", http.StatusServiceUnavailable, "not-awake", session.Resuming
		p.retryAfter = time.Second
	case errors.As(err, &notYet):
		p.Title, p.Status, p.Code, p.State = "Sandbox is not awake yet", http.StatusServiceUnavailable, "not-awake", notYet.State
		p.Detail = (&wake.NotYetError{State: notYet.State, Cause: errors.New(toldOf(notYet.Cause))}).Error()
		p.retryAfter = notYet.RetryAfter
	case errors.Is(err, errReplaced), errors.Is(err, errExiting), errors.Is(err, wake.ErrShuttingDown):
		p.Title, p.Status, p.Code = "Proxy is going away", http.StatusServiceUnavailable, "shutting-down"
		p.retryAfter = time.Second
	case errors.Is(err, errCut):
		p.Title, p.Status, p.Code = "Sandbox is being paused", http.StatusServiceUnavailable, "paused-by-hand"
		p.retryAfter = time.Second
	case errors.Is(err, errTooLarge):
		p.Title, p.Status, p.Code = "Sandbox fell asleep", http.StatusServiceUnavailable, "fell-asleep"
		p.retryAfter = time.Second
	default:
		p.Title, p.Status, p.Code = "Sandbox does not answer", http.StatusBadGateway, "bad-gateway"
		p.Detail = "The connection to the sandbox can't be made, or broke before its answer began. What was asked for may have been carried out."
	}
	return p
}

// errTooLarge: the sandbox slept under a request whose body is not kept whole.
var errTooLarge = errors.New("the sandbox fell asleep while the request was sent, and its body is too large to have been kept; send it again")

// refuse answers a request that does not get to its sandbox.
func refuse(w http.ResponseWriter, r *http.Request, t e2b.Target, why error) error {
	select {
	case <-r.Context().Done():
		w.WriteHeader(statusClientClosed) // nobody reads it; the log does
	default:
		problemOf(t, why).write(w, r, t)
	}
	return nil
}

// statusClientClosed is what logs show for a client that went away.
const statusClientClosed = 499

// neverStored marks an answer that is not the sandbox's. retryAfter 0: it will
// be the same later.
func neverStored(h http.Header, retryAfter time.Duration) {
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept, Content-Type, Sec-Fetch-Mode, Sec-Purpose")
	if retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(seconds(retryAfter)))
	}
}

func (p problem) write(w http.ResponseWriter, r *http.Request, t e2b.Target) {
	neverStored(w.Header(), p.retryAfter)
	asker := wake.AskerOf(r)
	switch {
	case t.Port == envdPort && (p.Status == http.StatusNotFound || p.Code == wake.CodeManual):
		e2b.WriteSandboxNotFound(w, r, t.SandboxID) // what the SDKs look for
		return
	case asker == wake.EventSource && p.Status == http.StatusServiceUnavailable:
		// an EventSource gives up for good at the first 503, and comes again after
		// a connection that ended; net/http ends it, and logs nothing
		panic(http.ErrAbortHandler)
	case asker.ShowsPages():
		page := p.page()
		if r.Method == http.MethodPost {
			page.Refresh = 0 // the browser would open the address without the form's data
		}
		page.write(w)
		return
	}
	switch dialectOf(r) {
	case dialectGRPC:
		p.writeGRPC(w, r)
	case connectUnary, connectStream:
		p.writeConnect(w)
	default:
		p.writeJSON(w)
	}
}

func (p problem) writeJSON(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	body, err := json.Marshal(p)
	if err != nil {
		return // strings and numbers always marshal
	}
	_, _ = w.Write(body)
}

// response is the same answer where a transport must give one.
func (p problem) response(r *http.Request, t e2b.Target) *http.Response {
	w := &answer{header: make(http.Header)}
	p.write(w, r, t)
	return w.response(r)
}

func (a *answer) response(r *http.Request) *http.Response {
	a.WriteHeader(http.StatusOK) // if nothing was written
	body := bytes.NewReader(a.body.Bytes())
	return &http.Response{
		Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), StatusCode: a.status, Header: a.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Body: io.NopCloser(body), ContentLength: body.Size(),
	}
}
