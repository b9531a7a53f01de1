package e2b_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sandman-proxy/sandman/internal/e2b"
)

func TestClassifyAnswer_knowsWhatTheHostWrites(t *testing.T) {
	t.Parallel()
	for _, agent := range []string{"e2b-js-sdk/2.51.0", "Mozilla/5.0"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("User-Agent", agent)
		w := httptest.NewRecorder()
		e2b.WriteSandboxNotFound(w, r, "iabc")
		if a := e2b.ClassifyAnswer("iabc", w.Code, w.Header(), w.Body.Bytes()); a != e2b.AnswerSandboxNotFound {
			t.Errorf("%s: %s is %v", agent, w.Body, a)
		}
		w = httptest.NewRecorder()
		e2b.WritePortClosed(w, r, "iabc", 3000)
		if a := e2b.ClassifyAnswer("iabc", w.Code, w.Header(), w.Body.Bytes()); a != e2b.AnswerPortClosed {
			t.Errorf("%s: %s is %v", agent, w.Body, a)
		}
	}
}

func TestClassifyAnswer_leavesAnAppsAnswersAlone(t *testing.T) {
	t.Parallel()
	const notFound = `{"sandboxId":"iabc","message":"The sandbox was not found","code":502}`
	tests := []struct {
		name   string
		status int
		typ    string
		body   string
		want   e2b.Answer
	}{
		{"the host's not found", 502, "application/json; charset=utf-8", notFound, e2b.AnswerSandboxNotFound},
		{"the host's port closed", 502, "application/json", `{"sandboxId":"iabc","message":"The sandbox is running but port is not open","port":3000,"code":502}`, e2b.AnswerPortClosed},
		{"other status", 503, "application/json", notFound, e2b.AnswerOther},
		{"other sandbox", 502, "application/json", strings.Replace(notFound, "iabc", "iabd", 1), e2b.AnswerOther},
		{"other code", 502, "application/json", strings.Replace(notFound, "502", "500", 1), e2b.AnswerOther},
		{"other message", 502, "application/json", strings.Replace(notFound, "not found", "lost", 1), e2b.AnswerOther},
		{"more fields", 502, "application/json", strings.Replace(notFound, "{", `{"app":1,`, 1), e2b.AnswerOther},
		{"more text", 502, "application/json", notFound + "x", e2b.AnswerOther},
		{"not found with a port", 502, "application/json", strings.Replace(notFound, "{", `{"port":1,`, 1), e2b.AnswerOther},
		{"port closed without one", 502, "application/json", `{"sandboxId":"iabc","message":"The sandbox is running but port is not open","code":502}`, e2b.AnswerOther},
		{"as plain text", 502, "text/plain", notFound, e2b.AnswerOther},
		{"no type", 502, "", notFound, e2b.AnswerOther},
		{"cut", 502, "application/json", notFound[:40], e2b.AnswerOther},
		{"an app's page", 502, "text/html", `<h1>502 Bad Gateway</h1>`, e2b.AnswerOther},
		{"a page about another", 502, "text/html", `The sandbox was not found: iabd`, e2b.AnswerOther},
		{"a page of the host", 502, "text/html; charset=utf-8", `<p>The sandbox was not found</p><code>iabc</code>`, e2b.AnswerSandboxNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := e2b.ClassifyAnswer("iabc", tt.status, headers("Content-Type", tt.typ), []byte(tt.body)); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if got := e2b.ClassifyAnswer("", 502, headers("Content-Type", "text/html"), []byte(`The sandbox was not found`)); got != e2b.AnswerOther {
		t.Errorf("without an ID: got %v", got)
	}
}

func TestWriteSandboxNotFound_isAPageForPeopleOnly(t *testing.T) {
	t.Parallel()
	const browser = "Mozilla/5.0 (X11; Linux x86_64)"
	tests := []struct {
		name string
		h    http.Header
		html bool
	}{
		{"navigation", headers("User-Agent", browser, "Accept", "text/html,*/*", "Sec-Fetch-Mode", "navigate"), true},
		{"navigation on plain http", headers("User-Agent", browser, "Accept", "text/html"), true},
		{"navigation by a script's library", headers("User-Agent", browser, "Sec-Fetch-Mode", "navigate", "X-Requested-With", "x"), true},
		{"SDK", headers("User-Agent", "e2b-js-sdk/2.51.0", "Accept", "*/*", "Sec-Fetch-Mode", "cors"), false},
		{"fetch in a page", headers("User-Agent", browser, "Accept", "*/*", "Sec-Fetch-Mode", "cors"), false},
		{"XHR", headers("User-Agent", browser, "X-Requested-With", "XMLHttpRequest"), false},
		{"wants JSON", headers("User-Agent", browser, "Accept", "application/json"), false},
		{"wants both", headers("User-Agent", browser, "Accept", "application/json, text/html"), true},
		{"curl", headers("User-Agent", "curl/8", "Accept", "*/*"), false},
		{"nothing", headers(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header = tt.h
			w := httptest.NewRecorder()
			e2b.WriteSandboxNotFound(w, r, "iabc")
			if got := strings.HasPrefix(w.Header().Get("Content-Type"), "text/html"); got != tt.html || w.Code != 502 {
				t.Errorf("html %v, status %d", got, w.Code)
			}
			if w.Header().Get("Cache-Control") != "no-store" {
				t.Error("may be cached")
			}
		})
	}
}
