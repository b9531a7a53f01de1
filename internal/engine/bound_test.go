package engine_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
)

// caller sends requests to the API of a node, as whoever has one token.
type caller struct {
	t     *testing.T
	api   http.Handler
	token string
}

// callers gives an operator bound to alice, and one that is not bound.
func (n *node) callers() (alice, ops caller) {
	n.w.t.Helper()
	var tokens []api.Token
	for name, owner := range map[string]string{"alice": "alice", "ops": ""} {
		hash, err := api.HashSecret("secret of " + name)
		if err != nil {
			n.w.t.Fatal(err)
		}
		tokens = append(tokens, api.Token{Name: name, Role: api.RoleOperator, Owner: owner, Hash: hash})
	}
	h, err := api.New(api.Config{Reader: n, Actor: n, Tokens: tokens, Log: zap.NewNop()})
	if err != nil {
		n.w.t.Fatal(err)
	}
	return caller{n.w.t, h, "secret of alice"}, caller{n.w.t, h, "secret of ops"}
}

// ask gives the answer's status and body.
func (c caller) ask(method, path, body string) (int, string) {
	c.t.Helper()
	r := httptest.NewRequestWithContext(c.t.Context(), method, "/api/v1"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	c.api.ServeHTTP(w, r)
	answer, err := io.ReadAll(w.Result().Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return w.Code, string(answer)
}

// must asks, and wants this status.
func (c caller) must(status int, method, path, body string) {
	c.t.Helper()
	if got, answer := c.ask(method, path, body); got != status {
		c.t.Errorf("%s %s %s: %d %s, want %d", method, path, body, got, answer, status)
	}
}

// vault is what tells of the policy of the project of this name. Spans of 133ms are none.
var vault = regexp.MustCompile(`\b(33|44)m([^s]|$)|manual`)

// TestProject_ofABoundToken walks the ways by which the token of an owner might
// come to know of a project's policy that has nothing to do with that owner, or
// get rid of one that has.
func TestProject_ofABoundToken(t *testing.T) {
	t.Parallel()
	n := newWorldApart(t).start(nil)
	n.createOf("bob", "vault")
	n.setPolicy(session.ScopeProject, "vault", session.Policy{
		IdleTimeout: session.Duration(33 * time.Minute), MaxIdleTimeout: session.Duration(44 * time.Minute), WakePolicy: "manual",
	})
	hers, other := n.createOf("alice", ""), n.createOf("alice", "")
	alice, ops := n.callers()
	one := "/sandboxes/" + hers
	blind := func(when string) {
		t.Helper()
		for _, path := range []string{one, one + "/why", one + "/history", "/sandboxes", "/policies", "/savings?group=project"} {
			if status, body := alice.ask("GET", path, ""); status != http.StatusOK || vault.MatchString(body) {
				t.Errorf("%s, %s: %d %s", when, path, status, body)
			}
		}
	}

	alice.must(http.StatusForbidden, "PATCH", one, `{"project":"vault"}`)
	alice.must(http.StatusForbidden, "PATCH", one, `{"project":"vault","idleTimeout":"45m"}`) // not told of the limit either
	alice.must(http.StatusForbidden, "POST", "/sandboxes", `{"template":"base","metadata":{"projectId":"vault"}}`)
	if all, err := n.w.direct.List(t.Context()); err != nil || len(all) != 3 {
		t.Errorf("%d sandboxes at the host, %v", len(all), err)
	}
	blind("refused")
	alice.must(http.StatusOK, "PATCH", one, `{"project":"garden"}`)
	alice.must(http.StatusForbidden, "PATCH", one, `{"project":"vault"}`)
	blind("from a project of her own")
	alice.must(http.StatusOK, "PATCH", one, `{"project":null}`)
	alice.must(http.StatusCreated, "POST", "/sandboxes", `{"template":"base","metadata":{"projectId":"garden"}}`)

	ops.must(http.StatusOK, "PATCH", one, `{"project":"vault"}`)
	if _, why := alice.ask("GET", one+"/why", ""); !regexp.MustCompile(`\b33m.*manual`).MatchString(why) {
		t.Errorf("she is not told what holds for her: %s", why)
	}
	alice.must(http.StatusOK, "PATCH", one, `{"project":"vault"}`) // where it is
	alice.must(http.StatusForbidden, "PATCH", one, `{"project":null}`)
	alice.must(http.StatusForbidden, "PATCH", one, `{"project":"garden","idleTimeout":"2h"}`)
	alice.must(http.StatusUnprocessableEntity, "PATCH", one, `{"idleTimeout":"45m"}`)
	alice.must(http.StatusOK, "PATCH", "/sandboxes/"+other, `{"project":"vault"}`)
	alice.must(http.StatusCreated, "POST", "/sandboxes", `{"template":"base","metadata":{"projectId":"vault"}}`)
	ops.must(http.StatusOK, "PATCH", one, `{"project":null}`)
}
