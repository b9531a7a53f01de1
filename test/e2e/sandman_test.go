package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	token = "test-admin-token-0123456789abcdef"

	// late is how long after its deadline a pause may be observed, its own duration included.
	late = 5 * time.Second
)

// options says how a Sandman is started. The zero value is the quick start: the local host, the
// default idle timeout, a folder of its own.
type options struct {
	idle time.Duration // SANDMAN_IDLE_TIMEOUT
	host string        // SANDMAN_HOST
	data string        // SANDMAN_DATA, to start again on what another one left
	port int           // SANDMAN_PORT, to start again where another one listened

	demo bool // SANDMAN_DEMO

	etcd      string // SANDMAN_ETCD
	failpoint string // the mark at which it dies, see internal/failpoint
	godebug   string // GODEBUG

	caddyfile *strings.Replacer // what is another in the repository's Caddyfile
}

// sandman is the program under test. Its E2B API and data plane are its own fields.
type sandman struct {
	*e2b
	port    int
	url     string
	dir     string // SANDMAN_DATA
	idle    time.Duration
	host    string // SANDMAN_HOST
	process *process
}

// start runs the built binary with the repository's Caddyfile and waits until it answers. At the end
// of the test its sandboxes are killed, and then it is ended.
func start(t *testing.T, o options) *sandman {
	t.Helper()
	if o.data == "" {
		o.data = filepath.Join(shortDir(t), "d")
	}
	port := o.port
	if port == 0 {
		port = freePort(t)
	}
	s := &sandman{port: port, url: local(port), dir: o.data, idle: o.idle, host: o.host, e2b: newE2B(local(port)+"/e2b", local(port))}
	s.process = startProcess(t, filepath.Dir(o.data), s.environment(o), o.binary(t), "run", "--config", o.config(t))
	s.process.await(t, func() bool {
		a, err := s.do(s.apiRequest(t, http.MethodGet, "/status", ""))
		return err == nil && a.status == http.StatusOK
	})
	t.Cleanup(func() {
		if !s.process.ended() {
			s.killAll(t)
		}
	})
	return s
}

// binary returns the program to run.
func (o options) binary(t *testing.T) string {
	t.Helper()
	if o.failpoint == "" {
		return sandmanBinary
	}
	name, err := failpointBinary()
	if err != nil {
		t.Fatalf("building with failpoints: %v", err)
	}
	return name
}

// config returns the name of the Caddyfile to run.
func (o options) config(t *testing.T) string {
	t.Helper()
	name := filepath.Join(repository, "Caddyfile")
	if o.caddyfile == nil {
		return name
	}
	quickStart, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	name = filepath.Join(filepath.Dir(o.data), "Caddyfile")
	if err := os.WriteFile(name, []byte(o.caddyfile.Replace(string(quickStart))), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func (s *sandman) environment(o options) map[string]string {
	env := map[string]string{
		"SANDMAN_PORT":  strconv.Itoa(s.port),
		"SANDMAN_DATA":  o.data,
		"SANDMAN_TOKEN": token,
	}
	if o.idle > 0 {
		env["SANDMAN_IDLE_TIMEOUT"] = o.idle.String()
	}
	if o.host != "" {
		env["SANDMAN_HOST"] = o.host
	}
	if o.demo {
		env["SANDMAN_DEMO"] = "1"
	}
	if o.etcd != "" {
		env["SANDMAN_ETCD"] = o.etcd
	}
	if o.failpoint != "" {
		env["SANDMAN_FAILPOINT"] = o.failpoint
	}
	if o.godebug != "" {
		env["GODEBUG"] = o.godebug
	}
	if !hasIPv6Loopback() {
		env["SANDMAN_BIND"] = "127.0.0.1"
	}
	return env
}

func (s *sandman) apiRequest(t *testing.T, method, path, body string) *http.Request {
	t.Helper()
	r := newRequest(t, method, s.url+"/api/v1"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// call calls Sandman's own API as an administrator.
func (s *sandman) call(t *testing.T, method, path, body string) answer {
	t.Helper()
	r := s.apiRequest(t, method, path, body)
	a := s.mustDo(t, r)
	s.requireAsDocumented(t, r, a)
	return a
}

// record is what the tests read of a sandbox as the API shows it.
type record struct {
	SandboxID    string     `json:"sandboxID"`
	State        string     `json:"state"`
	Reason       string     `json:"reason"`
	Since        time.Time  `json:"since"`
	IdleTimeout  string     `json:"idleTimeout"`
	LastActivity *time.Time `json:"lastActivity"`
	AwakeBecause []string   `json:"awakeBecause"`
	PauseAt      *time.Time `json:"pauseAt"`
	Totals       struct {
		Pauses int `json:"pauses"`
		Wakes  int `json:"wakes"`
	} `json:"totals"`
}

// record reads the sandbox's record, which neither wakes it nor counts as activity.
func (s *sandman) record(t *testing.T, id string) record {
	t.Helper()
	a := s.call(t, http.MethodGet, "/sandboxes/"+id, "")
	if a.status != http.StatusOK {
		t.Fatalf("reading sandbox %s: %s", id, a)
	}
	var r record
	a.decode(t, &r)
	return r
}

// awaitState polls until the sandbox is in the state.
func (s *sandman) awaitState(t *testing.T, limit time.Duration, id, state string) {
	t.Helper()
	for deadline := time.Now().Add(limit); s.record(t, id).State != state; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s sandbox %s is still not %s: %s", limit, id, state, s.why(t, id))
		}
	}
}

// why is what Sandman itself says of a sandbox's state, as it says it.
func (s *sandman) why(t *testing.T, id string) string {
	t.Helper()
	return s.call(t, http.MethodGet, "/sandboxes/"+id+"/why", "").body
}

// pause pauses by hand, and fails the test unless that was done.
func (s *sandman) pause(t *testing.T, id string) {
	t.Helper()
	a := s.call(t, http.MethodPost, "/sandboxes/"+id+"/pause", "")
	if a.status != http.StatusOK {
		t.Fatalf("pausing sandbox %s: %s", id, a)
	}
	if state := s.record(t, id).State; state != "PAUSED" {
		t.Fatalf("sandbox %s was paused by hand and is %s", id, state)
	}
}

// startAppIn makes a sandbox with the app in it and returns its ID and the app's first state.
func (s *sandman) startAppIn(t *testing.T) (string, appState) {
	t.Helper()
	id := s.create(t)
	return id, s.startApp(t, id)
}

// problem is an error body of RFC 9457.
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

// requireProblem fails the test unless the answer is problem+json with the status.
func requireProblem(t *testing.T, a answer, status int) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != status || p.Status != status ||
		!strings.HasPrefix(a.header.Get("Content-Type"), "application/problem+json") {
		t.Errorf("wanted problem+json with status %d, got %s", status, a)
	}
	return p
}
