package engine_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/activity"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// server is the etcd of all tests but those that stop it; each has a prefix of
// its own.
var server *store.Embedded

// TestMain makes this program the envd of its sandboxes, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "envd" {
		os.Exit(sandboxd.EnvdMain(os.Args[2:]))
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "engine-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if server, err = store.OpenEmbedded(context.Background(), store.EmbeddedConfig{Dir: dir}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := server.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "closing etcd:", err)
		code = 1
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

const (
	// idle is short, and still longer than what a proxy needs to come back.
	idle     = 3 * time.Second
	leaseTTL = 2 * time.Second
	// lateness is what the tests allow on a machine that is busy with others.
	lateness = 5 * time.Second
)

// world is one host of real sandboxes and what was asked of it, and who is
// being served of what.
type world struct {
	t      *testing.T
	prefix string
	etcd   *store.Client
	host   *sandboxd.Host
	direct *e2b.Client // not through the checks: another tool
	api    *e2b.Client

	mu     sync.Mutex // guards the following fields
	served map[string]int
	calls  map[string][]call
	inCall map[string]int
	gate   func(kind, id string) // runs before a call goes to the host
}

// call is one pause or connect call, from its arrival to its answer.
type call struct {
	kind   string
	began  time.Time
	status int
}

func newWorld(t *testing.T) *world { return newWorldOn(t, server.Client()) }

