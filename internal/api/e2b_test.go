package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
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

// newFakeHost serves what a host might answer that the local one never does.
func newFakeHost(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func answerWith(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestE2B_keepsFieldsThatNobodyKnows(t *testing.T) {
	t.Parallel()
	const future = `{"sandboxID":"ia","templateID":"t","future":{"n":12345678901234567890.5,"a":[1,null]},"domain":null}`
	const rewritten = `{"domain":"sandbox.example.com","future":{"n":12345678901234567890.5,"a":[1,null]},"sandboxID":"ia","templateID":"t"}`
	got := make(chan string, 1)
	base := newFakeHost(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- string(body)
		answerWith(201, "application/json", future)(w, r)
	})
	p := newThrough(t, base, &records{}, nil)
	a := p.sdk(t, "POST", "/v2/sandboxes", `{"templateID":"t","iam":{"tokens":{}},"big":12345678901234567890}`)
	if sent := <-got; sent != `{"autoPause":true,"big":12345678901234567890,"iam":{"tokens":{}},"templateID":"t"}` {
		t.Errorf("sent %s", sent)
	}
	if a.status != 201 || a.body != rewritten {
		t.Errorf("got %s", a)
	}
	unchanged := newThrough(t, base, &records{}, func(cfg *api.E2BConfig) { cfg.Domain = "" })
	if a := unchanged.sdk(t, "POST", "/sandboxes", `{}`); a.body != future {
		t.Errorf("without a domain: %s", a)
	}
	<-got
	if a := p.sdk(t, "POST", "/sandboxes", `{}`, "X-API-Key", "other"); a.body != future || <-got != `{}` {
		t.Errorf("with another key: %s", a)
	}
}

func TestE2B_aHostThatCompressesIsRead(t *testing.T) {
	t.Parallel()
	base := newFakeHost(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			t.Errorf("%s %s: may be compressed", r.Method, r.URL)
		}
		answerWith(201, "application/json", `{"sandboxID":"ia"}`)(w, r)
	})
	p := newThrough(t, base, &records{}, nil)
	for _, path := range []string{"/v2/sandboxes", "/v2/sandboxes/ia/connect"} {
		if a := p.sdk(t, "POST", path, `{"timeout":1}`); !strings.Contains(a.body, "sandbox.example.com") {
			t.Errorf("%s: %s", path, a)
		}
	}
}

func TestE2B_createIsOnRecordBeforeItIsAnswered(t *testing.T) {
	t.Parallel()
	began, end := make(chan struct{}), make(chan struct{})
	b := &records{created: func(context.Context) error {
		close(began)
		<-end
		return nil
	}}
	p := newThrough(t, newFakeHost(t, answerWith(201, "application/json", `{"sandboxID":"ia"}`)), b, nil)
	done := make(chan answer)
	go func() { done <- p.sdk(t, "POST", "/v2/sandboxes", `{"templateID":"base"}`) }()
	<-began
	select {
	case a := <-done:
		t.Errorf("answered with nothing on record: %s", a)
	default:
	}
	close(end)
	if a := <-done; a.status != 201 {
		t.Errorf("%s", a)
	}
	expectNotes(t, p, `created ia from "base" with null`)
}

func TestE2B_createIsRecordedForAClientThatLeft(t *testing.T) {
	t.Parallel()
	ctx, leave := context.WithCancel(t.Context())
	asked := make(chan context.Context, 1) // the request's own, as the server sees it
	recorded := make(chan error, 1)
	b := &records{created: func(ctx context.Context) error {
		leave()
		<-(<-asked).Done()
		recorded <- ctx.Err()
		return ctx.Err()
	}}
	u, err := url.Parse(newFakeHost(t, answerWith(201, "application/json", `{"sandboxID":"ia"}`)))
	if err != nil {
		t.Fatal(err)
	}
	h := api.NewE2B(api.E2BConfig{Backend: b, Base: u, HostKey: hostKey, Log: zap.NewNop()})
	p := &through{url: newFakeHost(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Context()
		h.ServeHTTP(w, r)
	})}
	r := p.request(t, "POST", "/v2/sandboxes", `{"templateID":"base"}`)
	if res, err := http.DefaultClient.Do(r.WithContext(ctx)); err == nil {
		_ = res.Body.Close()
		t.Error("an answer for one who left")
	}
	if err := <-recorded; err != nil {
		t.Errorf("the record was given up: %v", err)
	}
}

