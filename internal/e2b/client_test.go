package e2b_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
)

const testKey = "e2b_0000000000000000000000000000000000000000"

// serve starts a host that answers with h and returns a client of it.
func serve(t *testing.T, h http.HandlerFunc) *e2b.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return e2b.NewClient(srv.URL+"/base/", testKey, srv.Client())
}

// answer is a handler that always says the same.
func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestClient_sendsWhatTheAPIExpects(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		call         func(context.Context, *e2b.Client) error
		method, path string
		body         string
	}{
		{"create", func(ctx context.Context, c *e2b.Client) error {
			timeout, yes := int32(90), true
			_, err := c.Create(ctx, e2b.NewSandbox{TemplateID: "base", Timeout: &timeout, AutoPause: &yes})
			return err
		}, "POST", "/base/sandboxes", `{"templateID":"base","timeout":90,"autoPause":true}`},
		{"get", func(ctx context.Context, c *e2b.Client) error {
			_, err := c.Get(ctx, "iabc")
			return err
		}, "GET", "/base/sandboxes/iabc", ""},
		{"connect rounds up", func(ctx context.Context, c *e2b.Client) error {
			_, _, err := c.Connect(ctx, "iabc", 90500*time.Millisecond)
			return err
		}, "POST", "/base/sandboxes/iabc/connect", `{"timeout":91}`},
		{"connect for less than nothing", func(ctx context.Context, c *e2b.Client) error {
			_, _, err := c.Connect(ctx, "iabc", -time.Second)
			return err
		}, "POST", "/base/sandboxes/iabc/connect", `{"timeout":0}`},
		{
			"pause", func(ctx context.Context, c *e2b.Client) error { return c.Pause(ctx, "iabc") },
			"POST", "/base/sandboxes/iabc/pause", `{}`,
		},
		{
			"kill", func(ctx context.Context, c *e2b.Client) error { return c.Kill(ctx, "iabc") },
			"DELETE", "/base/sandboxes/iabc", "",
		},
		{"timeout beyond what the API takes", func(ctx context.Context, c *e2b.Client) error {
			return c.SetTimeout(ctx, "iabc", 200*365*24*time.Hour)
		}, "POST", "/base/sandboxes/iabc/timeout", `{"timeout":2147483647}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.Method != tt.method || r.URL.Path != tt.path || string(body) != tt.body {
					t.Errorf("got %s %s %s, want %s %s %s", r.Method, r.URL.Path, body, tt.method, tt.path, tt.body)
				}
				if got := r.Header.Get("X-API-Key"); got != testKey {
					t.Errorf("key %q", got)
				}
				answer(200, "application/json", `{"sandboxID":"iabc","state":"running"}`)(w, r)
			})
			if err := tt.call(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestClient_escapesIDs(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath() != "/base/sandboxes/a%2Fb%3Fc/pause" {
			t.Errorf("path %q", r.URL.EscapedPath())
		}
		w.WriteHeader(http.StatusNoContent)
	})
	if err := c.Pause(t.Context(), "a/b?c"); err != nil {
		t.Fatal(err)
	}
}

func TestConnect_tellsResumedFromRunning(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]bool{200: false, 201: true} {
		c := serve(t, answer(status, "application/json", `{"sandboxID":"iabc","envdVersion":"0.6.4"}`))
		sb, resumed, err := c.Connect(t.Context(), "iabc", time.Minute)
		if err != nil || resumed != want || sb.EnvdVersion != "0.6.4" {
			t.Errorf("status %d: got %+v, %v, %v", status, sb, resumed, err)
		}
	}
}

func TestClient_readsErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name                          string
		status                        int
		contentType, body             string
		notFound, conflict, temporary bool
		code                          int
	}{
		{"API's not found", 404, "application/json", `{"code":404,"message":"no"}`, true, false, false, 404},
		{"gateway's not found", 404, "text/html", `<h1>404 Not Found</h1>`, false, false, false, 0},
		{"not found without a code", 404, "application/json", `{"message":"no"}`, false, false, false, 0},
		{"not found of another protocol", 404, "application/json", `{"code":"not_found","message":"no"}`, false, false, false, 0},
		{"empty not found", 404, "", ``, false, false, false, 0},
		{"cut not found", 404, "application/json", `{"code":404,"mess`, false, false, false, 0},
		{"a list", 404, "application/json", `[404]`, false, false, false, 0},
		{"conflict", 409, "application/json", `{"code":409,"message":"already paused"}`, false, true, false, 409},
		{"conflict without a code", 409, "text/plain", `conflict`, false, false, false, 0},
		{"rate limit", 429, "application/json", `{"code":429,"message":"Rate limit exceeded"}`, false, false, true, 429},
		{"gateway is busy", 503, "text/html", `busy`, false, false, true, 0},
		{"no placement", 504, "application/json", `{"code":504,"message":"x","error_code":"sandbox_placement_timeout"}`, false, false, true, 504},
		{"broken", 500, "application/json", `{"code":500,"message":"x"}`, false, false, false, 500},
		{"redirect", 302, "text/html", `elsewhere`, false, false, false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, answer(tt.status, tt.contentType, tt.body))
			_, err := c.Get(t.Context(), "iabc")
			var e *e2b.Error
			if !errors.As(err, &e) || e.Status != tt.status || e.Code != tt.code {
				t.Fatalf("got %v", err)
			}
			if e2b.IsNotFound(err) != tt.notFound || e2b.IsConflict(err) != tt.conflict || e2b.IsTemporary(err) != tt.temporary {
				t.Errorf("not found %v, conflict %v, temporary %v: %v", e2b.IsNotFound(err), e2b.IsConflict(err), e2b.IsTemporary(err), err)
			}
		})
	}
}

