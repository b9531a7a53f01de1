package api_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
)

// policyBook keeps policies as api.PolicyReader and api.PolicyActor say.
type policyBook struct {
	policyMu sync.Mutex // guards the following fields
	policies map[string]session.Policy
	last     int64
	limits   api.Limits
}

func policyKey(scope session.Scope, name string) string { return string(scope) + "/" + name }

func (b *policyBook) Policies(context.Context) (api.Policies, error) {
	b.policyMu.Lock()
	defer b.policyMu.Unlock()
	all := api.Policies{
		Owners: []api.NamedPolicy{}, Projects: []api.NamedPolicy{}, IdleTimeout: session.Duration(10 * time.Minute),
		Limits: api.Limits{MinIdleTimeout: session.Duration(session.MinIdleTimeout)},
	}
	for _, key := range slices.Sorted(maps.Keys(b.policies)) {
		scope, name, _ := strings.Cut(key, "/")
		to := &all.Owners
		if session.Scope(scope) == session.ScopeProject {
			to = &all.Projects
		}
		*to = append(*to, api.NamedPolicy{Name: name, Policy: b.policies[key]})
	}
	return all, nil
}

func (b *policyBook) Policy(_ context.Context, scope session.Scope, name string) (session.Policy, error) {
	b.policyMu.Lock()
	defer b.policyMu.Unlock()
	p, ok := b.policies[policyKey(scope, name)]
	if !ok {
		return p, api.ErrNoPolicy
	}
	return p, nil
}

func (b *policyBook) SetPolicy(_ context.Context, scope session.Scope, name string, p session.Policy) (session.Policy, error) {
	b.policyMu.Lock()
	defer b.policyMu.Unlock()
	if most := b.limits.MaxIdleTimeout; most != nil && p.IdleTimeout > *most {
		return p, &api.LimitError{Field: "idleTimeout", Asked: p.IdleTimeout, Limits: b.limits, Whose: session.FromDefault}
	}
	if p.Revision != 0 && max(0, p.Revision) != b.policies[policyKey(scope, name)].Revision {
		return p, session.ErrConflict
	}
	b.last++
	p.Revision, p.UpdatedAt = b.last, day
	if b.policies == nil {
		b.policies = map[string]session.Policy{}
	}
	b.policies[policyKey(scope, name)] = p
	return p, nil
}

func (b *policyBook) DeletePolicy(_ context.Context, scope session.Scope, name string, ifMatch int64) error {
	b.policyMu.Lock()
	defer b.policyMu.Unlock()
	p, ok := b.policies[policyKey(scope, name)]
	switch {
	case !ok:
		return api.ErrNoPolicy
	case ifMatch != 0 && ifMatch != p.Revision:
		return session.ErrConflict
	}
	delete(b.policies, policyKey(scope, name))
	return nil
}

const (
	ofAlice = "/api/v1/policies/owners/alice"
	ofWeb   = "/api/v1/policies/projects/web"
)

func TestPolicies_areSetReadAndDeleted(t *testing.T) {
	t.Parallel()
	c := newClient(t, newMemory(), zap.NewNop())
	if a := c.call(t, operator, "GET", ofAlice, ""); a.status != http.StatusNotFound || a.code(t) != "no-policy" {
		t.Errorf("none yet: %s", a)
	}
	set := c.call(t, admin, "PUT", ofAlice, `{"idleTimeout":"30m","wakePolicy":"any","maxIdleTimeout":7200}`)
	want := `{"name":"alice","idleTimeout":"30m0s","maxIdleTimeout":"2h0m0s","wakePolicy":"any","updatedAt":"2026-11-24T12:00:00Z","updatedBy":"token root"}` + "\n"
	if set.status != http.StatusOK || set.body != want || set.header.Get("ETag") != `"1"` {
		t.Errorf("%s, ETag %q", set, set.header.Get("ETag"))
	}
	if a := c.call(t, operator, "GET", ofAlice, ""); a.body != want || a.header.Get("ETag") != `"1"` {
		t.Errorf("%s, ETag %q", a, a.header.Get("ETag"))
	}
	c.call(t, admin, "PUT", ofWeb, `{"wakePolicy":"manual"}`)
	list := `{"owners":[` + strings.TrimSpace(want) + `],"projects":[{"name":"web","wakePolicy":"manual","updatedAt":"2026-11-24T12:00:00Z","updatedBy":"token root"}],` +
		`"idleTimeout":"10m0s","limits":{"minIdleTimeout":"2s","maxIdleTimeout":null}}` + "\n"
	if a := c.call(t, operator, "GET", "/api/v1/policies", ""); a.body != list {
		t.Errorf("%s, want %s", a, list)
	}
	if a := c.call(t, admin, "DELETE", ofAlice, ""); a.status != http.StatusNoContent {
		t.Errorf("%s", a)
	}
	if a := c.call(t, admin, "DELETE", ofAlice, ""); a.status != http.StatusNotFound {
		t.Errorf("deleted twice: %s", a)
	}
}

