package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestPausedBehindOurBack_theNextRequestIsAnswered(t *testing.T) {
	t.Parallel()
	host := startSandboxd(t, "")
	s := start(t, options{host: host.url})
	id, before := s.startAppIn(t)
	host.pauseBehindOurBack(t, id)
	requireContinued(t, before, s.mustAsk(t, id), 1)

	// and with a body, which then has to be sent a second time
	host.pauseBehindOurBack(t, id)
	body := strings.Repeat("body ", 10_000)
	if a := s.mustDo(t, s.request(t.Context(), http.MethodPost, id, appPort, "/echo", strings.NewReader(body))); a.status != http.StatusOK || a.body != body {
		t.Errorf("wanted the body of %d bytes back, got %d bytes: %s", len(body), len(a.body), a)
	}
	s.awaitState(t, time.Second, id, "RUNNING")
}

func TestKilledBehindOurBack_isSaidToPeopleAndPrograms(t *testing.T) {
	t.Parallel()
	host := startSandboxd(t, "")
	s := start(t, options{host: host.url})
	id, _ := s.startAppIn(t)
	if a := host.rest(t, http.MethodDelete, "/sandboxes/"+id, ""); a.status != http.StatusNoContent {
		t.Fatalf("killing straight at the host: %s", a)
	}
	// the first one finds out, the others know
	for range 2 {
		requireProblem(t, s.mustDo(t, s.request(t.Context(), http.MethodGet, id, appPort, "/state", nil)), http.StatusNotFound)
		requirePage(t, s.mustDo(t, s.navigation(t, id)), http.StatusNotFound)
	}
	if state := s.record(t, id).State; state != "KILLED" {
		t.Errorf("the record of a sandbox that the host has killed says %s", state)
	}
}

// navigation is the request of a browser whose address bar was used.
func (s *sandman) navigation(t *testing.T, id string) *http.Request {
	t.Helper()
	r := s.request(t.Context(), http.MethodGet, id, appPort, "/", nil)
	r.Header.Set("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
	r.Header.Set("Upgrade-Insecure-Requests", "1")
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	r.Header.Set("Sec-Fetch-Site", "none")
	r.Header.Set("Sec-Fetch-User", "?1")
	return r
}

// requirePage fails the test unless the answer is a page for people, which no cache keeps.
func requirePage(t *testing.T, a answer, status int) {
	t.Helper()
	if a.status != status || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, "<html") {
		t.Errorf("wanted a page with status %d, got %s", status, a)
	}
	if cache := a.header.Get("Cache-Control"); !strings.Contains(cache, "no-store") {
		t.Errorf("a page that is not the sandbox's has Cache-Control %q", cache)
	}
}
