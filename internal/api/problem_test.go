package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
)

// badRequest is what the API must refuse, and how.
type badRequest struct {
	name, method, path, body string
	status                   int
	code, detail             string // detail is a part of it
}

func badRequests() []badRequest {
	const base = "/api/v1/sandboxes"
	return []badRequest{
		{"unknown path", "GET", "/api/v1/nope", "", 404, "no-such-route", "/api/v1/nope"},
		{"the root", "GET", "/api/v1/", "", 404, "no-such-route", "openapi.json"},
		{"the root without a slash", "GET", "/api/v1", "", 404, "no-such-route", "openapi.json"},
		{"trailing slash", "GET", base + "/", "", 404, "no-such-route", base + "/"},
		{"double slash", "GET", "/api/v1//sandboxes", "", 404, "no-such-route", ""},
		{"dots", "GET", "/api/v1/x/../sandboxes", "", 404, "no-such-route", ""},
		{"overlong path", "GET", "/api/v1/" + strings.Repeat("ä", 4000), "", 404, "no-such-route", "…"},
		{"method of no operation", "PUT", base, `{}`, 405, "method-not-allowed", "use GET, HEAD, POST"},
		{"method of no operation on one", "POST", base + "/ia", `{}`, 405, "method-not-allowed", "DELETE"},
		{"OPTIONS", "OPTIONS", base, "", 405, "method-not-allowed", "GET"},
		{"method that nobody knows", "BREW", "/api/v1/status", "", 405, "method-not-allowed", "use GET"},
		{"absent sandbox", "GET", base + "/inone", "", 404, "not-found", "Check its ID"},
		{"ID that can't be one", "GET", base + "/NO-SUCH", "", 404, "not-found", ""},
		{"ID with an escaped slash", "POST", base + "/a%2Fb/pause", "", 404, "not-found", ""},
		{"unknown query parameter", "POST", base + "/ia/pause?froce=true", "", 422, "invalid", "froce"},
		{"token in the query", "GET", base + "?access_token=" + admin, "", 422, "invalid", "access_token"},
		{"bad boolean", "POST", base + "/ia/pause?force=maybe", "", 422, "invalid", "force"},
		{"limit 0", "GET", base + "?limit=0", "", 422, "invalid", "limit"},
		{"limit too large", "GET", base + "?limit=1001", "", 422, "invalid", "1000"},
		{"limit that is no number", "GET", base + "?limit=many", "", 422, "invalid", "limit"},
		{"unknown state", "GET", base + "?state=RUNNING,SLEEPY", "", 422, "invalid", "RESUMING"},
		{"history before nothing", "GET", base + "/ia/history?before=-1", "", 422, "invalid", "before"},
		{"no body", "POST", base, "", 400, "bad-request", "required"},
		{"cut JSON", "POST", base, `{"sandboxID":`, 400, "bad-request", "JSON"},
		{"no JSON", "PATCH", base + "/ia", strings.Repeat("hello", 1000), 400, "bad-request", "invalid character"},
		{"more than one value", "POST", base, `{"sandboxID":"ia"}{}`, 400, "bad-request", "after top-level value"},
		{"array", "POST", base, `[]`, 422, "invalid", "object"},
		{"null", "PATCH", base + "/ia", `null`, 422, "invalid", "object"},
		{"neither ID nor template", "POST", base, `{}`, 422, "invalid", "sandboxID, to register"},
		{"ID and template", "POST", base, `{"sandboxID":"ia","template":"base"}`, 422, "invalid", "either"},
		{"metadata for a known sandbox", "POST", base, `{"sandboxID":"ia","metadata":{"a":"b"}}`, 422, "invalid", "template"},
		{"malformed ID", "POST", base, `{"sandboxID":"../x"}`, 422, "invalid", "a to z"},
		{"unknown field", "POST", base, `{"sandboxID":"ia","x":1}`, 422, "invalid", "body.x"},
		{"metadata that is no string", "POST", base, `{"template":"base","metadata":{"a":1}}`, 422, "invalid", "body.metadata.a"},
		{"unknown setting", "PATCH", base + "/ia", `{"state":"PAUSED"}`, 422, "invalid", "body.state"},
		{"too short", "PATCH", base + "/ia", `{"idleTimeout":"1s"}`, 422, "invalid", "2s"},
		{"no idle timeout", "PATCH", base + "/ia", `{"idleTimeout":0}`, 422, "invalid", "null for the default"},
		{"negative", "PATCH", base + "/ia", `{"idleTimeout":-600}`, 422, "invalid", "2s"},
		{"for ever", "PATCH", base + "/ia", `{"idleTimeout":"1000d"}`, 422, "invalid", "8760h"},
		{"no duration", "PATCH", base + "/ia", `{"idleTimeout":"soon"}`, 422, "invalid", "write it as 90s"},
		{"timeout of a wrong type", "PATCH", base + "/ia", `{"idleTimeout":true}`, 422, "invalid", "neither a string nor a number"},
		{"unknown policy", "PATCH", base + "/ia", `{"wakePolicy":"never"}`, 422, "invalid", "any, intent or manual"},
		{"empty policy", "PATCH", base + "/ia", `{"wakePolicy":""}`, 422, "invalid", "any, intent or manual"},
		{"overlong owner", "PATCH", base + "/ia", `{"owner":"` + strings.Repeat("x", 257) + `"}`, 422, "invalid", "256"},
		{"too large", "PATCH", base + "/ia", `{"owner":"` + strings.Repeat("x", 300<<10) + `"}`, 413, "too-large", "262144"},
	}
}

