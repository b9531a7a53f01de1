package api_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

func TestHolds_putListGetEnd(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	const hold = `{"name":"train.1","reason":"training","by":"token alice","expiresAt":"2026-11-24T13:00:00Z"}`
	put := c.call(t, alice, "PUT", sandboxes+"/ia/holds/train.1", `{"for":"1h","reason":"training"}`)
	if put.status != http.StatusOK || strings.TrimSpace(put.body) != hold {
		t.Errorf("%s", put)
	}
	for path, want := range map[string]string{"": `{"holds":[` + hold + `]}`, "/train.1": hold} {
		if a := c.call(t, viewer, "GET", sandboxes+"/ia/holds"+path, ""); strings.TrimSpace(a.body) != want {
			t.Errorf("%s: %s", path, a)
		}
	}
	if a := c.call(t, viewer, "GET", sandboxes+"/ia", ""); !strings.Contains(a.body, `"holds":[`+hold+`]`) {
		t.Errorf("%s", a)
	}
	for range 2 { // the second finds none
		if a := c.call(t, alice, "DELETE", sandboxes+"/ia/holds/train.1", ""); a.status != http.StatusNoContent {
			t.Errorf("%s", a)
		}
	}
	if a := c.call(t, viewer, "GET", sandboxes+"/ia/holds", ""); strings.TrimSpace(a.body) != `{"holds":[]}` {
		t.Errorf("%s", a)
	}
	if a := c.call(t, viewer, "GET", sandboxes+"/ia/holds/train.1", ""); a.status != http.StatusNotFound || a.code(t) != "no-such-hold" {
		t.Errorf("%s", a)
	}
}

func TestHolds_whatIsNone(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	for _, tt := range []struct {
		name, body string
		status     int
	}{
		{"h", `{"for":"168h"}`, 200},
		{"h", `{"for":"7d"}`, 200},
		{"h", `{"for":"168h1s"}`, 422},
		{"h", `{"for":"0s"}`, 422},
		{"h", `{"for":"-1h"}`, 422},
		{"h", `{"for":"1ms"}`, 422},
		{"h", `{"for":"long"}`, 422},
		{"h", `{"for":5}`, 422},
		{"h", `{}`, 422},
		{"h", `{"for":"1h","reason":"` + strings.Repeat("x", 257) + `"}`, 422},
		{"h", `{"for":"1h","by":"somebody else"}`, 422},
		{"a%2Fb", `{"for":"1h"}`, 422},
		{"a%20b", `{"for":"1h"}`, 422},
		{strings.Repeat("x", 65), `{"for":"1h"}`, 422},
		{"one-too-many", `{"for":"1h"}`, 409},
	} {
		if a := c.call(t, operator, "PUT", sandboxes+"/ia/holds/"+tt.name, tt.body); a.status != tt.status {
			t.Errorf("%+v: %s", tt, a)
		}
	}
}

func TestHolds_aBadgeHasItsOwnAndWakesOnlyIfItMay(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	holds, resumes := c.badge(t, alice, "ia", "hold"), c.badge(t, alice, "ia", "hold", "resume")
	put := func(badge, name string) answer {
		return c.call(t, badge, "PUT", sandboxes+"/ia/holds/"+name, `{"for":"1h"}`)
	}
	if a := put(holds, "badge"); a.status != http.StatusOK || !strings.Contains(a.body, `"by":"token alice (badge)"`) {
		t.Errorf("%s", a)
	}
	m.changes()
	for _, method := range []string{"PUT", "DELETE"} {
		a := c.call(t, holds, method, sandboxes+"/ia/holds/training", map[string]string{"PUT": `{"for":"1h"}`}[method])
		if a.status != http.StatusForbidden || len(m.changes()) > 0 {
			t.Errorf("%s of another one: %s", method, a)
		}
	}
	c.call(t, alice, "POST", sandboxes+"/ia/pause", "")
	if a := put(holds, "badge"); a.status != http.StatusConflict || a.code(t) != "not-running" {
		t.Errorf("asleep: %s", a)
	}
	if a := put(resumes, "badge"); a.status != http.StatusOK {
		t.Errorf("asleep: %s", a)
	}
}

func TestActivity_isAUseOrAHoldAndWakesNothing(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	for _, tt := range []struct {
		body   string
		status int
		call   string
	}{
		{`{"kind":"build"}`, 204, "use build ia"},
		{`{"kind":"build","for":"5m"}`, 204, "hold activity ia"},
		{`{"kind":"build","for":"8d"}`, 422, ""},
		{`{"kind":"a kind of its own"}`, 422, ""},
		{`{}`, 422, ""},
	} {
		a := c.call(t, operator, "POST", sandboxes+"/ia/activity", tt.body)
		if calls := m.changes(); a.status != tt.status || strings.Join(calls, ",") != tt.call {
			t.Errorf("%s: %s, %v", tt.body, a, calls)
		}
	}
	sb, _ := m.Get(t.Context(), "ia")
	if !slices.ContainsFunc(sb.Holds, func(h session.Hold) bool { return h.Name == "activity" && h.Reason == "build" }) {
		t.Errorf("%+v", sb.Holds)
	}
	c.call(t, operator, "POST", sandboxes+"/ia/pause", "")
	for _, body := range []string{`{"kind":"build"}`, `{"kind":"build","for":"5m"}`} {
		if a := c.call(t, operator, "POST", sandboxes+"/ia/activity", body); a.status != http.StatusConflict || a.code(t) != "not-running" {
			t.Errorf("asleep: %s", a)
		}
	}
}