func TestClient_neverTakesABadAnswerForOne(t *testing.T) {
	t.Parallel()
	huge := `{"sandboxID":"iabc","state":"running","x":"` + strings.Repeat("y", 5<<20) + `"}`
	tests := map[string]http.HandlerFunc{
		"HTML":          answer(200, "text/html", `<h1>Welcome</h1>`),
		"empty":         answer(200, "application/json", ``),
		"empty object":  answer(200, "application/json", `{}`),
		"null":          answer(200, "application/json", `null`),
		"other sandbox": answer(200, "application/json", `{"sandboxID":"other","state":"running"}`),
		"unknown state": answer(200, "application/json", `{"sandboxID":"iabc","state":"dancing"}`),
		"cut JSON":      answer(200, "application/json", `{"sandboxID":"iabc","sta`),
		"two values":    answer(200, "application/json", `{"sandboxID":"iabc","state":"running"}{}`),
		"huge":          answer(200, "application/json", huge),
		"huge 404":      answer(404, "application/json", `{"code":404,"message":"`+strings.Repeat("y", 5<<20)+`"}`),
		"cut transfer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(404)
			_, _ = io.WriteString(w, `{"code":404,"message":"no"}`)
		},
	}
	for name, h := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := serve(t, h).Get(t.Context(), "iabc")
			if err == nil || e2b.IsNotFound(err) {
				t.Fatalf("got %+v, %v", d, err)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the error repeats %d bytes", len(err.Error()))
			}
		})
	}
}

func TestClient_takesTheKeyNowhereElse(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("followed to another server with key %q", r.Header.Get("X-API-Key"))
	}))
	defer other.Close()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	if _, err := c.List(t.Context()); err == nil {
		t.Error("no error")
	}
}