func TestPolicies_ifMatch(t *testing.T) {
	t.Parallel()
	c := newClient(t, newMemory(), zap.NewNop())
	first := c.call(t, admin, "PUT", ofWeb, `{"idleTimeout":"30m"}`).header.Get("ETag")
	second := c.call(t, admin, "PUT", ofWeb, `{"idleTimeout":"40m"}`, "If-Match", first)
	if second.status != http.StatusOK {
		t.Fatalf("%s", second)
	}
	for _, tag := range []string{first, `"x"`, "none"} {
		for _, call := range [][2]string{{"PUT", `{"idleTimeout":"50m"}`}, {"DELETE", ""}} {
			if a := c.call(t, admin, call[0], ofWeb, call[1], "If-Match", tag); a.status != http.StatusPreconditionFailed || a.code(t) != "changed" {
				t.Errorf("%s with %s: %s", call[0], tag, a)
			}
		}
	}
	if a := c.call(t, admin, "GET", ofWeb, ""); !strings.Contains(a.body, `"40m0s"`) {
		t.Errorf("%s", a)
	}
	if a := c.call(t, admin, "DELETE", ofWeb, "", "If-Match", second.header.Get("ETag")); a.status != http.StatusNoContent {
		t.Errorf("%s", a)
	}
}

func TestPolicies_refuseWhatCannotHold(t *testing.T) {
	t.Parallel()
	m := newMemory()
	hour := session.Duration(time.Hour)
	m.limits = api.Limits{MinIdleTimeout: session.Duration(time.Minute), MaxIdleTimeout: &hour}
	c := newClient(t, m, zap.NewNop())
	for body, says := range map[string]string{
		`{"idleTimeout":"1s"}`:                         "2s to 8760h0m0s",
		`{"idleTimeout":"soon"}`:                       "soon",
		`{"wakePolicy":"never"}`:                       "intent",
		`{"maxIdleTimeout":"10000h"}`:                  "8760h0m0s",
		`{"idleTimeout":"20m","maxIdleTimeout":"10m"}`: "longer than the maxIdleTimeout of 10m0s",
		`{"idleTimeout":"2h"}`:                         "2h0m0s is beyond the operator's limits: want 1m0s to 1h0m0s",
		`{"idle":"2h"}`:                                "idle",
	} {
		a := c.call(t, admin, "PUT", ofWeb, body)
		if a.status != http.StatusUnprocessableEntity && a.status != http.StatusBadRequest || !strings.Contains(a.body, says) {
			t.Errorf("%s: %s, want it to say %q", body, a, says)
		}
	}
	if len(m.policies) != 0 {
		t.Errorf("refused, and stored: %v", m.policies)
	}
}

func TestPolicies_ofAnyName(t *testing.T) {
	t.Parallel()
	c := newClient(t, newMemory(), zap.NewNop())
	for path, name := range map[string]string{
		"a%2Fb": "a/b", "https:%2F%2Fid.example%2Fu": "https://id.example/u", "auth0%7C7": "auth0|7", "%2E%2E": "..", "a%20b": "a b", "%C3%A4": "ä",
	} {
		set := c.call(t, admin, "PUT", "/api/v1/policies/owners/"+path, `{"idleTimeout":"1h"}`)
		if set.status != http.StatusOK || !strings.Contains(set.body, fmt.Sprintf("%q", name)) {
			t.Errorf("%s: %s, want the policy of %q", path, set, name)
		}
	}
}

func TestPolicies_ofAnOwnersOwnToken(t *testing.T) {
	t.Parallel()
	m := newMemory()
	c := newClient(t, m, zap.NewNop())
	if a := c.call(t, alice, "PUT", ofAlice, `{"idleTimeout":"20m"}`); a.status != http.StatusOK {
		t.Errorf("her own: %s", a)
	}
	c.call(t, admin, "PUT", ofAlice, `{"maxIdleTimeout":"1h"}`)
	c.call(t, admin, "PUT", "/api/v1/policies/owners/bob", `{}`)
	c.call(t, admin, "PUT", ofWeb, `{}`)
	if a := c.call(t, alice, "PUT", ofAlice, `{"idleTimeout":"30m"}`); !strings.Contains(a.body, `"maxIdleTimeout":"1h0m0s"`) {
		t.Errorf("the limit that was set for her is gone: %s", a)
	}
	for _, refused := range []answer{
		c.call(t, alice, "PUT", ofAlice, `{"maxIdleTimeout":"2h"}`), c.call(t, alice, "DELETE", ofAlice, ""),
	} {
		if refused.status != http.StatusForbidden {
			t.Errorf("she may move her own limit: %s", refused)
		}
	}
	for _, path := range []string{"/api/v1/policies/owners/bob", ofWeb} {
		for method, body := range map[string]string{"GET": "", "PUT": `{"idleTimeout":"1h"}`, "DELETE": ""} {
			theirs := c.call(t, alice, method, path, body)
			none := c.call(t, alice, method, path+"x", body)
			if theirs.status != http.StatusNotFound || theirs.String() != none.String() {
				t.Errorf("%s %s: %s is told from %s", method, path, theirs, none)
			}
		}
	}
	if a := c.call(t, alice, "GET", "/api/v1/policies", ""); strings.Contains(a.body, "bob") || strings.Contains(a.body, "web") || !strings.Contains(a.body, "alice") {
		t.Errorf("she sees %s", a)
	}
}
