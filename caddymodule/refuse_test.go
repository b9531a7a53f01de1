package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
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
		{"a button pressed from elsewhere", errCrossOrigin, 403, "cross-origin"},
		{"another method", errMethod, 405, "method-not-allowed"},
		{"may not wake", &wake.RefusedError{Code: wake.CodeBudget}, 503, wake.CodeBudget},
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

// The hosts and their addresses are nobody's affair who has shown no token.
func TestRefuse_tellsNoVisitorWhereTheHostIs(t *testing.T) {
	t.Parallel()
	const address = "10.1.2.3:18092"
	dial := fmt.Errorf("Post \"http://%s/sandboxes/iabc/connect\": dial tcp %s: connection refused", address, address)
	host := func(kind session.Failure) error {
		return fmt.Errorf("host %q: %w", "h", &wake.HostError{Kind: kind, Err: dial})
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&wake.NotYetError{State: session.Paused, Cause: host(session.FailUnreachable)}, "its host can't be reached"},
		{&wake.NotYetError{State: session.Paused, Cause: host(session.FailTimeout)}, "has not answered in time"},
		{&wake.NotYetError{State: session.Paused, Cause: &wake.PermanentError{Err: host(session.FailRefused)}}, "refused to resume it"},
		{&wake.NotYetError{State: session.Paused, Cause: host(session.FailBroken)}, "failed to resume it"},
		{&wake.NotYetError{State: session.Killed, Cause: host(session.FailGone)}, "does not know it"},
		{&wake.NotYetError{State: session.Paused, Cause: host(session.FailUnconfigured)}, "not configured here"},
		{&wake.NotYetError{State: session.Paused, Cause: host("")}, "could not be resumed"},
		{&wake.NotYetError{Cause: host(session.FailUnreachable)}, "could not be looked up: its host can't be reached"},
		{&wake.NotYetError{State: session.Running, Cause: wake.ErrContradicts}, "as if it did not"},
		{&wake.NotYetError{State: session.Resuming, Cause: wake.ErrHeld}, "not done within the time"},
		{&wake.NotYetError{State: session.Paused, Cause: dial}, "session store"},
		{fmt.Errorf("sending: %w", dial), "can't be made, or broke"},
	} {
		for kind, headers := range map[string]map[string]string{
			"JSON":    {},
			"page":    {"Accept": "text/html"},
			"gRPC":    {"Content-Type": "application/grpc"},
			"Connect": {"Connect-Protocol-Version": "1"},
		} {
			r := httptest.NewRequest(http.MethodPost, "/a.B/C", nil)
			if kind == "page" {
				r.Method = http.MethodGet
			}
			for k, v := range headers {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			if err := refuse(w, r, target, tt.err); err != nil {
				t.Fatal(err)
			}
			message, err := url.PathUnescape(w.Header().Get("Grpc-Message"))
			said := fmt.Sprint(w.Header()) + message + html.UnescapeString(w.Body.String())
			if err != nil || strings.Contains(said, "10.1.2.3") || !strings.Contains(said, tt.want) {
				t.Errorf("%s for %v says, %v\n%s\nwant %q in it, and no address", kind, tt.err, err, said, tt.want)
			}
		}
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
	if got := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none';") {
		t.Errorf("Content-Security-Policy %q", got)
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

// What is answered to a page, a cache or a service worker in the sandbox's place
// must never pass for the sandbox's own, and HTML is for people only.
func TestRefuse_isNeverStoredNorHTMLForWhatIsNoPage(t *testing.T) {
	t.Parallel()
	for name, headers := range map[string]map[string]string{
		"program":        {"Accept": "*/*"},
		"fetch":          {"Sec-Fetch-Mode": "cors", "Accept": "text/html"},
		"script":         {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script", "Sec-Fetch-Site": "same-origin"},
		"service worker": {"Sec-Fetch-Mode": "same-origin", "Sec-Fetch-Dest": "serviceworker", "Service-Worker": "script"},
		"prefetch":       {"Sec-Fetch-Mode": "navigate", "Sec-Purpose": "prefetch;prerender", "Accept": "text/html"},
		"favicon":        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
		"WebSocket":      {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": "http://x"},
		"bot":            {"User-Agent": "Mozilla/5.0 (compatible; Googlebot/2.1)", "Accept": "text/html"},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		if name == "favicon" {
			r.URL.Path = "/favicon.ico"
		}
		for k, v := range headers {
			r.Header.Set(k, v)
		}
		if err := refuse(w, r, target, &wake.RefusedError{Asker: wake.AskerOf(r), Code: "x", Reason: "y"}); err != nil {
			t.Fatal(err)
		}
		if got := w.Header(); w.Code != 503 || got.Get("Content-Type") != "application/problem+json" || got.Get("Cache-Control") != "no-store" || got.Get("Vary") == "" {
			t.Errorf("%s: status %d, headers %v", name, w.Code, got)
		}
	}
}

// A form's data would be lost by a page that opens its address.
func TestRefuse_aFormIsNotSentAgainWithoutItsData(t *testing.T) {
	t.Parallel()
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader("a=b"))
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	if err := refuse(w, r, target, &wake.NotYetError{State: session.Resuming, RetryAfter: time.Second}); err != nil {
		t.Fatal(err)
	}
	if w.Code != 503 || w.Header().Get("Refresh") != "" || strings.Contains(w.Body.String(), "http-equiv=\"refresh\"") || strings.Contains(w.Body.String(), "<script") {
		t.Errorf("status %d, headers %v\n%s", w.Code, w.Header(), w.Body)
	}
}

// An EventSource gives up at a 503, and comes again where the connection ends.
func TestRefuse_endsTheConnectionOfAnEventSource(t *testing.T) {
	t.Parallel()
	refused := &wake.RefusedError{Asker: wake.EventSource, Code: wake.CodeBudget, Reason: "y"}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = refuse(w, r, target, refused)
	}))
	defer srv.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Sec-Fetch-Mode", "cors")
	if res, err := srv.Client().Do(r); err == nil {
		_ = res.Body.Close()
		t.Errorf("it was answered %s", res.Status)
	}
	r.Header.Del("Sec-Fetch-Mode") // a program can read a status
	res, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 503 {
		t.Errorf("a program was answered %s", res.Status)
	}
}
