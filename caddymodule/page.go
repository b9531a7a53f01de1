package caddymodule

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

// page is what a person sees in the sandbox's place. It brings all that it
// needs along, works without JavaScript, and is never stored: nothing at the
// sandbox's address can be trusted to be there.
//
// It is also what GET /.well-known/sandman/state answers, so that the page's
// script has no words of its own.
type page struct {
	Status    int           `json:"-"`
	SandboxID string        `json:"sandboxID,omitempty"`
	State     session.State `json:"state"`
	Version   string        `json:"version"` // what changes when the page does
	Mood      mood          `json:"mood"`
	Title     string        `json:"title"`
	Detail    string        `json:"detail"`
	Reason    string        `json:"reason,omitempty"` // why it does not wake
	Button    string        `json:"button,omitempty"` // by which a person may wake it
	Waking    bool          `json:"waking"`
	ElapsedMs int64         `json:"elapsedMs"` // since it is being woken

	Follow  bool          `json:"-"` // the state is worth following
	Back    string        `json:"-"` // where the button leads, once it has woken the sandbox
	Refresh time.Duration `json:"-"` // when to come again; 0: not
}

// mood is how the page looks.
type mood string

const (
	moodAsleep mood = "asleep"
	moodWaking mood = "waking"
	moodAwake  mood = "awake"
	moodFailed mood = "failed"
)

var (
	//go:embed page/page.html
	pageHTML string
	//go:embed page/page.css
	pageCSS string
	//go:embed page/page.js
	pageJS string

	pageTemplate = template.Must(template.New("page").Parse(pageHTML))

	// pagePolicy lets nothing in but the two blocks of the page itself. Frames are
	// left to the app: editors are shown in them.
	pagePolicy = "default-src 'none'; base-uri 'none'; form-action 'self'; connect-src 'self'; img-src data:; " +
		"style-src '" + hashOf(pageCSS) + "'; script-src '" + hashOf(pageJS) + "'"
)

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// pageIcon keeps the browser from asking the sandbox for one.
const pageIcon = template.URL("data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E" + //nolint:gosec // it is ours
	"%3Cpath fill='%236d55dd' d='M21 4a12.5 12.5 0 1 0 7 20A13 13 0 0 1 21 4z'/%3E%3C/svg%3E")

// Fixed parts, for the template.
func (page) Style() template.CSS { return template.CSS(pageCSS) } //nolint:gosec // it is ours
func (page) Script() template.JS { return template.JS(pageJS) }   //nolint:gosec // it is ours
func (page) Icon() template.URL  { return pageIcon }

// write answers with the page. Retry-After must have been set.
func (p page) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.Refresh > 0 {
		h.Set("Refresh", strconv.Itoa(seconds(p.Refresh)))
	}
	w.WriteHeader(p.Status)
	_ = pageTemplate.Execute(w, p) // fails only when the client has left
}

// seconds rounds up: who comes a moment early comes in vain.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// page is the problem as a person is told of it, where no more is known.
func (p problem) page() page {
	return page{
		Status: p.Status, SandboxID: p.SandboxID, State: p.State, Mood: moodFailed,
		Title: p.Title, Detail: p.Detail, Refresh: p.retryAfter,
	}
}
