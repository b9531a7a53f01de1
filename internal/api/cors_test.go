package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
)

func TestCORS_onlyForConfiguredOrigins(t *testing.T) {
	t.Parallel()
	m := newMemory()
	const app = "https://app.example.com"
	ask := func(origins []string, method, origin string) http.Header {
		c := configured(t, m, func(cfg *api.Config) { cfg.AllowOrigins = origins })
		r := httptest.NewRequest(method, "/api/v1/status", nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Authorization", "Bearer "+viewer)
		if method == http.MethodOptions {
			r.Header.Del("Authorization") // a browser asks without
			r.Header.Set("Access-Control-Request-Method", "GET")
			r.Header.Set("Access-Control-Request-Headers", "authorization")
		}
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		if preflight := w.Code == http.StatusNoContent; preflight != (method == http.MethodOptions && w.Header().Get("Access-Control-Allow-Methods") != "") {
			t.Errorf("%s from %s: %d %v", method, origin, w.Code, w.Header())
		}
		return w.Header()
	}
	for _, tt := range []struct {
		origins []string
		origin  string
		want    string
	}{
		{nil, app, ""},
		{[]string{app}, app, app},
		{[]string{"https://other.example.com", app}, app, app},
		{[]string{app}, "https://app.example.com.evil.example", ""},
		{[]string{app}, "http://app.example.com", ""},
		{[]string{app}, "null", ""},
		{[]string{app}, "", ""},
		{[]string{"*"}, app, "*"},
	} {
		for _, method := range []string{"GET", "OPTIONS"} {
			h := ask(tt.origins, method, tt.origin)
			if got := h.Get("Access-Control-Allow-Origin"); got != tt.want || h.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s %+v: %v", method, tt, h)
			}
			if tt.origins != nil && h.Get("Vary") != "Origin" {
				t.Errorf("%s %+v: caches are not told: %v", method, tt, h)
			}
			if allowed := strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization"); allowed != (tt.want != "" && method == "OPTIONS") {
				t.Errorf("%s %+v: %v", method, tt, h)
			}
		}
	}
}

func TestCORS_whatIsNoOrigin(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "app.example.com", "https://app.example.com/", "https://App.example.com", "https://app.example.com:443", "http://a:80", "https://u@a", "null", "https://*"} {
		if err := api.CheckOrigins([]string{bad}); err == nil && bad != "https://*" {
			t.Errorf("%q is taken", bad)
		}
	}
	if err := api.CheckOrigins([]string{"*", "https://a"}); err == nil {
		t.Error("* and others are taken")
	}
	if err := api.CheckOrigins([]string{"https://a:8443", "http://localhost:3000"}); err != nil {
		t.Error(err)
	}
}

func TestRateLimit_isEachTokensOwn(t *testing.T) {
	t.Parallel()
	newClient(t, newMemory(), zap.NewNop()) // the first one compiles the file
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.put("ia", "alice", "")
		m.put("ib", "alice", "")
		c := configured(t, m, func(cfg *api.Config) { cfg.RateLimit = api.RateLimit{PerSecond: 2, Burst: 3} })
		get := func(secret string) answer { return c.call(t, secret, "GET", sandboxes+"/ia", "") }
		for i := range 3 {
			if a := get(viewer); a.status != http.StatusOK {
				t.Fatalf("%d: %s", i, a)
			}
		}
		for range 5 { // refusals cost nothing
			a := get(viewer)
			if a.status != http.StatusTooManyRequests || a.code(t) != "rate-limited" || a.header.Get("Retry-After") != "1" {
				t.Fatalf("%s", a)
			}
		}
		if a := get(alice); a.status != http.StatusOK {
			t.Errorf("another token: %s", a)
		}
		time.Sleep(500 * time.Millisecond)
		if a := get(viewer); a.status != http.StatusOK {
			t.Errorf("half a second later: %s", a)
		}
		// the badges of one sandbox share a limit, those of another have theirs
		one, two := c.badge(t, admin, "ia"), c.badge(t, admin, "ia", "hold")
		other := c.badge(t, admin, "ib")
		for _, badge := range []string{one, two, one} {
			if a := get(badge); a.status != http.StatusOK {
				t.Errorf("%s", a)
			}
		}
		if a := get(two); a.status != http.StatusTooManyRequests {
			t.Errorf("%s", a)
		}
		if a := c.call(t, other, "GET", sandboxes+"/ib", ""); a.status != http.StatusOK {
			t.Errorf("%s", a)
		}
	})
}
