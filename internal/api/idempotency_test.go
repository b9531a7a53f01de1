package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
)

func TestIdempotency_theSameRequestIsCarriedOutOnce(t *testing.T) {
	t.Parallel()
	m := newMemory()
	c := newClient(t, m, zap.NewNop())
	post := func(secret, key, body string) answer {
		return c.call(t, secret, "POST", sandboxes, body, "Idempotency-Key", key)
	}
	first := post(alice, "k1", `{"template":"base","metadata":{"a":"1","b":"2"}}`)
	if first.status != http.StatusCreated || m.lasts != 24*time.Hour {
		t.Fatalf("%s, kept for %s", first, m.lasts)
	}
	again := post(alice, "k1", `{ "metadata": {"b":"2","a":"1"}, "template": "base" }`) // the same, written differently
	if again.String() != first.String() || again.header.Get("Location") != first.header.Get("Location") || again.header.Get("ETag") != first.header.Get("ETag") {
		t.Errorf("%s %v, then %s %v", first, first.header, again, again.header)
	}
	if a := post(alice, "k1", `{"template":"other"}`); a.status != http.StatusUnprocessableEntity || a.code(t) != "key-reused" {
		t.Errorf("%s", a)
	}
	if calls := m.changes(); !slices.Equal(calls, []string{"create base"}) {
		t.Errorf("%v", calls)
	}
	// another key, and the same one of somebody else
	post(alice, "k2", `{"template":"base"}`)
	post(bob, "k1", `{"template":"base","metadata":{"a":"1","b":"2"}}`)
	if calls := m.changes(); len(calls) != 2 {
		t.Errorf("%v", calls)
	}
	if a := post(alice, strings.Repeat("k", 256), `{"template":"base"}`); a.status != http.StatusUnprocessableEntity {
		t.Errorf("%s", a)
	}
}

func TestIdempotency_aFailureIsNotKept(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.fail = &api.UnavailableError{Reason: "no host"}
	c := newClient(t, m, zap.NewNop())
	post := func() answer {
		return c.call(t, alice, "POST", sandboxes, `{"template":"base"}`, "Idempotency-Key", "k1")
	}
	if a := post(); a.status != http.StatusServiceUnavailable {
		t.Errorf("%s", a)
	}
	m.fail = nil
	if a := post(); a.status != http.StatusCreated {
		t.Errorf("%s", a)
	}
}

// TestIdempotency_goesOnWithoutItsClient has a client leave while the work is
// done, and ask again.
func TestIdempotency_goesOnWithoutItsClient(t *testing.T) {
	t.Parallel()
	m := newMemory()
	begun, finish := make(chan struct{}), make(chan struct{})
	m.work = func(ctx context.Context) error {
		close(begun)
		<-finish
		return ctx.Err()
	}
	c := newClient(t, m, zap.NewNop())
	ctx, leave := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, sandboxes, strings.NewReader(`{"template":"base"}`))
	r.Header.Set("Authorization", "Bearer "+alice)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", "k1")
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.h.ServeHTTP(httptest.NewRecorder(), r)
	}()
	<-begun
	leave()
	post := func() answer {
		return c.call(t, alice, "POST", sandboxes, `{"template":"base"}`, "Idempotency-Key", "k1")
	}
	if a := post(); a.status != http.StatusConflict || a.code(t) != "in-progress" || a.header.Get("Retry-After") != "1" {
		t.Errorf("%s", a)
	}
	close(finish)
	<-done
	if a := post(); a.status != http.StatusCreated {
		t.Errorf("%s", a)
	}
	if calls := m.changes(); !slices.Equal(calls, []string{"create base"}) {
		t.Errorf("%v", calls)
	}
}

func TestIdempotency_aTokenHasSoManyKeys(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.mostAnswers = 2
	c := newClient(t, m, zap.NewNop())
	post := func(secret string, headers ...string) answer {
		return c.call(t, secret, "POST", sandboxes, `{"template":"base"}`, headers...)
	}
	for _, key := range []string{"k1", "k2"} {
		if a := post(alice, "Idempotency-Key", key); a.status != http.StatusCreated {
			t.Fatalf("%s", a)
		}
	}
	if a := post(alice, "Idempotency-Key", "k3"); a.status != http.StatusTooManyRequests || a.code(t) != "too-many-keys" || a.header.Get("Retry-After") != "60" {
		t.Errorf("%s", a)
	}
	if calls := m.changes(); len(calls) != 2 {
		t.Errorf("what was refused was done: %v", calls)
	}
	for name, a := range map[string]answer{
		"a key that is known": post(alice, "Idempotency-Key", "k2"),
		"no key":              post(alice),
		"another one's token": post(bob, "Idempotency-Key", "k3"),
	} {
		if a.status != http.StatusCreated {
			t.Errorf("%s: %s", name, a)
		}
	}
}