func TestProblems_badRequestsAreToldWhatToDo(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "", "")
	c := newClient(t, m, zap.NewNop())
	for _, tt := range badRequests() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := c.call(t, admin, tt.method, tt.path, tt.body)
			if a.status != tt.status || a.code(t) != tt.code || !strings.Contains(a.body, tt.detail) {
				t.Errorf("got %s, want %d %s … %s", a, tt.status, tt.code, tt.detail)
			}
			if tt.name == "timeout of a wrong type" && strings.Contains(a.body, "out of range") {
				t.Errorf("%s says more than what is wrong", a)
			}
			if len(a.body) > 2000 {
				t.Errorf("the answer has %d bytes", len(a.body))
			}
			if (a.status == http.StatusMethodNotAllowed) != (a.header.Get("Allow") != "") {
				t.Errorf("%s with Allow %q", a, a.header.Get("Allow"))
			}
		})
	}
	t.Cleanup(func() {
		if calls := m.changes(); len(calls) > 0 {
			t.Errorf("a bad request was carried out: %v", calls)
		}
	})
}

func TestProblems_aBodyOfAnotherTypeIsRefused(t *testing.T) {
	t.Parallel()
	c := newClient(t, newMemory(), zap.NewNop())
	a := c.call(t, admin, "POST", "/api/v1/sandboxes", `{"sandboxID":"ia"}`, "Content-Type", "application/x-www-form-urlencoded")
	if a.status != http.StatusUnsupportedMediaType || !strings.Contains(a.body, "application/json") {
		t.Errorf("%s", a)
	}
}

func TestProblems_anyAcceptGetsJSON(t *testing.T) {
	t.Parallel()
	c := newClient(t, newMemory(), zap.NewNop())
	for _, accept := range []string{"", "*/*", "text/html", "application/cbor", "nonsense;;"} {
		if a := c.call(t, admin, "GET", "/api/v1/status", "", "Accept", accept); a.status != http.StatusOK {
			t.Errorf("%q: %s", accept, a)
		}
	}
}

func TestProblems_backendsErrorsBecomeStatuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		err    error
		status int
		code   string
		retry  string // Retry-After
		detail string
	}{
		{api.ErrNotFound, 404, "not-found", "", "Check"},
		{api.ErrKilled, 404, "killed", "", "for good"},
		{&api.InUseError{What: []string{"2 requests", "1 websocket"}}, 409, "in-use", "", "2 requests, 1 websocket"},
		{session.ErrConflict, 409, "conflict", "", "again"},
		{session.ErrTransition, 409, "conflict", "", "again"},
		{&api.UnavailableError{Reason: "the store can't be reached"}, 503, "unavailable", "5", "the store can't"},
		{&api.UnavailableError{Reason: "backing off", RetryAfter: 1500 * time.Millisecond}, 503, "unavailable", "2", "backing off"},
		{&e2b.Error{Status: 500, Code: 500, Message: "Error pausing sandbox"}, 502, "host-error", "", "Error pausing sandbox"},
		{&e2b.Error{Status: 401, Code: 401, Message: "bad key"}, 502, "host-error", "", "bad key"},
		{&e2b.Error{Status: 429, Code: 429, Message: "slow down", RetryAfter: 7 * time.Second}, 429, "host-limit", "7", "slow down"},
		{&e2b.Error{Status: 503, Code: 503, Message: "no capacity"}, 503, "host-unavailable", "5", "no capacity"},
		{context.DeadlineExceeded, 503, "timeout", "5", "too long"},
		{context.Canceled, 499, "client-gone", "", "left"},
		{errors.New("dial tcp 10.0.0.7:2379: secret detail"), 500, "internal", "", "log"},
	}
	for _, tt := range tests {
		t.Run(tt.err.Error(), func(t *testing.T) {
			t.Parallel()
			m := newMemory()
			m.put("ia", "", "")
			m.fail = fmt.Errorf("pausing sandbox: %w", tt.err)
			core, logs := observer.New(zapcore.DebugLevel)
			c := newClient(t, m, zap.New(core))
			a := c.call(t, operator, "POST", "/api/v1/sandboxes/ia/pause", "")
			if a.status != tt.status || a.code(t) != tt.code || a.header.Get("Retry-After") != tt.retry || !strings.Contains(a.body, tt.detail) {
				t.Errorf("got %s, Retry-After %q", a, a.header.Get("Retry-After"))
			}
			if strings.Contains(a.body, "secret") {
				t.Errorf("%s tells too much", a)
			}
			if n := logs.Len(); (n > 0) != (tt.status == 500) {
				t.Errorf("%d log entries", n)
			}
		})
	}
}

func TestProblems_inUseSaysWhatIsInFlight(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "", "")
	m.fail = &api.InUseError{What: []string{"GET /big.iso for 12s"}}
	var p api.Problem
	newClient(t, m, zap.NewNop()).call(t, operator, "POST", "/api/v1/sandboxes/ia/pause", "").decode(t, &p)
	if len(p.InFlight) != 1 || p.InFlight[0] != "GET /big.iso for 12s" {
		t.Errorf("%+v", p)
	}
}

// FuzzAPI: whatever comes in, the answer is one that the OpenAPI file has.
func FuzzAPI(f *testing.F) {
	for _, r := range []struct{ method, path, body string }{
		{"PATCH", "sandboxes/ia", `{"idleTimeout":"10m","wakePolicy":null}`},
		{"PATCH", "sandboxes/ia", `{"idleTimeout":1e300,"owner":"\u0000"}`},
		{"POST", "sandboxes", `{"template":"base","metadata":{"a":"b"}}`},
		{"GET", "sandboxes?state=,&limit=9e9&after=%00", ""},
		{"GET", "sandboxes/%2e%2e/history?before=1", ""},
	} {
		f.Add(r.method, r.path, r.body)
	}
	m := newMemory()
	m.put("ia", "", "")
	c := newClient(f, m, zap.NewNop())
	f.Fuzz(func(t *testing.T, method, path, body string) {
		r, err := http.NewRequest(method, "http://localhost/api/v1/"+path, strings.NewReader(body))
		if err != nil || r.Host != "localhost" || strings.Contains(r.URL.Path, "openapi") {
			t.Skip()
		}
		r.Header.Set("Authorization", "Bearer "+operator)
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		a := answer{w.Code, w.Header(), w.Body.String()}
		if a.status >= 500 {
			t.Errorf("%s %q %q: %s", method, path, body, a)
		}
		if a.status >= 400 {
			a.code(t)
		}
	})
}