func TestClient_endsWithItsContext(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if err := c.Pause(ctx, "iabc"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestError_waitsAsLongAsItIsTold(t *testing.T) {
	t.Parallel()
	tests := map[string]func(time.Duration) bool{
		"7":     func(d time.Duration) bool { return d == 7*time.Second },
		"":      func(d time.Duration) bool { return d == 0 },
		"-1":    func(d time.Duration) bool { return d == 0 },
		"soon":  func(d time.Duration) bool { return d == 0 },
		"1e999": func(d time.Duration) bool { return d == 0 },
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): func(d time.Duration) bool {
			return d > 59*time.Minute && d <= time.Hour
		},
		"Mon, 02 Jan 2006 15:04:05 GMT": func(d time.Duration) bool { return d == 0 },
	}
	for header, ok := range tests {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", header)
			e2b.WriteError(w, 429, "Rate limit exceeded")
		})
		var e *e2b.Error
		if err := c.Kill(t.Context(), "iabc"); !errors.As(err, &e) || !ok(e.RetryAfter) {
			t.Errorf("%q: got %v", header, err)
		}
	}
}

// pages is a host with n sandboxes, three to a page.
func pages(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("state") != "running,paused" || r.URL.Path != "/base/v2/sandboxes" {
			e2b.WriteError(w, 400, "bad query")
			return
		}
		first := 0
		if tok := q.Get("nextToken"); tok != "" {
			_, _ = fmt.Sscanf(tok, "t=%d&", &first)
		}
		list := []e2b.ListedSandbox{}
		for i := first; i < min(first+3, n); i++ {
			list = append(list, e2b.ListedSandbox{SandboxID: fmt.Sprintf("i%d", i), State: e2b.StatePaused})
		}
		if first+3 < n {
			// one is repeated on the next page, as in a list that moves
			w.Header().Set("X-Next-Token", fmt.Sprintf("t=%d&", first+2))
		}
		_ = json.NewEncoder(w).Encode(list)
	}
}

func TestList_readsAllPages(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 3, 10} {
		list, err := serve(t, pages(n)).List(t.Context())
		if err != nil || len(list) != n {
			t.Errorf("%d: got %d, %v", n, len(list), err)
		}
	}
}

func TestList_isWholeOrAnError(t *testing.T) {
	t.Parallel()
	tests := map[string]http.HandlerFunc{
		"null":          answer(200, "application/json", `null`),
		"object":        answer(200, "application/json", `{}`),
		"without ID":    answer(200, "application/json", `[{"state":"running"}]`),
		"without state": answer(200, "application/json", `[{"sandboxID":"iabc"}]`),
		"second page fails": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("nextToken") {
				e2b.WriteError(w, 500, "no")
				return
			}
			w.Header().Set("X-Next-Token", "x")
			_, _ = io.WriteString(w, `[]`)
		},
		"repeats a page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Next-Token", "same")
			_, _ = io.WriteString(w, `[]`)
		},
	}
	for name, h := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if list, err := serve(t, h).List(t.Context()); err == nil {
				t.Errorf("got %v", list)
			}
		})
	}
}

func TestCreate_wantsASandbox(t *testing.T) {
	t.Parallel()
	if sb, err := serve(t, answer(201, "application/json", `{"ok":true}`)).Create(t.Context(), e2b.NewSandbox{}); err == nil {
		t.Errorf("got %+v", sb)
	}
}

// What is left of a lifetime is a matter of the host's clock alone.
func TestClient_getTellsTheHostsTime(t *testing.T) {
	t.Parallel()
	hostNow := time.Now().Add(-time.Hour).Truncate(time.Second)
	body := `{"sandboxID":"iabc","state":"running","endAt":"` + hostNow.Add(5*time.Minute).UTC().Format(time.RFC3339) + `"}`
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", hostNow.UTC().Format(http.TimeFormat))
		answer(http.StatusOK, "application/json", body)(w, r)
	})
	got, err := c.Get(t.Context(), "iabc")
	if err != nil {
		t.Fatal(err)
	}
	if left := got.EndAt.Sub(got.AsOf); left > 5*time.Minute || left < 5*time.Minute-2*time.Second {
		t.Errorf("%s are left, want 5m", left)
	}
}
