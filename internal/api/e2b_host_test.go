package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
)

const hostKey = sandboxd.DefaultAPIKey

// records is a backend that calls the host at once, without a store: what it
// says about a sandbox is what the host says. It notes what it was told.
type records struct {
	host *e2b.Client

	mu    sync.Mutex // guards the following fields
	notes []string
	inUse int
	fail  error
	// created, if set, is called in Created, before anything is noted.
	created func(context.Context) error
}

func (b *records) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}

// noted returns what was noted since the last call.
func (b *records) noted() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	notes := b.notes
	b.notes = nil
	return notes
}

func (b *records) using() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.inUse
}

func (b *records) Created(ctx context.Context, sb e2b.Sandbox, template string, metadata map[string]string) error {
	if b.created != nil {
		if err := b.created(ctx); err != nil {
			return err
		}
	}
	md, _ := json.Marshal(metadata)
	b.note("created %s from %q with %s", sb.SandboxID, template, md)
	return nil
}

func (b *records) Use(ctx context.Context, id string, timeout time.Duration, by string) (func(), bool, error) {
	b.note("use %s for %s by %s", id, timeout, by)
	if b.fail != nil {
		return nil, false, b.fail
	}
	woke := false
	if b.host != nil {
		var err error
		if _, woke, err = b.host.Connect(ctx, id, timeout); err != nil {
			return nil, false, gone(err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inUse++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.inUse--
	}, woke, nil
}

func gone(err error) error {
	if e2b.IsNotFound(err) {
		return fmt.Errorf("%w: %w", api.ErrKilled, err)
	}
	return err
}

func (b *records) Pause(ctx context.Context, id string, o api.PauseOptions) (api.Sandbox, bool, error) {
	b.note("pause %s, force %v, by %s", id, o.Force, o.By)
	if b.fail != nil {
		return api.Sandbox{}, false, b.fail
	}
	err := b.host.Pause(ctx, id)
	if e2b.IsConflict(err) {
		return api.Sandbox{}, false, nil
	}
	return api.Sandbox{}, true, gone(err)
}

func (b *records) TimeoutSet(ctx context.Context, id string) error {
	b.note("timeout of %s set", id)
	return ctx.Err()
}

func (b *records) Killing(_ context.Context, id string) { b.note("killing %s", id) }

func (b *records) Killed(ctx context.Context, id string) error {
	b.note("killed %s", id)
	return ctx.Err()
}

// through is the pass-through on a server of its own, and a client of it.
type through struct {
	*records
	url   string
	close func() // returns when every request has ended, what follows its answer too
}

func newThrough(t *testing.T, base string, backend *records, edit func(*api.E2BConfig)) *through {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	cfg := api.E2BConfig{Backend: backend, Base: u, HostKey: hostKey, Domain: "sandbox.example.com", Log: zap.NewNop()}
	if edit != nil {
		edit(&cfg)
	}
	srv := httptest.NewServer(http.StripPrefix("/e2b", api.NewE2B(cfg)))
	t.Cleanup(srv.Close)
	return &through{records: backend, url: srv.URL + "/e2b", close: srv.Close}
}

// sdk makes a request as the official SDK 2.51.0 does: chunked, with its
// headers.
func (p *through) sdk(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	r := p.request(t, method, path, body, headers...)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(b)}
}

func (p *through) request(t *testing.T, method, path, body string, headers ...string) *http.Request {
	t.Helper()
	var chunked io.Reader
	if body != "" {
		chunked = io.MultiReader(strings.NewReader(body)) // of unknown length
	}
	r, err := http.NewRequestWithContext(t.Context(), method, p.url+path, chunked)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Browser": "unknown", "Lang": "js", "Lang_version": "20.20.2", "Package_version": "2.51.0", "Publisher": "e2b",
		"Sdk_runtime": "node", "System": "Linux", "User-Agent": "e2b-js-sdk/2.51.0", "X-Api-Key": hostKey, "Accept": "*/*",
		"Accept-Language": "*", "Sec-Fetch-Mode": "cors", "Accept-Encoding": "gzip, deflate",
	} {
		r.Header.Set(name, value)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// e2bCode is the code of an E2B error body, by which the SDKs decide.
func (a answer) e2bCode(t *testing.T) int {
	t.Helper()
	var e struct {
		Code    int
		Message string
	}
	a.decode(t, &e)
	if !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") || e.Message == "" {
		t.Errorf("%s is no error of the E2B API (%s)", a, a.header.Get("Content-Type"))
	}
	return e.Code
}

// newRealHost opens a local sandbox host, and ends all that was made in it.
func newRealHost(t *testing.T) (baseURL string, c *e2b.Client) {
	t.Helper()
	h, err := sandboxd.Open(t.Context(), sandboxd.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h.Handler())
	c = e2b.NewClient(srv.URL, hostKey, nil)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		all, err := c.List(ctx)
		for _, sb := range all {
			_ = c.Kill(ctx, sb.SandboxID)
		}
		srv.Close()
		if closing := h.Close(); err != nil || closing != nil {
			t.Errorf("ending the host: %v, %v", err, closing)
		}
	})
	return srv.URL, c
}

