package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// site is an operator's own site in front of sandboxes, beside the quick start's.
const site = `https://*.sand.test:TLSPORT {
	bind 127.0.0.1
	tls internal
	encode gzip
	log {
		output stdout
		format json
	}
	log_append seen_id {http.sandman.id}
	log_append seen_port {http.sandman.port}
	log_append seen_state {http.sandman.state}
	log_append seen_held {http.sandman.held_ms}
	handle_path /private/* {
		basic_auth {
			ann HASH
		}
		sandman_proxy
	}
	handle_path /guarded/* {
		forward_auth AUTH {
			uri /auth
		}
		sandman_proxy
	}
	sandman_proxy
}

http://:{$SANDMAN_PORT:8080} {`

func TestSites_authenticateBeforeTheyWake(t *testing.T) {
	t.Parallel()
	s, site := startSite(t, 0)
	id, before := s.startAppIn(t)
	for n, tt := range []struct {
		path string
		user func(*http.Request)
	}{
		{"/private/state", func(r *http.Request) { r.SetBasicAuth("ann", "secret") }},
		{"/guarded/state", func(r *http.Request) { r.Header.Set("X-User", "ann") }},
	} {
		s.pause(t, id)
		if a := site.get(t, id, tt.path, func(*http.Request) {}); a.status != http.StatusUnauthorized {
			t.Errorf("%s without credentials: %s", tt.path, a)
		}
		if r := s.record(t, id); r.State != "PAUSED" || r.Totals.Wakes != n {
			t.Errorf("a request that was turned away woke the sandbox: %+v", r)
		}
		var state appState
		a := site.get(t, id, tt.path, tt.user)
		a.decode(t, &state)
		requireContinued(t, before, state, int64(n+1))
	}
	s.requireTold(t, id)
}

// requireTold fails the test unless events and the access log tell of two sleeps that requests ended.
func (s *sandman) requireTold(t *testing.T, id string) {
	t.Helper()
	want := regexp.MustCompile(`"sandbox":"` + id + `","held":0\.\d+,"seen_held":\d+,"seen_state":"PAUSED","seen_port":8080,"seen_id":"` + id + `"`)
	eventually(t, 2*time.Second, "an access log with "+want.String(), func() bool { return want.MatchString(s.process.log.String()) })
	for _, event := range []string{"sandman_paused", "sandman_resumed"} {
		eventually(t, 2*time.Second, "two events "+event, func() bool {
			return strings.Count(s.process.log.String(), `"name":"`+event+`"`) == 2
		})
	}
}

func TestSites_encodeAndSpeakHTTP2(t *testing.T) {
	t.Parallel()
	s, site := startSite(t, 0)
	id, _ := s.startAppIn(t)
	s.pause(t, id)
	text := strings.Repeat("sleep and wake ", 1000)
	r := site.request(t, id, http.MethodPost, "/echo", text)
	r.Header.Set("Accept-Encoding", "gzip")
	res, err := site.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.ProtoMajor != 2 || res.StatusCode != http.StatusOK || res.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("answered by HTTP/%d with %d and %v", res.ProtoMajor, res.StatusCode, res.Header)
	}
	r = site.request(t, id, http.MethodPost, "/echo", text)
	if a := (&e2b{http: site.http}).mustDo(t, r); a.body != text {
		t.Errorf("another text came back: %s", a)
	}
}

// ownCertificates are the global options of a Caddyfile with `tls internal`. Caddy cleans its storage at
// the start, while it makes the certificate, whose folder it may take away as long as that is empty: so
// not here.
const ownCertificates = "persist_config off\n\tstorage_clean_interval off\n\tskip_install_trust\n\tauto_https disable_redirects"

// ownSite is a client of an operator's own site.
type ownSite struct {
	http *http.Client
	port int
}

// startSite starts a Sandman that has it; idle 0 is the default.
func startSite(t *testing.T, idle time.Duration) (*sandman, *ownSite) {
	t.Helper()
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-User") != "ann" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(auth.Close)
	hash, err := exec.CommandContext(t.Context(), sandmanBinary, "hash-password", "--plaintext", "secret").Output()
	if err != nil {
		t.Fatalf("hashing a password: %v", err)
	}
	own := &ownSite{port: freePort(t)}
	text := strings.NewReplacer("TLSPORT", fmt.Sprint(own.port), "HASH", strings.TrimSpace(string(hash)), "AUTH", strings.TrimPrefix(auth.URL, "http://")).Replace(site)
	s := start(t, options{idle: idle, caddyfile: strings.NewReplacer(
		"http://:{$SANDMAN_PORT:8080} {", text,
		"persist_config off", ownCertificates+"\n\tdebug",
	)})
	own.http = &http.Client{Transport: &http.Transport{
		DialContext: dialTo(fmt.Sprintf("127.0.0.1:%d", own.port)), ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // a CA of the test's own
	}}
	t.Cleanup(own.http.CloseIdleConnections)
	// the certificate is made after the start
	eventually(t, readyWithin, "a certificate", func() bool {
		return strings.Contains(s.process.log.String(), "certificate obtained successfully")
	})
	eventually(t, readyWithin, "its use", func() bool {
		_, err := (&e2b{http: own.http}).do(own.request(t, "none", http.MethodGet, "/", ""))
		return err == nil
	})
	return s, own
}

// dialTo leads to the address, whatever is asked for.
func dialTo(address string) func(ctx context.Context, _, _ string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
}

func (o *ownSite) request(t *testing.T, id, method, path, body string) *http.Request {
	t.Helper()
	return newRequest(t, method, fmt.Sprintf("https://%d-%s.sand.test:%d%s", appPort, id, o.port, path), strings.NewReader(body))
}

func (o *ownSite) get(t *testing.T, id, path string, with func(*http.Request)) answer {
	t.Helper()
	r := o.request(t, id, http.MethodGet, path, "")
	with(r)
	return (&e2b{http: o.http}).mustDo(t, r)
}

// The repository's Caddyfile is what its own commands find nothing wrong with.
func TestCaddyfile_isValidAndFormatted(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	name := filepath.Join(repository, "Caddyfile")
	for _, args := range [][]string{{"validate", "--config", name}, {"fmt", "--diff", name}} {
		cmd := exec.CommandContext(t.Context(), sandmanBinary, args...)
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("sandman %s: %v\n%s", args[0], err, out)
		}
		for line := range strings.Lines(string(out)) {
			if args[0] == "fmt" && (strings.HasPrefix(line, "+") || strings.HasPrefix(line, "-")) {
				t.Errorf("sandman fmt would change %q", line)
			}
		}
	}
}