func newWorldOn(t *testing.T, etcd *store.Client) *world {
	t.Helper()
	w := &world{
		t: t, etcd: etcd, prefix: "/" + url.PathEscape(t.Name()) + "-" + rand.Text() + "/", // -count comes to the same etcd
		served: map[string]int{}, calls: map[string][]call{}, inCall: map[string]int{}, gate: func(string, string) {},
	}
	var err error
	if w.host, err = sandboxd.Open(t.Context(), sandboxd.Config{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	direct, checked := httptest.NewServer(w.host.Handler()), httptest.NewServer(http.HandlerFunc(w.serve))
	w.direct = e2b.NewClient(direct.URL, sandboxd.DefaultAPIKey, nil)
	w.api = e2b.NewClient(checked.URL, sandboxd.DefaultAPIKey, nil)
	t.Cleanup(func() {
		w.host.SetFaults(sandboxd.Faults{})
		ctx := context.WithoutCancel(t.Context())
		all, err := w.direct.List(ctx)
		for _, sb := range all {
			_ = w.direct.Kill(ctx, sb.SandboxID)
		}
		direct.Close()
		checked.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		if closing := w.host.Close(); err != nil || closing != nil {
			t.Errorf("closing the host: %v, %v", err, closing)
		}
	})
	return w
}

// serve is the host's API, with the promise checked at each pause call, from
// its arrival to its answer: nothing that counts is being served.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	id, kind, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/sandboxes/"), "/")
	if r.Method != http.MethodPost || (kind != "pause" && kind != "connect") {
		w.host.Handler().ServeHTTP(rw, r)
		return
	}
	w.mu.Lock()
	gate := w.gate
	w.mu.Unlock()
	gate(kind, id)
	began := time.Now()
	if kind == "pause" {
		w.pausing(id, 1)
	}
	answer := &recorder{ResponseWriter: rw}
	w.host.Handler().ServeHTTP(answer, r)
	if kind == "pause" {
		w.pausing(id, -1)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[id] = append(w.calls[id], call{kind, began, answer.status})
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (w *world) pausing(id string, by int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inCall[id] += by
	w.unsyncedCheck(id, "a pause call")
}

// serving notes that the proxies serve one more of a sandbox, or one less.
func (w *world) serving(id string, by int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.served[id] += by
	if by > 0 {
		w.unsyncedCheck(id, "a request was let in")
	}
}

func (w *world) unsyncedCheck(id, when string) {
	if w.inCall[id] > 0 && w.served[id] > 0 {
		w.t.Errorf("%s: a pause call for %s is under way while %d requests count, want never both", when, id, w.served[id])
	}
}

// made gives the calls of a kind that were answered.
func (w *world) made(id, kind string) []call {
	w.mu.Lock()
	defer w.mu.Unlock()
	var of []call
	for _, c := range w.calls[id] {
		if c.kind == kind {
			of = append(of, c)
		}
	}
	return of
}

func (w *world) setGate(gate func(kind, id string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gate = gate
}

// node is one engine on the world.
type node struct {
	*engine.Engine
	w     *world
	close func()
}

// start starts an engine, which is closed with the test unless it was before.
func (w *world) start(change func(c *engine.Config)) *node {
	w.t.Helper()
	cfg := engine.Config{
		Prefix: w.prefix, IdleTimeout: idle, CheckEvery: time.Hour, LeaseTTL: leaseTTL, Drain: time.Second,
		ActivityResolution: 100 * time.Millisecond, Hosts: []engine.Host{local{w}}, Logger: zap.NewNop(),
	}
	if change != nil {
		change(&cfg)
	}
	e, err := engine.New(w.etcd, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	e.Start()
	n := &node{Engine: e, w: w, close: sync.OnceFunc(e.Close)}
	w.t.Cleanup(n.close)
	if err := e.Ready(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	n.eventually("the engine leads or follows", func() bool {
		s := e.Status(w.t.Context())
		return s.Store.OK && s.Leader.Node != ""
	})
	return n
}

// eventually polls what has no event of its own.
func (n *node) eventually(what string, done func() bool) {
	n.w.t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			n.w.t.Fatalf("after 30s it is still not so that %s", what)
		case <-tick.C:
		}
	}
}

func (n *node) await(id string, want session.State) {
	n.w.t.Helper()
	n.eventually(fmt.Sprintf("%s is %s (it is %s)", id, want, n.State(id)), func() bool { return n.State(id) == want })
}

// create makes a sandbox that is known and runs.
func (n *node) create() string {
	n.w.t.Helper()
	sb, err := n.Create(n.w.t.Context(), e2b.NewSandbox{TemplateID: "base"}, "")
	if err != nil {
		n.w.t.Fatal(err)
	}
	return sb.SandboxID
}

// sleeping makes a sandbox that is PAUSED.
func (n *node) sleeping() string {
	n.w.t.Helper()
	id := n.create()
	n.pause(id, false)
	return id
}

// request is a request that is being served.
type request struct {
	*activity.Visit
	w    *world
	id   string
	once sync.Once
}

// end is the end of its answer; it may be called again.
func (r *request) end() {
	r.once.Do(func() {
		r.w.serving(r.id, -1)
		r.End()
	})
}

// try serves a request until its end.
func (n *node) try(ctx context.Context, id string, cause wake.Cause) (*request, error) {
	v := n.Visit(id, "request")
	if err := n.Ensure(ctx, id, v, cause); err != nil {
		v.End()
		return nil, err
	}
	n.w.serving(id, 1)
	return &request{Visit: v, w: n.w, id: id}, nil
}

// request serves a request, and fails the test where it isn't served by a
// sandbox that runs.
func (n *node) request(id string) *request {
	n.w.t.Helper()
	r, err := n.try(n.w.t.Context(), id, wake.Cause{Reason: "request: GET /", Kind: "request"})
	if err != nil {
		n.w.t.Fatalf("a request was not served: %v", err)
	}
	n.w.wantAtHost("while a request is served", id, e2b.StateRunning)
	return r
}

func (w *world) wantAtHost(when, id string, want e2b.State) {
	w.t.Helper()
	got, err := w.direct.Get(w.t.Context(), id)
	if err != nil || got.State != want {
		w.t.Errorf("%s: the host says %q, %v; want %q", when, got.State, err, want)
	}
}

// local is engine.Host on the world's sandboxes.
type local struct{ w *world }

func (local) Name() string                                              { return "local" }
func (local) Freezer() string                                           { return "test" }
func (local) Admit(http.ResponseWriter, *http.Request, e2b.Target) bool { return true }
func (l local) API() *e2b.Client                                        { return l.w.api }
func (l local) Route(t e2b.Target) (engine.Route, error) {
	at, err := l.w.host.Lookup(t.SandboxID)
	switch {
	case err != nil:
		return engine.Route{}, engine.ErrGone
	case at.State != sandboxd.StateRunning:
		return engine.Route{}, engine.ErrAsleep
	}
	return engine.Route{Addr: at.Addr(t.Port).String()}, nil
}

func (l local) Watch(paused func(id string)) (stop func()) {
	var mu sync.Mutex
	over := false
	l.w.host.OnChange(func(id string, state sandboxd.State) {
		mu.Lock()
		defer mu.Unlock()
		if !over && state == sandboxd.StatePaused {
			paused(id)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
	}
}
