package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the http app and its handlers
)

// Whatever a configuration started ends with it: goroutines, etcds, clients. A
// client of etcd is shared by all configurations with the same etcd.
func TestReload_leavesNoGoroutineBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	dir, err := os.MkdirTemp("", "sm-") //nolint:usetesting // its name would be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	site := &socketSite{t: t, name: filepath.Join(dir, "http.sock")}

	opened := make(map[*openStore]bool)
	for n := range 20 {
		// the etcd changes halfway, and the idle timeout each time
		etcd := filepath.Join(dir, fmt.Sprintf("etcd%d", n/10))
		if err := caddy.Load(site.config(dir, etcd, time.Duration(3+n%2)*time.Second), true); err != nil {
			t.Fatalf("loading configuration %d: %v", n, err)
		}
		v, err := caddy.ActiveContext().App("sandman")
		if err != nil {
			t.Fatal(err)
		}
		opened[v.(*App).running.store] = true
		site.use()
	}
	if len(opened) != 2 {
		t.Errorf("%d clients of etcd were opened for 2 etcds", len(opened))
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	requireNoGoroutines(t, before)
	for s := range opened {
		if _, err := s.client.Get(t.Context(), "x"); err == nil {
			t.Error("a client of etcd is open still")
		}
	}
}

// requireNoGoroutines waits as long as the end of a former configuration may
// take.
func requireNoGoroutines(t *testing.T, before goleak.Option) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(stragglers + 20*time.Second); time.Now().Before(deadline); {
		if err = goleak.Find(before); err == nil {
			return
		}
	}
	t.Error(err)
}

// socketSite is a site of a configuration, on a unix socket.
type socketSite struct {
	t    *testing.T
	name string
}

func (s *socketSite) config(dir, etcd string, idle time.Duration) []byte {
	return fmt.Appendf(nil, `{
		"admin": {"disabled": true, "config": {"persist": false}},
		"logging": {"logs": {"default": {"level": "ERROR"}}},
		"storage": {"module": "file_system", "root": %[1]q},
		"apps": {
			"sandman": {
				"data": %[1]q, "idle_timeout": %[2]d, "etcd": {"embedded": true, "dir": %[3]q},
				"tokens": [{"name": "test", "role": "admin", "secret": "secret"}]
			},
			"http": {"servers": {"test": {
				"listen": ["unix/%[4]s"], "automatic_https": {"disable": true},
				"routes": [
					{"match": [{"path": ["/api/*"]}], "handle": [{"handler": "sandman_api"}]},
					{"handle": [
						{"handler": "sandman"},
						{"handler": "reverse_proxy", "upstreams": [{"dial": "sandbox:80"}], "transport": {"protocol": "sandman"}}
					]}
				]
			}}}
		}
	}`, dir, idle, etcd, s.name)
}

// use sends what reaches the engine: a request for the API, and one for a
// sandbox that its host must be asked for.
func (s *socketSite) use() {
	s.t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.name)
	}}
	defer transport.CloseIdleConnections()
	for url, status := range map[string]int{
		"http://localhost/api/v1/status":                     http.StatusOK,
		"http://8080-iaaaaaaaaaaaaaaaaaaaa.localhost/nobody": http.StatusNotFound,
	} {
		res := s.get(&http.Client{Transport: transport}, url)
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != status {
			s.t.Errorf("%s: %d %s, wanted %d", url, res.StatusCode, body, status)
		}
	}
}

// get sends the request again where its connection was dropped: one that comes
// while the former server closes its listener is not served by Caddy at all.
func (s *socketSite) get(client *http.Client, url string) *http.Response {
	s.t.Helper()
	var err error
	for range 3 {
		r, _ := http.NewRequestWithContext(s.t.Context(), http.MethodGet, url, nil) // the test's own URLs
		r.Header.Set("Authorization", "Bearer secret")
		var res *http.Response
		if res, err = client.Do(r); err == nil {
			return res
		}
		if !errors.Is(err, io.EOF) {
			break
		}
	}
	s.t.Fatal(err)
	return nil
}
