package caddymodule

import (
	"bytes"
	"cmp"
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
)

func init() {
	caddy.RegisterModule(LocalHost{})
}

// LocalHost runs sandboxes as process trees on this machine, in process: for
// development, tests and trusted code. Process trees are no security boundary.
type LocalHost struct {
	// What the host is called: in records, lists, the status and logs. Two hosts
	// can't have one name. Sandboxes are known by their host's name, and can't be
	// reached while no host has it. Default: `local`.
	Name string `json:"name,omitempty"`

	// The folder of the sandboxes, one folder each. No other process can use it.
	// Default: `sandboxes` in the app's data folder.
	Dir string `json:"dir,omitempty"`

	// The API key that callers of the E2B API must show. It takes effect when
	// the process starts.
	// Default: the environment's `E2B_API_KEY`, else `e2b_` and 40 zeros.
	APIKey string `json:"api_key,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (LocalHost) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "sandman.hosts.local",
		New: func() caddy.Module { return new(LocalHost) },
	}
}

// UnmarshalCaddyfile sets up the host:
//
//	host local {
//		name    <name>
//		dir     <dir>
//		api_key <key>
//	}
func (h *LocalHost) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume name
	if d.NextArg() {
		return d.ArgErr()
	}
	return hostOptions(d, map[string]*string{"name": &h.Name, "dir": &h.Dir, "api_key": &h.APIKey})
}

// localHosts keeps a host open as long as any configuration uses its folder.
var localHosts = caddy.NewUsagePool()

// HostName implements hostModule.
func (h *LocalHost) HostName() string { return cmp.Or(h.Name, "local") }

// Open implements hostModule.
func (h *LocalHost) Open(data string, logger *zap.Logger) (openHost, error) {
	dir := h.Dir
	if dir == "" {
		dir = filepath.Join(data, "sandboxes")
	}
	key := keyOr(h.APIKey)
	v, _, err := localHosts.LoadOrNew(dir, func() (caddy.Destructor, error) {
		return openLocal(dir, key, logger)
	})
	if err != nil {
		return openHost{}, err
	}
	local := v.(*localHost)
	release := func() error {
		_, err := localHosts.Delete(dir)
		return err
	}
	base := &url.URL{Scheme: "http", Host: "local"}
	return openHost{Host: namedHost{local, h.HostName()}, Closer: closerFunc(release), base: base, forward: inProcess{local.host.Handler()}, key: local.key}, nil
}

// localHost is a sandboxd of this process.
type localHost struct {
	host *sandboxd.Host
	api  *e2b.Client
	key  string // that the host was opened with

	mu       sync.Mutex // guards the following fields
	watchers map[int]func(id string)
	next     int
}

func openLocal(dir, key string, logger *zap.Logger) (*localHost, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	host, err := sandboxd.Open(context.Background(), sandboxd.Config{
		Dir: dir, APIKey: key, EnvdCommand: []string{self, envdCommand}, Logger: logger.Named("local"),
	})
	if err != nil {
		return nil, err
	}
	l := &localHost{host: host, key: key, watchers: make(map[int]func(string))}
	l.api = e2b.NewClient("http://local", key, &http.Client{Transport: inProcess{host.Handler()}})
	host.OnChange(l.changed)
	logger.Info("local sandboxes are process trees of this machine, and no security boundary",
		zap.String("folder", dir), zap.String("freezer", host.Freezer()))
	return l, nil
}

// Destruct implements caddy.Destructor. The sandboxes go on running.
func (l *localHost) Destruct() error { return l.host.Close() }

// namedHost is a localHost as one configuration calls it.
type namedHost struct {
	*localHost
	name string
}

func (n namedHost) Name() string { return n.name }

func (l *localHost) Freezer() string  { return l.host.Freezer() }
func (l *localHost) API() *e2b.Client { return l.api }

// Route implements engine.Host: the sandbox's own address, once it is known to
// run. A frozen process would accept the connection and never answer.
func (l *localHost) Route(t e2b.Target) (engine.Route, error) {
	at, err := l.host.Lookup(t.SandboxID)
	switch {
	case err != nil:
		return engine.Route{}, engine.ErrGone
	case at.State != sandboxd.StateRunning:
		return engine.Route{}, engine.ErrAsleep
	}
	return engine.Route{Addr: at.Addr(t.Port).String()}, nil
}

// Admit implements engine.Host.
func (l *localHost) Admit(w http.ResponseWriter, r *http.Request, t e2b.Target) bool {
	return l.host.Admit(w, r, t)
}

// Watch implements engine.Host.
func (l *localHost) Watch(paused func(id string)) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.next
	l.next++
	l.watchers[n] = paused
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers, n)
	}
}

func (l *localHost) changed(id string, state sandboxd.State) {
	if state != sandboxd.StatePaused {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, paused := range l.watchers {
		paused(id)
	}
}

// inProcess calls a handler as if it were a server. The answer is complete
// when it returns: for an API's answers, not for streams.
type inProcess struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &answer{header: make(http.Header)}
	in := r.Clone(r.Context())
	in.RequestURI = in.URL.RequestURI()
	if in.Host == "" {
		in.Host = in.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	p.handler.ServeHTTP(w, in)
	if r.Body != nil {
		_ = r.Body.Close()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.response(r), nil
}

// answer is an http.ResponseWriter that keeps what is written.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*LocalHost)(nil)
	_ hostModule            = (*LocalHost)(nil)
	_ engine.Host           = namedHost{}
)