func TestE2B_createIsAnsweredThoughTheRecordFails(t *testing.T) {
	t.Parallel()
	b := &records{created: func(context.Context) error { return errors.New("store down") }}
	p := newThrough(t, newFakeHost(t, answerWith(201, "application/json", `{"sandboxID":"ia"}`)), b, nil)
	expect(t, p.sdk(t, "POST", "/v2/sandboxes", `{"templateID":"base"}`), 201, 0)
}

func TestE2B_onlyASandboxThatWasMadeIsRecorded(t *testing.T) {
	t.Parallel()
	for body, status := range map[string]int{
		`{"code":429,"message":"too many"}`: 429, `{"code":400,"message":"no"}`: 400, `{}`: 201, `oops`: 201, `{"sandboxID":"../x"}`: 201,
	} {
		p := newThrough(t, newFakeHost(t, answerWith(status, "application/json", body)), &records{}, nil)
		if a := p.sdk(t, "POST", "/v2/sandboxes", `{"templateID":"base"}`); a.status != status {
			t.Errorf("%s: %s", body, a)
		}
		expectNotes(t, p)
	}
}

func TestE2B_forkRecordsEach(t *testing.T) {
	t.Parallel()
	const forks = `[{"sandbox":{"sandboxID":"ib","domain":null,"x":1}},{"error":{"code":503}},{"sandbox":{"sandboxID":"ic"}}]`
	p := newThrough(t, newFakeHost(t, answerWith(201, "application/json", forks)), &records{}, nil)
	a := p.sdk(t, "POST", "/sandboxes/ia/fork", `{"count":3}`)
	expectNotes(t, p, `created ib from "" with null`, `created ic from "" with null`)
	if a.body != `[{"sandbox":{"domain":"sandbox.example.com","sandboxID":"ib","x":1}},{"error":{"code":503}},{"sandbox":{"domain":"sandbox.example.com","sandboxID":"ic"}}]` {
		t.Errorf("%s", a)
	}
}

func TestE2B_connectIsInUseUntilItIsAnswered(t *testing.T) {
	t.Parallel()
	b := &records{}
	base := newFakeHost(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if b.using() != 1 || r.URL.Path != "/api/v2/sandboxes/ia-6532622b/connect" || string(body) != `{"timeout":9}` {
			t.Errorf("%d uses, %s %s", b.using(), r.URL.Path, body)
		}
		answerWith(200, "application/json", `{"sandboxID":"ia"}`)(w, r)
	})
	p := newThrough(t, base+"/api", b, nil)
	expect(t, p.sdk(t, "POST", "/v2/sandboxes/ia-6532622b/connect", `{"timeout":9}`), 200, 0)
	expectNotes(t, p, "use ia for 9s by the E2B API")
	p.close()
	if b.using() != 0 {
		t.Error("in use for ever")
	}
}

func TestE2B_connectNeverGoesRoundTheRecord(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, path, body string
		fail             error
		status           int
	}{
		{"v1 without a timeout", "/sandboxes/ia/connect", `{}`, nil, 400},
		{"v1 without a body", "/sandboxes/ia/connect", ``, nil, 400},
		{"cut", "/v2/sandboxes/ia/connect", `{"timeout":`, nil, 400},
		{"negative", "/v2/sandboxes/ia/connect", `{"timeout":-1}`, nil, 400},
		{"text", "/v2/sandboxes/ia/connect", `{"timeout":"300"}`, nil, 400},
		{"beyond a century", "/v2/sandboxes/ia/connect", `{"timeout":1e300}`, nil, 400},
		{"half a second", "/sandboxes/ia/resume", `{"timeout":0.5}`, nil, 400},
		{"unknown", "/v2/sandboxes/ia/connect", ``, api.ErrNotFound, 404},
		{"killed", "/v2/sandboxes/ia/connect", `{}`, api.ErrKilled, 404},
		{"store down", "/v2/sandboxes/ia/connect", `{}`, &api.UnavailableError{Reason: "store down", RetryAfter: time.Second}, 503},
		{"over the plan", "/v2/sandboxes/ia/connect", `{"timeout":99999}`, &e2b.Error{Status: 400, Code: 400, Message: "Timeout cannot be greater than 24 hours"}, 400},
		{"over the limit", "/v2/sandboxes/ia/connect", `{}`, &e2b.Error{Status: 429, Code: 429, Message: "too many", RetryAfter: time.Second}, 429},
		{"a gateway's page", "/v2/sandboxes/ia/connect", `{}`, &e2b.Error{Status: 404, Message: "<html>"}, 502},
		{"took too long", "/v2/sandboxes/ia/connect", `{}`, context.DeadlineExceeded, 503},
		{"anything else", "/v2/sandboxes/ia/connect", `{}`, errors.New("secret"), 503},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			base := newFakeHost(t, func(http.ResponseWriter, *http.Request) { t.Error("it was forwarded") })
			p := newThrough(t, base, &records{fail: fmt.Errorf("using: %w", orNil(tt.fail))}, nil)
			a := p.sdk(t, "POST", tt.path, tt.body)
			expect(t, a, tt.status, tt.status)
			if strings.Contains(a.body, "secret") {
				t.Errorf("%s tells too much", a)
			}
			if again := a.header.Get("Retry-After"); (tt.status == 429 || tt.status == 503) != (again != "") {
				t.Errorf("Retry-After %q", again)
			}
		})
	}
}

