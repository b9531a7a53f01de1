package e2b

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strings"
)

// The data plane's two messages. E2B uses the first for all of unknown, killed
// and paused: its data plane can't tell them apart.
const (
	messageNotFound   = "The sandbox was not found"
	messagePortClosed = "The sandbox is running but port is not open"
)

// Answer is what a host's data plane said about a sandbox.
type Answer int

const (
	// AnswerOther is any answer of the sandbox itself.
	AnswerOther Answer = iota
	// AnswerSandboxNotFound is the host's own word that the sandbox is paused or
	// unknown. The request has not reached it.
	AnswerSandboxNotFound
	// AnswerPortClosed is the host's own word that the sandbox runs and nothing
	// listens on the port. The request has not reached it.
	AnswerPortClosed
)

// String returns the answer in words, for logs.
func (a Answer) String() string {
	switch a {
	case AnswerSandboxNotFound:
		return "sandbox not found"
	case AnswerPortClosed:
		return "port closed"
	default:
		return "other"
	}
}

// notice is the JSON body of the data plane's own 502. Port is absent where the
// sandbox was not found.
type notice struct {
	SandboxID string  `json:"sandboxId"`
	Message   string  `json:"message"`
	Port      *uint16 `json:"port,omitempty"`
	Code      int     `json:"code"`
}

// ClassifyAnswer tells the data plane's own word about the sandbox with this ID
// from an answer of the sandbox. Body must be the whole body, decoded; 4 KiB are
// plenty for it. An app's own 502 is [AnswerOther], unless it goes out of its
// way to look like the host's.
func ClassifyAnswer(id string, status int, h http.Header, body []byte) Answer {
	if status != http.StatusBadGateway {
		return AnswerOther
	}
	switch mediaType(h) {
	case "application/json":
		return classifyJSON(id, body)
	case "text/html":
		return classifyHTML(id, body)
	default:
		return AnswerOther
	}
}

func mediaType(h http.Header) string {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// classifyJSON wants the host's fields, no other and nothing after them.
func classifyJSON(id string, body []byte) Answer {
	var n notice
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if d.Decode(&n) != nil || n.SandboxID != id || n.Code != http.StatusBadGateway {
		return AnswerOther
	}
	if _, err := d.Token(); err != io.EOF {
		return AnswerOther
	}
	switch {
	case n.Message == messageNotFound && n.Port == nil:
		return AnswerSandboxNotFound
	case n.Message == messagePortClosed && n.Port != nil:
		return AnswerPortClosed
	}
	return AnswerOther
}

// classifyHTML knows the page that browsers get by its message and the ID in it.
// The page's make-up is the host's own affair and has changed before.
func classifyHTML(id string, body []byte) Answer {
	if id == "" || !bytes.Contains(body, []byte(id)) {
		return AnswerOther
	}
	switch {
	case bytes.Contains(body, []byte(messageNotFound)):
		return AnswerSandboxNotFound
	case bytes.Contains(body, []byte(messagePortClosed)):
		return AnswerPortClosed
	}
	return AnswerOther
}

// WriteSandboxNotFound answers a data-plane request to a sandbox that is unknown
// or paused, as E2B does.
func WriteSandboxNotFound(w http.ResponseWriter, r *http.Request, id string) {
	writeNotice(w, r, notice{SandboxID: id, Message: messageNotFound, Code: http.StatusBadGateway})
}

// WritePortClosed answers a data-plane request to a port on which the running
// sandbox does not listen, as E2B does.
func WritePortClosed(w http.ResponseWriter, r *http.Request, id string, port uint16) {
	writeNotice(w, r, notice{SandboxID: id, Message: messagePortClosed, Port: &port, Code: http.StatusBadGateway})
}

func writeNotice(w http.ResponseWriter, r *http.Request, n notice) {
	w.Header().Set("Cache-Control", "no-store")
	if !wantsHTML(r.Header) {
		writeJSON(w, n.Code, n)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(n.Code)
	port := ""
	if n.Port != nil {
		port = fmt.Sprintf(", port %d", *n.Port)
	}
	_, _ = fmt.Fprintf(w, "<!doctype html>\n<title>%s</title>\n<h1>%s</h1>\n<p>Sandbox %s%s</p>\n",
		n.Message, n.Message, html.EscapeString(n.SandboxID), port)
}

// browserAgent is by what E2B takes a user agent for a browser.
var browserAgent = regexp.MustCompile(`(?i)mozilla|chrome|safari|firefox|edge|opera|msie`)

// wantsHTML is E2B's rule for pages or JSON: a page only for a browser, and only
// where it is a person who will see it.
func wantsHTML(h http.Header) bool {
	accept, mode := h.Get("Accept"), h.Get("Sec-Fetch-Mode")
	if strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html") {
		return false
	}
	switch mode {
	case "cors", "no-cors", "same-origin", "websocket":
		return false
	}
	if h.Get("X-Requested-With") != "" && mode != "navigate" {
		return false
	}
	return browserAgent.MatchString(h.Get("User-Agent"))
}
