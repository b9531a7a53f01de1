package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
)

// route is an operation of the OpenAPI file.
type route struct {
	method, path string
	role         api.Role
	badge        string // what a badge token must be made for; "": none may use it
}

// routes reads the operations from the file itself, so that none escapes the
// tests that walk them.
func (c *client) routes(t *testing.T) []route {
	t.Helper()
	var document struct {
		Servers []struct {
			URL string `json:"url"`
		} `json:"servers"`
		Paths map[string]map[string]struct {
			Security []map[string][]string `json:"security"`
			Badge    string                `json:"x-badge-token"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(c.document, &document); err != nil {
		t.Fatal(err)
	}
	var all []route
	for _, path := range slices.Sorted(maps.Keys(document.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(document.Paths[path])) {
			op := document.Paths[path][method]
			security := op.Security
			if len(security) != 1 || len(security[0]["token"]) != 1 {
				t.Fatalf("%s %s names no role: %v", method, path, security)
			}
			all = append(all, route{strings.ToUpper(method), document.Servers[0].URL + path, api.Role(security[0]["token"][0]), op.Badge})
		}
	}
	return all
}

// target fills in the path's ID, and body is what the route takes.
func (r route) target(id string) string {
	return strings.NewReplacer("{id}", id, "owners/{name}", "owners/alice", "projects/{name}", "projects/web", "{name}", "badge").Replace(r.path)
}

func (r route) body(id string) string {
	switch {
	case strings.HasSuffix(r.path, "/tokens"):
		return `{"for":"10m","may":["hold","pause","resume"]}`
	case strings.HasSuffix(r.path, "/activity"):
		return `{"kind":"build"}`
	case strings.HasSuffix(r.path, "/holds/{name}") && r.method == http.MethodPut:
		return `{"for":"10m"}`
	case r.method == http.MethodPatch, r.method == http.MethodPut:
		return `{"idleTimeout":"1h"}`
	case r.method == http.MethodPost && !r.ofOne():
		return fmt.Sprintf(`{"sandboxID":%q}`, id)
	default:
		return ""
	}
}

// ofOne tells whether the route is one sandbox's.
func (r route) ofOne() bool { return strings.Contains(r.path, "{id}") }

func TestOpenAPI_isValidAndHasEveryRoute(t *testing.T) {
	t.Parallel()
	c := newClient(t, newMemory(), zap.NewNop())
	if ok, errs := c.valid.ValidateDocument(); !ok {
		for _, err := range errs {
			t.Error(err)
		}
	}
	want := []route{
		{"GET", "/api/v1/events", api.RoleViewer, "see"},
		{"GET", "/api/v1/policies", api.RoleOperator, ""},
		{"DELETE", "/api/v1/policies/owners/{name}", api.RoleAdmin, ""},
		{"GET", "/api/v1/policies/owners/{name}", api.RoleOperator, ""},
		{"PUT", "/api/v1/policies/owners/{name}", api.RoleAdmin, ""},
		{"DELETE", "/api/v1/policies/projects/{name}", api.RoleAdmin, ""},
		{"GET", "/api/v1/policies/projects/{name}", api.RoleOperator, ""},
		{"PUT", "/api/v1/policies/projects/{name}", api.RoleAdmin, ""},
		{"GET", "/api/v1/runs", api.RoleViewer, ""},
		{"GET", "/api/v1/sandboxes", api.RoleViewer, ""},
		{"POST", "/api/v1/sandboxes", api.RoleOperator, ""},
		{"DELETE", "/api/v1/sandboxes/{id}", api.RoleAdmin, ""},
		{"GET", "/api/v1/sandboxes/{id}", api.RoleViewer, "see"},
		{"PATCH", "/api/v1/sandboxes/{id}", api.RoleOperator, ""},
		{"POST", "/api/v1/sandboxes/{id}/activity", api.RoleOperator, "hold"},
		{"GET", "/api/v1/sandboxes/{id}/history", api.RoleViewer, ""},
		{"GET", "/api/v1/sandboxes/{id}/holds", api.RoleViewer, "see"},
		{"DELETE", "/api/v1/sandboxes/{id}/holds/{name}", api.RoleOperator, "hold"},
		{"GET", "/api/v1/sandboxes/{id}/holds/{name}", api.RoleViewer, "see"},
		{"PUT", "/api/v1/sandboxes/{id}/holds/{name}", api.RoleOperator, "hold"},
		{"POST", "/api/v1/sandboxes/{id}/pause", api.RoleOperator, "pause"},
		{"POST", "/api/v1/sandboxes/{id}/resume", api.RoleOperator, "resume"},
		{"GET", "/api/v1/sandboxes/{id}/streams", api.RoleViewer, ""},
		{"POST", "/api/v1/sandboxes/{id}/tokens", api.RoleOperator, ""},
		{"GET", "/api/v1/sandboxes/{id}/why", api.RoleViewer, "see"},
		{"GET", "/api/v1/savings", api.RoleViewer, ""},
		{"GET", "/api/v1/status", api.RoleViewer, ""},
		{"GET", "/api/v1/token", api.RoleViewer, "see"},
	}
	if got := c.routes(t); !slices.Equal(got, want) {
		t.Errorf("the file has\n%v, want\n%v", got, want)
	}
}

func TestOpenAPI_stateFilterKnowsEveryState(t *testing.T) {
	t.Parallel()
	c := newClient(t, newMemory(), zap.NewNop())
	for _, state := range session.States() {
		if a := c.call(t, admin, "GET", "/api/v1/sandboxes?state="+string(state), ""); a.status != http.StatusOK {
			t.Errorf("%s: %s", state, a)
		}
	}
}

// TestRoles_everyRoute walks every route of the file with every token.
func TestRoles_everyRoute(t *testing.T) {
	t.Parallel()
	ranks := map[api.Role]int{api.RoleViewer: 1, api.RoleOperator: 2, api.RoleAdmin: 3}
	bound := map[string]bool{alice: true, aliceSee: true}
	callers := []struct {
		secret string
		role   api.Role // "": none
	}{{"", ""}, {"no-such-secret", ""}, {viewer, api.RoleViewer}, {operator, api.RoleOperator}, {admin, api.RoleAdmin}, {alice, api.RoleAdmin}, {aliceSee, api.RoleViewer}}
	for _, r := range newClient(t, newMemory(), zap.NewNop()).routes(t) {
		for _, caller := range callers {
			t.Run(fmt.Sprintf("%s %s by %s", r.method, r.path, caller.secret), func(t *testing.T) {
				t.Parallel()
				m := newMemory()
				m.keep("ialice", "alice")
				m.policies = map[string]session.Policy{"owners/alice": {Revision: 1}, "projects/web": {Revision: 2}}
				c := newClient(t, m, zap.NewNop())
				a := c.call(t, caller.secret, r.method, r.target("ialice"), r.body("ialice"))
				switch {
				case caller.role == "":
					if a.status != http.StatusUnauthorized || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
						t.Errorf("%s, %q", a, a.header.Get("WWW-Authenticate"))
					}
				case ranks[caller.role] < ranks[r.role]:
					if a.status != http.StatusForbidden {
						t.Errorf("%s", a)
					}
				case caller.secret == alice && strings.Contains(r.path, "/projects/"): // what others' sandboxes go by, too
					if a.status != http.StatusNotFound {
						t.Errorf("%s", a)
					}
				case r.path == "/api/v1/runs" && bound[caller.secret]: // about all
					if a.status != http.StatusForbidden {
						t.Errorf("%s", a)
					}
				case a.status >= 300:
					t.Errorf("%s", a)
				}
				if calls := m.changes(); a.status >= 300 && len(calls) > 0 {
					t.Errorf("refused, and done: %v", calls)
				}
			})
		}
	}
}

// TestBadges_everyRoute walks every route of the file with badge tokens: they
// open what the file says, for their one sandbox, and nothing else.
func TestBadges_everyRoute(t *testing.T) {
	t.Parallel()
	kinds := map[string][]string{"all": {"see", "hold", "pause", "resume"}, "see": {"see"}, "none": {}, "hold": {"hold"}, "resume": {"resume"}}
	for _, r := range newClient(t, newMemory(), zap.NewNop()).routes(t) {
		for name, may := range kinds {
			t.Run(fmt.Sprintf("%s %s by %s", r.method, r.path, name), func(t *testing.T) {
				t.Parallel()
				m := newMemory()
				m.keep("ialice", "alice")
				m.put("ihers", "alice", "") // another one, of the same owner
				c := newClient(t, m, zap.NewNop())
				badge := c.badge(t, alice, "ialice", may...)
				own := c.call(t, badge, r.method, r.target("ialice"), r.body("ialice"))
				allowed := r.badge == "see" || r.badge != "" && slices.Contains(may, r.badge)
				if ok := own.status < 300; ok != allowed || !ok && own.status != http.StatusForbidden {
					t.Errorf("want allowed: %t, got %s", allowed, own)
				}
				if calls := m.changes(); !allowed && len(calls) > 0 {
					t.Errorf("refused, and done: %v", calls)
				}
				hers, none := c.call(t, badge, r.method, r.target("ihers"), r.body("ihers")), c.call(t, badge, r.method, r.target("inone"), r.body("inone"))
				if r.ofOne() && (hers.String() != none.String() || hers.status < 300) {
					t.Errorf("another sandbox answers %s, and one that isn't there %s", hers, none)
				}
				if strings.Contains(hers.body+own.body, "ihers") {
					t.Errorf("another sandbox is seen in %s or %s", own, hers)
				}
				if sb, _ := m.Get(t.Context(), "ihers"); sb.Revision != 2 {
					t.Errorf("it was changed: %+v", sb)
				}
			})
		}
	}
}

// TestOwners_anotherOnesSandboxLooksLikeNone walks every route with the tokens
// that may not know of a sandbox: no answer may tell it from one that isn't.
func TestOwners_anotherOnesSandboxLooksLikeNone(t *testing.T) {
	t.Parallel()
	for _, r := range newClient(t, newMemory(), zap.NewNop()).routes(t) {
		for name, secret := range map[string]string{"another owner": bob, "a viewer, of what is nobody's": viewer} {
			t.Run(fmt.Sprintf("%s %s by %s", r.method, r.path, name), func(t *testing.T) {
				t.Parallel()
				m := newMemory()
				m.put("ihers", map[string]string{bob: "alice"}[secret], "")
				c := newClient(t, m, zap.NewNop())
				hers := c.call(t, secret, r.method, r.target("ihers"), r.body("ihers"))
				if !r.ofOne() && secret == viewer && r.method == http.MethodPost {
					return // forbidden as such
				}
				if r.ofOne() || r.method == http.MethodPost {
					none := c.call(t, secret, r.method, r.target("inone"), r.body("inone"))
					if hers.String() != none.String() {
						t.Errorf("%s is told from %s", hers, none)
					}
				}
				if strings.Contains(hers.body, "ihers") || strings.Contains(hers.body, "RUNNING") && secret == bob {
					t.Errorf("it is seen in %s", hers)
				}
				if sb, _ := m.Get(t.Context(), "ihers"); sb.Revision != 1 {
					t.Errorf("it was changed: %+v", sb)
				}
			})
		}
	}
}