// orNil makes an error of its own where there is none, which must not show.
func orNil(err error) error {
	if err == nil {
		return errors.New("it was used")
	}
	return err
}

// TestE2B_pauseSaysAsleepOnlyOfWhatSlept: to the SDK's pause() code 409 means
// false, "it slept before".
func TestE2B_pauseSaysAsleepOnlyOfWhatSlept(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err    error
		status int
	}{
		{&e2b.Error{Status: 409, Code: 409, Message: "Sandbox 'ia' cannot be paused while in 'snapshotting' state"}, 503},
		{session.ErrConflict, 503},
		{&api.InUseError{What: []string{"1 request"}}, 503},
		{&api.UnavailableError{Reason: "settling"}, 503},
		{&e2b.Error{Status: 500, Code: 500, Message: "Error pausing sandbox"}, 500},
		{api.ErrNotFound, 404},
	} {
		p := newThrough(t, "http://host.invalid", &records{fail: fmt.Errorf("pausing: %w", tt.err)}, nil)
		expect(t, p.sdk(t, "POST", "/sandboxes/ia/pause", `{}`), tt.status, tt.status)
	}
}

func TestE2B_onlyTheHostsOwnWordKills(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		answer http.HandlerFunc
		killed bool
	}{
		{"done", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, true},
		{"unknown", answerWith(404, "application/json", `{"code":404,"message":"Sandbox \"ia\" doesn't exist"}`), true},
		{"a gateway's 404", answerWith(404, "text/html", `<h1>404</h1>`), false},
		{"404 with another code", answerWith(404, "application/json", `{"code":401,"message":"x"}`), false},
		{"failed", answerWith(500, "application/json", `{"code":500,"message":"Error killing sandbox"}`), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			base := newFakeHost(t, tt.answer)
			p := newThrough(t, base, &records{}, nil)
			got := p.sdk(t, "DELETE", "/sandboxes/ia", "")
			direct := (&through{url: base}).sdk(t, "DELETE", "/sandboxes/ia", "")
			if got.String() != direct.String() {
				t.Errorf("%s, and not %s", got, direct)
			}
			want := []string{"killing ia"}
			if tt.killed {
				want = append(want, "killed ia")
			}
			if notes := p.noted(); !slices.Equal(notes, want) {
				t.Errorf("noted was %q, want %q", notes, want)
			}
		})
	}
}

