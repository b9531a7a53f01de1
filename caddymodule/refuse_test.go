package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

var target = e2b.Target{SandboxID: "iabc", Port: 8080}

func TestProblemOf_choosesStatusAndCode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"malformed address", fmt.Errorf("x: %w", e2b.ErrBadTarget), 400, "bad-address"},
		{"another host", fmt.Errorf("x: %w", e2b.ErrNoTarget), 404, "not-found"},
		{"our own path", errWellKnown, 404, "not-found"},
		{"killed", wake.ErrKilled, 404, "killed"},
		{"unknown", wake.ErrUnknown, 404, "unknown-sandbox"},
		{"not yet", &wake.NotYetError{State: session.Resuming, RetryAfter: time.Second}, 503, "not-awake"},
		{"cut by a forced pause", errCut, 503, "paused-by-hand"},
		{"body too large to repeat", errTooLarge, 503, "fell-asleep"},
		{"anything else", errors.New("connection reset"), 502, "bad-gateway"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := problemOf(target, tt.err)
			if p.Status != tt.status || p.Code != tt.code {
				t.Errorf("problemOf(%v) = %d %s, want %d %s", tt.err, p.Status, p.Code, tt.status, tt.code)
			}
			if p.Title == "" || p.Detail == "" {
				t.Errorf("problemOf(%v) says nothing: %+v", tt.err, p)
			}
		})
	}
}

func TestRefuse_isProblemJSONForPrograms(t *testing.T) {
	t.Parallel()
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil)
	if err := refuse(w, r, target, &wake.NotYetError{State: session.Paused, RetryAfter: 1500 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q", got)
	}
	if got := w.Header().Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q, want whole seconds, rounded up: 2", got)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
	var p problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != 503 || p.State != session.Paused || p.SandboxID != "iabc" {
		t.Errorf("body %s: %+v, %v", w.Body, p, err)
	}
}

func TestRefuse_isAPageForNavigations(t *testing.T) {
	t.Parallel()
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Accept", "text/html,*/*")
	if err := refuse(w, r, target, &wake.NotYetError{State: session.Resuming, RetryAfter: time.Second}); err != nil {
		t.Fatal(err)
	}
	body := w.Body.String()
	if w.Code != http.StatusServiceUnavailable || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
		t.Errorf("status %d, Content-Type %q", w.Code, w.Header().Get("Content-Type"))
	}
	if w.Header().Get("Refresh") != "1" {
		t.Errorf("the page does not come again by itself: Refresh %q", w.Header().Get("Refresh"))
	}
	if !strings.Contains(body, `data-sandbox="iabc"`) || !strings.Contains(body, `data-state="RESUMING"`) {
		t.Errorf("the page does not say which sandbox, and its state:\n%s", body)
	}
}

func TestRefuse_speaksE2BToItsSDKs(t *testing.T) {
	t.Parallel()
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/process.Process/Start", nil)
	envd := e2b.Target{SandboxID: "iabc", Port: envdPort}
	if err := refuse(w, r, envd, wake.ErrKilled); err != nil {
		t.Fatal(err)
	}
	if got := e2b.ClassifyAnswer("iabc", w.Code, w.Header(), w.Body.Bytes()); got != e2b.AnswerSandboxNotFound {
		t.Errorf("status %d, body %s: not what an SDK takes for a sandbox that is gone", w.Code, w.Body)
	}
}

func TestIsNavigation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		method  string
		headers map[string]string
		want    bool
	}{
		{"typed address", "GET", map[string]string{"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}, true},
		{"plain http", "GET", map[string]string{"Accept": "text/html,application/xhtml+xml", "Upgrade-Insecure-Requests": "1"}, true},
		{"a page's fetch", "GET", map[string]string{"Sec-Fetch-Mode": "cors", "Accept": "text/html"}, false},
		{"prefetch", "GET", map[string]string{"Sec-Fetch-Mode": "navigate", "Sec-Purpose": "prefetch;prerender", "Accept": "text/html"}, false},
		{"form", "POST", map[string]string{"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}, false},
		{"curl", "GET", map[string]string{"Accept": "*/*"}, false},
		{"WebSocket handshake", "GET", map[string]string{"Upgrade": "websocket"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(tt.method, "/", nil)
			for k, v := range tt.headers {
				r.Header.Set(k, v)
			}
			if got := isNavigation(r); got != tt.want {
				t.Errorf("isNavigation = %t, want %t", got, tt.want)
			}
		})
	}
}
