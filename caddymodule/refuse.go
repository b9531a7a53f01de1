package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

var errWellKnown = errors.New("nothing is served at this address")

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
	p := problem{SandboxID: t.SandboxID, Detail: err.Error()}
	var notYet *wake.NotYetError
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
	case errors.As(err, &notYet):
		p.Title, p.Status, p.Code, p.State = "Sandbox is not awake yet", http.StatusServiceUnavailable, "not-awake", notYet.State
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

func (p problem) write(w http.ResponseWriter, r *http.Request, t e2b.Target) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.retryAfter+time.Second-1)/time.Second)))
	}
	switch {
	case t.Port == envdPort && p.Status == http.StatusNotFound:
		e2b.WriteSandboxNotFound(w, r, t.SandboxID) // what the SDKs look for
		return
	case isNavigation(r):
		p.writePage(w)
		return
	}
	h.Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	body, err := json.Marshal(p)
	if err != nil {
		return // strings and numbers always marshal
	}
	_, _ = w.Write(body)
}

// isNavigation tells whether a person opens a page. A browser says so by
// Sec-Fetch-Mode, which it leaves out on plain http; there a navigation is a
// GET that asks for HTML and for an upgrade to https.
func isNavigation(r *http.Request) bool {
	if (r.Method != http.MethodGet && r.Method != http.MethodHead) || strings.Contains(r.Header.Get("Sec-Purpose"), "prefetch") {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{{.Title}}</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { min-height: 100vh; margin: 0; display: grid; place-items: center; background: Canvas; color: CanvasText }
main { max-width: 30rem; padding: 2rem; text-align: center }
h1 { font-size: 1.4rem; margin: 0 0 .5rem }
p { margin: .5rem 0; opacity: .8 }
code { font-size: .9em; opacity: .8; overflow-wrap: anywhere }
</style>
</head>
<body>
<main role="status" data-sandbox="{{.SandboxID}}" data-state="{{.State}}">
<h1>{{.Title}}</h1>
<p>{{.Detail}}</p>
{{if eq .Status 503}}<p>This page tries again by itself.</p>{{end}}
{{with .SandboxID}}<p><code>{{.}}</code></p>{{end}}
</main>
</body>
</html>
`))

func (p problem) writePage(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	if retry := h.Get("Retry-After"); retry != "" {
		h.Set("Refresh", retry)
	}
	w.WriteHeader(p.Status)
	_ = page.Execute(w, p) // fails only when the client has left
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