func TestE2B_forwardsTheRestAsItIs(t *testing.T) {
	t.Parallel()
	type seen struct{ method, uri, host, body, encoding, key, forwarded string }
	got := make(chan seen, 1)
	base := newFakeHost(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- seen{r.Method, r.RequestURI, r.Host, string(body), r.Header.Get("Accept-Encoding"), r.Header.Get("X-Api-Key"), r.Header.Get("X-Forwarded-For") + r.Header.Get("X-Forwarded-Host")}
		w.Header().Set("X-Next-Token", "dG9r")
		answerWith(206, "text/x-odd", "odd")(w, r)
	})
	p := newThrough(t, base, &records{}, nil)
	tests := []struct{ method, path, body string }{
		{"GET", "/v2/sandboxes?metadata=u%252520ser%3Da%252520b%252526c&state=running,paused&limit=10&nextToken=dG9r", ""},
		{"GET", "/sandboxes?a;b&c=%zz", ""},
		{"POST", "/sandboxes/ia/timeout", `{"timeout":62}`},
		{"POST", "/sandboxes/ia/refreshes", `{}`},
		{"GET", "/sandboxes/ia/metrics?start=1", ""},
		{"GET", "/v2/sandboxes/ia/logs?cursor=1", ""},
		{"PUT", "/sandboxes/ia/network", `{}`},
		{"POST", "/sandboxes/ia/snapshots", ``},
		{"POST", "/sandboxes/IA_X/connect", `{}`}, // the host's to refuse
		{"POST", "/sandboxes/ia/x/connect", `{}`},
		{"GET", "/templates/a%2Fb", ""},
		{"POST", "/v3/builds", `<not json>`},
		{"GET", "/health", ""},
	}
	for _, tt := range tests {
		for _, key := range []string{hostKey, "another"} {
			a := p.sdk(t, tt.method, tt.path, tt.body, "X-API-Key", key)
			want := seen{tt.method, tt.path, strings.TrimPrefix(base, "http://"), tt.body, "gzip, deflate", key, ""}
			if s := <-got; s != want {
				t.Errorf("got  %+v\nwant %+v", s, want)
			}
			if a.status != 206 || a.body != "odd" || a.header.Get("Content-Type") != "text/x-odd" || a.header.Get("X-Next-Token") != "dG9r" {
				t.Errorf("%s: %s %v", tt.path, a, a.header)
			}
		}
	}
	expectNotes(t, p, "timeout of ia set", "timeout of ia set") // by the caller who is tracked
}

func TestE2B_aTimeoutThatWasRefusedIsNotNoted(t *testing.T) {
	t.Parallel()
	base := newFakeHost(t, answerWith(404, "application/json", `{"code":404,"message":"it does not run"}`))
	p := newThrough(t, base, &records{}, nil)
	expect(t, p.sdk(t, "POST", "/sandboxes/ia/timeout", `{"timeout":62}`), 404, 404)
	expectNotes(t, p)
}

func TestE2B_streamsAsItComes(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	base := newFakeHost(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 2 {
			_, _ = io.WriteString(w, "line\n")
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	p := newThrough(t, base, &records{}, nil)
	res, err := http.DefaultClient.Do(p.request(t, "GET", "/sandboxes/ia/logs", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for range 2 { // the next one is not written before this one has come through
		if line, err := lines.ReadString('\n'); line != "line\n" {
			t.Fatalf("%q, %v", line, err)
		}
		next <- struct{}{}
	}
}

func TestE2B_anUnreachableHostIsAnE2BError(t *testing.T) {
	t.Parallel()
	refused := httptest.NewServer(http.NotFoundHandler())
	refused.Close()
	broken := newFakeHost(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	cut := newFakeHost(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(201)
		_, _ = io.WriteString(w, `{"sandboxID":"ia"`)
	})
	for name, base := range map[string]string{"refused": refused.URL, "broken off": broken, "cut": cut} {
		core, logs := observer.New(zapcore.DebugLevel)
		p := newThrough(t, base, &records{}, func(cfg *api.E2BConfig) { cfg.Log = zap.New(core) })
		expect(t, p.sdk(t, "POST", "/v2/sandboxes", `{"templateID":"base"}`), 502, 502)
		expectNotes(t, p)
		if name != "cut" {
			expect(t, p.sdk(t, "GET", "/v2/sandboxes", ""), 502, 502)
			expect(t, p.sdk(t, "DELETE", "/sandboxes/ia", ""), 502, 502)
			expectNotes(t, p, "killing ia")
		}
		if logs.Len() == 0 {
			t.Errorf("%s: nothing is logged", name)
		}
		for _, entry := range logs.All() {
			if text := entryText(entry); strings.Contains(text, hostKey) {
				t.Errorf("a key is logged: %s", text)
			}
		}
	}
}

func TestE2B_aBodyBeyondTheAPIsLimitIsRefused(t *testing.T) {
	t.Parallel()
	base := newFakeHost(t, func(http.ResponseWriter, *http.Request) { t.Error("it was forwarded") })
	p := newThrough(t, base, &records{}, nil)
	body := `{"templateID":"` + strings.Repeat("x", 16<<20) + `"}`
	r := httptest.NewRequest("POST", p.url+"/v2/sandboxes", io.MultiReader(strings.NewReader(body)))
	r.RequestURI = ""
	r.Header.Set("X-API-Key", hostKey)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%s", res.Status)
	}
}