type madeSandbox struct {
	SandboxID, TemplateID, ClientID, EnvdVersion, Domain string
}

// generation is how an age of SDKs calls the routes that there are two of.
type generation struct {
	name, v         string // v comes before the path
	create, connect string // bodies
	lifetime        string // what that connect asks for
}

// TestE2B_sdkFlowOnARealHost is one sandbox's life as the SDKs lead it.
func TestE2B_sdkFlowOnARealHost(t *testing.T) {
	t.Parallel()
	base, host := newRealHost(t)
	p := newThrough(t, base, &records{host: host}, nil)
	for _, g := range []generation{
		{"2.51.0", "/v2", `{"templateID":"base","metadata":{"userId":"alice"}}`, `{}`, "5m0s"},
		{"2.50.0", "", `{"templateID":"base","metadata":{"userId":"alice"},"timeout":300,"secure":true,"allow_internet_access":true}`, `{"timeout":120}`, "2m0s"},
	} {
		t.Run(g.name, func(t *testing.T) {
			id := p.createdAsSDK(t, g)
			p.whileItRuns(t, g, id)
			p.throughASleep(t, g, id)
			p.toItsEnd(t, id)
		})
	}
	p.close()
	if n := p.using(); n != 0 {
		t.Errorf("%d uses were never released", n)
	}
}

func (p *through) createdAsSDK(t *testing.T, g generation) (id string) {
	t.Helper()
	var sb madeSandbox
	created := p.sdk(t, "POST", g.v+"/sandboxes", g.create)
	created.decode(t, &sb)
	if created.status != http.StatusCreated || sb.Domain != "sandbox.example.com" || sb.EnvdVersion == "" || sb.TemplateID == "" {
		t.Fatalf("create: %s", created)
	}
	expectNotes(t, p, `created `+sb.SandboxID+` from "base" with {"userId":"alice"}`)
	detail, err := p.host.Get(t.Context(), sb.SandboxID)
	if err != nil || detail.Lifecycle == nil || detail.Lifecycle.OnTimeout != "pause" || detail.Metadata["userId"] != "alice" {
		t.Errorf("at the host: %+v, %v", detail, err)
	}
	return sb.SandboxID
}

func (p *through) whileItRuns(t *testing.T, g generation, id string) {
	t.Helper()
	one := "/sandboxes/" + id
	expect(t, p.sdk(t, "POST", g.v+one+"/connect", g.connect), 200, 0)
	expectNotes(t, p, "use "+id+" for "+g.lifetime+" by the E2B API")
	running := p.sdk(t, "POST", one+"/resume", `{}`)
	expect(t, running, 409, 409)
	if !strings.Contains(running.body, "Sandbox "+id+" is already running") {
		t.Errorf("resume: %s", running)
	}
	expectNotes(t, p, "use "+id+" for 15s by the E2B API")
	expect(t, p.sdk(t, "POST", one+"/timeout", `{"timeout":62}`), 204, 0)
	expect(t, p.sdk(t, "GET", "/v2/sandboxes?state=running,paused&limit=10", ""), 200, 0)
	expectNotes(t, p, "timeout of "+id+" set")
}

// throughASleep pauses and wakes it, by connect and by resume.
func (p *through) throughASleep(t *testing.T, g generation, id string) {
	t.Helper()
	one := "/sandboxes/" + id
	expect(t, p.sdk(t, "POST", one+"/pause", `{}`), 204, 0)
	slept := p.sdk(t, "POST", one+"/pause", `{"memory":true}`)
	expect(t, slept, 409, 409)
	if want := "Error pausing sandbox - sandbox '" + id + "' is already paused"; !strings.Contains(slept.body, want) {
		t.Errorf("%s, want %s", slept, want)
	}
	expectNotes(t, p, "pause "+id+", force true, by the E2B API", "pause "+id+", force true, by the E2B API")
	got := p.sdk(t, "GET", one, "")
	expect(t, got, 200, 0)
	if !strings.Contains(got.body, `"state":"paused"`) || !strings.Contains(got.body, `"domain":"sandbox.example.com"`) {
		t.Errorf("get: %s", got)
	}

	p.woken(t, id, p.sdk(t, "POST", g.v+one+"/connect", g.connect))
	expectNotes(t, p, "use "+id+" for "+g.lifetime+" by the E2B API")
	expect(t, p.sdk(t, "POST", one+"/pause", ""), 204, 0)
	p.woken(t, id, p.sdk(t, "POST", one+"/resume", `{"timeout":77,"autoPause":false}`))
	p.noted()
}

