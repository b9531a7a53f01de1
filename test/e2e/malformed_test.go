package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const unknownID = "izzzzzzzzzzzzzzzzzzzz"

// Each of these is answered clearly, wakes nobody and ends nothing.
func TestMalformedRequests_areAnsweredAndWakeNobody(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, before := s.startAppIn(t)
	s.pause(t, id)

	headers := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				r.Header.Set(pairs[i], pairs[i+1])
			}
		}
	}
	host := func(format string, args ...any) func(*http.Request) {
		return func(r *http.Request) { r.Host = fmt.Sprintf(format, args...) }
	}
	for _, test := range []struct {
		name string
		edit func(*http.Request)
		want []int
	}{
		{"unknown sandbox", host("8080-%s.localhost", unknownID), []int{404}},
		{"unknown host", host("example.com"), []int{404}},
		{"no port in the label", host("%s.localhost", id), []int{400, 404}},
		{"no sandbox in the label", host("8080-.localhost"), []int{400, 404}},
		{"port 0", host("0-%s.localhost", id), []int{400, 404}},
		{"port 65536", host("65536-%s.localhost", id), []int{400, 404}},
		{"port of twenty digits", host("18446744073709551617-%s.localhost", id), []int{400, 404}},
		{"negative port", host("-1-%s.localhost", id), []int{400, 404}},
		{"port in letters", host("http-%s.localhost", id), []int{400, 404}},
		{"path in the ID", host("8080-%s%%2f.localhost", id), []int{400, 404}},
		{"overlong label", host("8080-%s.localhost", strings.Repeat("i", 300)), []int{400, 404}},
		{"overlong host", host("8080-%s.%slocalhost", id, strings.Repeat("a.", 2000)), []int{400, 404}},
		{"sandbox header without the port's", headers("E2b-Sandbox-Id", id), []int{400}},
		{"port header without the sandbox's", headers("E2b-Sandbox-Port", "8080"), []int{400}},
		{"port header 0", headers("E2b-Sandbox-Id", id, "E2b-Sandbox-Port", "0"), []int{400, 404}},
		{"port header 65536", headers("E2b-Sandbox-Id", id, "E2b-Sandbox-Port", "65536"), []int{400, 404}},
		{"sandbox header with a slash", headers("E2b-Sandbox-Id", "../"+id, "E2b-Sandbox-Port", "8080"), []int{400, 404}},
		{"unknown sandbox by header", headers("E2b-Sandbox-Id", unknownID, "E2b-Sandbox-Port", "8080"), []int{404, 502}},
		{"headers on another host", func(r *http.Request) {
			r.Host = "example.com"
			headers("E2b-Sandbox-Id", id, "E2b-Sandbox-Port", "8080")(r)
		}, []int{404}},
		{"X-Forwarded-Host", func(r *http.Request) {
			r.Host = "example.com"
			headers("X-Forwarded-Host", "8080-"+id+".localhost")(r)
		}, []int{404}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRequest(t, http.MethodGet, s.url+"/state", nil)
			test.edit(r)
			began := time.Now()
			requireStatus(t, s.mustDo(t, r), test.want...)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s to say so", took)
			}
			if r := s.record(t, id); r.State != "PAUSED" || r.Totals.Wakes != 0 {
				t.Errorf("the sandbox did not sleep on: %+v", r)
			}
		})
	}
	requireContinued(t, before, s.mustAsk(t, id), 1)
}

func TestMalformedAPICalls_areProblems(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id := s.create(t)
	for _, test := range []struct {
		method, path, body string
		want               []int
	}{
		{http.MethodGet, "/nothing", "", []int{404}},
		{http.MethodGet, "/", "", []int{404}},
		{http.MethodPost, "/status", "", []int{405}},
		{http.MethodPut, "/sandboxes", "", []int{405}},
		{http.MethodGet, "/sandboxes/" + unknownID, "", []int{404}},
		{http.MethodGet, "/sandboxes/..%2f" + id, "", []int{400, 404, 422}},
		{http.MethodGet, "/sandboxes/" + strings.Repeat("i", 4000), "", []int{400, 404, 422}},
		{http.MethodGet, "/sandboxes?limit=no", "", []int{400, 422}},
		{http.MethodPost, "/sandboxes", `{"sandboxID":`, []int{400}},
		{http.MethodPost, "/sandboxes", `{"sandboxID":7}`, []int{400, 422}},
		{http.MethodPost, "/sandboxes", `{}`, []int{400, 422}},
		{http.MethodPatch, "/sandboxes/" + id, `{"idleTimeout":"-1s"}`, []int{400, 422}},
		{http.MethodPatch, "/sandboxes/" + id, `{"idleTimeout":"soon"}`, []int{400, 422}},
		{http.MethodPatch, "/sandboxes/" + id, `[]`, []int{400, 422}},
		{http.MethodPost, "/sandboxes/" + unknownID + "/pause", "", []int{404}},
		{http.MethodPost, "/sandboxes/" + unknownID + "/resume", "", []int{404}},
	} {
		t.Run(test.method+" "+test.path[:min(len(test.path), 40)]+" "+test.body, func(t *testing.T) {
			a := s.call(t, test.method, test.path, test.body)
			requireStatus(t, a, test.want...)
			requireProblem(t, a, a.status)
		})
	}
	if state := s.record(t, id).State; state != "RUNNING" {
		t.Errorf("after all that the sandbox is %s", state)
	}
}

func TestAPI_wantsItsToken(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id := s.create(t)
	for name, authorization := range map[string]string{
		"none":             "",
		"wrong":            "Bearer wrong",
		"half":             "Bearer " + token[:len(token)/2],
		"with more":        "Bearer " + token + "x",
		"in other clothes": "Basic " + token,
	} {
		for _, call := range []string{"GET /status", "GET /sandboxes", "DELETE /sandboxes/" + id, "POST /sandboxes/" + id + "/pause"} {
			method, path, _ := strings.Cut(call, " ")
			r := newRequest(t, method, s.url+"/api/v1"+path, nil)
			if authorization != "" {
				r.Header.Set("Authorization", authorization)
			}
			a := s.mustDo(t, r)
			if a.status != http.StatusUnauthorized && a.status != http.StatusForbidden {
				t.Errorf("%s with a token that is %s: %s", call, name, a)
			}
			requireProblem(t, a, a.status)
		}
	}
	if state := s.record(t, id).State; state != "RUNNING" {
		t.Errorf("after calls without a token the sandbox is %s", state)
	}
}

func TestE2BRoutes_wantTheirKey(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	for _, key := range []string{"", "e2b_wrong", apiKey + "0"} {
		r := newRequest(t, http.MethodPost, s.api+"/sandboxes", strings.NewReader(`{"templateID":"base"}`))
		r.Header.Set("Content-Type", "application/json")
		if key != "" {
			r.Header.Set("X-API-Key", key)
		}
		if a := s.mustDo(t, r); a.status != http.StatusUnauthorized && a.status != http.StatusForbidden {
			t.Errorf("creating a sandbox with the key %q: %s", key, a)
		}
	}
}

func requireStatus(t *testing.T, a answer, want ...int) {
	t.Helper()
	if !slices.Contains(want, a.status) {
		t.Errorf("wanted a status of %v, got %s", want, a)
	}
}
