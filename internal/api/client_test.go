package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
)

// TestMain is also the envd process of the real host's sandboxes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "envd" {
		os.Exit(sandboxd.EnvdMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// The secrets are as long as they are so that their absence in logs says
// something.
const (
	admin    = "admin-secret-0123456789"
	operator = "operator-secret-0123456789"
	viewer   = "viewer-secret-0123456789"
	alice    = "alice-secret-0123456789"    // an admin of what is alice's
	bob      = "bob-secret-0123456789"      // likewise of bob's
	aliceSee = "alicesee-secret-0123456789" // a viewer of alice's
)

func tokens(t testing.TB) []api.Token {
	t.Helper()
	hash := func(secret string) [32]byte {
		h, err := api.HashSecret(secret)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	return []api.Token{
		{Name: "root", Role: api.RoleAdmin, Hash: hash(admin)},
		{Name: "ops", Role: api.RoleOperator, Hash: hash(operator)},
		{Name: "eye", Role: api.RoleViewer, Hash: hash(viewer)},
		{Name: "alice", Role: api.RoleAdmin, Owner: "alice", Hash: hash(alice)},
		{Name: "bob", Role: api.RoleAdmin, Owner: "bob", Hash: hash(bob)},
		{Name: "alice-eye", Role: api.RoleViewer, Owner: "alice", Hash: hash(aliceSee)},
	}
}

// client calls an API and holds each answer against the API's own OpenAPI file.
type client struct {
	h http.Handler
	openAPIFile
}

func newClient(t testing.TB, m *memory, log *zap.Logger) *client {
	t.Helper()
	return configured(t, m, func(cfg *api.Config) { cfg.Log = log })
}

func configured(t testing.TB, m *memory, change func(*api.Config)) *client {
	t.Helper()
	cfg := api.Config{Version: "1.2.3", Reader: m, Actor: m, Tokens: tokens(t), Log: zap.NewNop(), PricePerMinute: 0.0005, Currency: "EUR", HostTimeout: 5 * time.Minute}
	change(&cfg)
	h, err := api.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	file, err := openAPI()
	if err != nil {
		t.Fatal(err)
	}
	return &client{h, file}
}

// openAPI reads the file that every API here serves, and compiles it once: that
// takes longer than all that the tests do with it.
var openAPI = sync.OnceValues(func() (openAPIFile, error) {
	h, err := api.New(api.Config{Version: "1.2.3"})
	if err != nil {
		return openAPIFile{}, err
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/openapi.json", nil)) // without a token
	document, err := libopenapi.NewDocument(w.Body.Bytes())
	if err != nil {
		return openAPIFile{}, fmt.Errorf("reading the OpenAPI file (%d): %w", w.Code, err)
	}
	v, errs := validator.NewValidator(document)
	return openAPIFile{w.Body.Bytes(), v}, errors.Join(errs...)
})

type openAPIFile struct {
	document []byte
	valid    validator.Validator
}

// answer is a response that has been read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

func (a answer) decode(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("%s: %v", a, err)
	}
}

// code returns a problem's code, after a look at what all problems share.
func (a answer) code(t testing.TB) string {
	t.Helper()
	var p api.Problem
	a.decode(t, &p)
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("%s is of type %q", a, ct)
	}
	if p.Status != a.status || p.Title == "" || p.Code == "" || p.Detail == "" {
		t.Errorf("the problem %s lacks something", a)
	}
	if cc := a.header.Get("Cache-Control"); cc != "no-store" {
		t.Errorf("%s may be cached: %q", a, cc)
	}
	return p.Code
}

// call makes a request with the token in secret, or without one.
func (c *client) call(t testing.TB, secret, method, path, body string, headers ...string) answer {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return c.send(t, r)
}

func (c *client) send(t testing.TB, r *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, r)
	a := answer{w.Code, w.Header(), w.Body.String()}
	if a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s %s: %s may be cached", r.Method, r.URL, a)
	}
	if a.status >= 400 {
		if code := a.code(t); code == "no-such-route" || code == "method-not-allowed" {
			return a // what the file can't know of
		}
	}
	if ok, errs := c.valid.ValidateHttpResponse(r, w.Result()); !ok {
		for _, err := range errs {
			t.Errorf("%s %s: %s is not as the OpenAPI file says: %v", r.Method, r.URL, a, err)
		}
	}
	return a
}