// woken holds that a sandbox woke, and is still to be paused at its end.
func (p *through) woken(t *testing.T, id string, a answer) {
	t.Helper()
	var sb madeSandbox
	expect(t, a, 201, 0)
	if a.decode(t, &sb); sb.SandboxID != id || sb.Domain != "sandbox.example.com" {
		t.Errorf("woken: %s", a)
	}
	if d, err := p.host.Get(t.Context(), id); err != nil || d.State != e2b.StateRunning || d.Lifecycle.OnTimeout != "pause" {
		t.Errorf("woken: %+v, %v", d, err)
	}
}

func (p *through) toItsEnd(t *testing.T, id string) {
	t.Helper()
	one := "/sandboxes/" + id
	expect(t, p.sdk(t, "DELETE", one, ""), 204, 0)
	expect(t, p.sdk(t, "DELETE", one, ""), 404, 404)
	expectNotes(t, p, "killing "+id, "killed "+id, "killing "+id, "killed "+id)
	for _, action := range []string{"/connect", "/pause", "/resume"} {
		gone := p.sdk(t, "POST", one+action, `{"timeout":1}`)
		expect(t, gone, 404, 404)
		if !strings.Contains(gone.body, `doesn't exist or you don't have access to it`) {
			t.Errorf("%s: %s", action, gone)
		}
	}
	p.noted()
}

func expect(t *testing.T, a answer, status, code int) {
	t.Helper()
	if a.status != status {
		t.Errorf("got %s, want %d", a, status)
	}
	if code != 0 && a.e2bCode(t) != code {
		t.Errorf("got %s, want code %d", a, code)
	}
}

func expectNotes(t *testing.T, p *through, want ...string) {
	t.Helper()
	if got := p.noted(); !slices.Equal(got, want) {
		t.Errorf("the backend was told\n%q, want\n%q", got, want)
	}
}

func TestE2B_createPausesAtTheEndUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	base, host := newRealHost(t)
	p := newThrough(t, base, &records{host: host}, nil)
	for body, want := range map[string]string{
		`{"templateID":"base"}`:                                        "pause",
		`{"templateID":"base","autoPause":null}`:                       "pause",
		`{"templateID":"base","autoPause":true}`:                       "pause",
		`{"autoPause":false,"templateID":"base","timeout":300}`:        "kill",
		`{"templateID":"base","metadata":{"autoPause":"false"}}`:       "pause",
		`{"templateID":"base","envVars":{"A":"<&>"},"timeout":3600  }`: "pause",
	} {
		var sb madeSandbox
		a := p.sdk(t, "POST", "/v2/sandboxes", body)
		a.decode(t, &sb)
		if d, err := host.Get(t.Context(), sb.SandboxID); err != nil || d.Lifecycle.OnTimeout != want {
			t.Errorf("%s: %+v, %v (%s)", body, d.Lifecycle, err, a)
		}
	}
}

func TestE2B_anotherKeyIsNotTracked(t *testing.T) {
	t.Parallel()
	base, host := newRealHost(t)
	p := newThrough(t, base, &records{host: host}, nil)
	for _, headers := range [][]string{{"X-API-Key", "e2b_" + strings.Repeat("1", 40)}, {"X-API-Key", ""}, {"X-API-Key", "", "Authorization", "Bearer " + hostKey}} {
		for _, path := range []string{"/v2/sandboxes", "/sandboxes/iabc/connect", "/sandboxes/iabc/pause"} {
			expect(t, p.sdk(t, "POST", path, `{"templateID":"base","timeout":1}`, headers...), 401, 401)
		}
	}
	expectNotes(t, p)
}

func TestE2B_withoutAKeyNobodyIsTracked(t *testing.T) {
	t.Parallel()
	p := newThrough(t, newFakeHost(t, answerWith(401, "application/json", `{"code":401,"message":"no key"}`)), &records{},
		func(cfg *api.E2BConfig) { cfg.HostKey = "" })
	expect(t, p.sdk(t, "POST", "/sandboxes/ia/pause", "", "X-API-Key", ""), 401, 401)
	expectNotes(t, p)
}

func TestE2B_inProcessHost(t *testing.T) {
	t.Parallel()
	h, err := sandboxd.Open(t.Context(), sandboxd.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	p := newThrough(t, "http://local.invalid", &records{}, func(cfg *api.E2BConfig) { cfg.Forward = handlerTransport{h.Handler()} })
	expect(t, p.sdk(t, "GET", "/v2/sandboxes", ""), 200, 0)
	expect(t, p.sdk(t, "DELETE", "/sandboxes/iabc", ""), 404, 404)
	expectNotes(t, p, "killing iabc", "killed iabc")
}

// handlerTransport carries requests to a handler of this process, and sets no
// more of a response than an http.RoundTripper must.
type handlerTransport struct{ h http.Handler }

func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	t.h.ServeHTTP(w, r)
	return w.Result(), nil
}
