package caddymodule

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
)

func init() {
	caddy.RegisterModule(OriginHost{})
	caddy.RegisterModule(E2BHost{})
}

// hostModule is what a module in the namespace sandman.hosts must be. Open is
// called when an engine starts, and the host closed after it has ended, so that
// a host outlives the configuration that its last requests came under.
type hostModule interface {
	// HostName is what the host is called, by configuration or by default.
	HostName() string
	Open(data string, logger *zap.Logger) (openHost, error)
}

// openHost is a host, and the way to its API for callers with a key of their
// own.
type openHost struct {
	engine.Host
	io.Closer
	base    *url.URL
	forward http.RoundTripper
	key     string
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// hostNames are such as can stand in a URL, a label and a log.
var hostNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// checkHostNames refuses two hosts of one name: the sandboxes of the second
// would be looked for at the first, and not found there.
func checkHostNames(hosts []hostModule) error {
	seen := make(map[string]bool)
	for _, h := range hosts {
		name := h.HostName()
		switch {
		case !hostNames.MatchString(name):
			return fmt.Errorf("a host can't be named %q: want up to 63 letters, digits, '.', '_' and '-'", name)
		case seen[name]:
			return fmt.Errorf("two hosts are named %q: give the one that is new a name of its own, by the option name in its block; "+
				"the other one must keep its name, by which its sandboxes are known", name)
		}
		seen[name] = true
	}
	return nil
}

// keyOr gives the configured key, else E2B_API_KEY, else the default.
func keyOr(configured string) string {
	if key := caddy.NewReplacer().ReplaceAll(configured, ""); key != "" {
		return key
	}
	if key := os.Getenv("E2B_API_KEY"); key != "" {
		return key
	}
	return sandboxd.DefaultAPIKey
}

// hostOptions reads a host's block, each of whose options has one argument.
func hostOptions(d *caddyfile.Dispenser, options map[string]*string) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		to, ok := options[d.Val()]
		if !ok {
			return d.Errf("unrecognized host option %s", d.Val())
		}
		if err := oneArg(d, to); err != nil {
			return err
		}
	}
	return nil
}

// OriginHost is a host that serves the E2B API and its sandboxes on one
// origin, such as cmd/sandboxd.
type OriginHost struct {
	// The URL of the host, `http://` or `https://`. Required.
	URL string `json:"url"`

	// What the host is called: in records, lists, the status and logs. Two hosts
	// can't have one name. Sandboxes are known by their host's name, and can't be
	// reached while no host has it. Default: `origin`.
	Name string `json:"name,omitempty"`

	// The API key. Placeholders such as `{env.HOST_KEY}` are replaced.
	// Default: the environment's `E2B_API_KEY`, else `e2b_` and 40 zeros.
	APIKey string `json:"api_key,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (OriginHost) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "sandman.hosts.origin",
		New: func() caddy.Module { return new(OriginHost) },
	}
}

// UnmarshalCaddyfile sets up the host:
//
//	host <url> {
//		name    <name>
//		api_key <key>
//	}
func (h *OriginHost) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the URL itself, or the module's name
	h.URL = d.Val()
	if h.URL == "origin" {
		if err := oneArg(d, &h.URL); err != nil {
			return err
		}
	} else if d.NextArg() {
		return d.ArgErr()
	}
	return hostOptions(d, map[string]*string{"name": &h.Name, "api_key": &h.APIKey})
}

// Validate checks the URL.
func (h *OriginHost) Validate() error {
	_, err := parseOrigin(h.URL)
	return err
}

// HostName implements hostModule.
func (h *OriginHost) HostName() string { return cmp.Or(h.Name, "origin") }

// Open implements hostModule.
func (h *OriginHost) Open(string, *zap.Logger) (openHost, error) {
	base, err := parseOrigin(h.URL)
	if err != nil {
		return openHost{}, err
	}
	forward := newAPITransport()
	r := &remoteHost{
		name: h.HostName(),
		api:  e2b.NewClient(base.String(), keyOr(h.APIKey), &http.Client{Transport: forward}),
		route: func(e2b.Target) engine.Route {
			return engine.Route{Addr: hostPort(base), TLS: base.Scheme == "https"}
		},
	}
	return openHost{Host: r, Closer: closeIdle(forward), base: base, forward: forward, key: keyOr(h.APIKey)}, nil
}

// E2BHost is E2B itself, or a host that gives each port of each sandbox a name
// of its own under a domain, as E2B does.
type E2BHost struct {
	// What the host is called: in records, lists, the status and logs. Two hosts
	// can't have one name. Sandboxes are known by their host's name, and can't be
	// reached while no host has it. Default: `e2b`.
	Name string `json:"name,omitempty"`

	// The API key. Placeholders such as `{env.HOST_KEY}` are replaced.
	// Default: the environment's `E2B_API_KEY`.
	APIKey string `json:"api_key,omitempty"`

	// The domain of the sandboxes, with a port if it is not 443: a sandbox's
	// port is `https://{port}-{sandboxID}.{domain}`. Default: `e2b.app`.
	Domain string `json:"domain,omitempty"`

	// The URL of the API. Default: `https://api.` and the domain.
	APIURL string `json:"api_url,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (E2BHost) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "sandman.hosts.e2b",
		New: func() caddy.Module { return new(E2BHost) },
	}
}

// UnmarshalCaddyfile sets up the host:
//
//	host e2b {
//		name    <name>
//		api_key <key>
//		domain  <domain>
//		api_url <url>
//	}
func (h *E2BHost) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume name
	if d.NextArg() {
		return d.ArgErr()
	}
	return hostOptions(d, map[string]*string{"name": &h.Name, "api_key": &h.APIKey, "domain": &h.Domain, "api_url": &h.APIURL})
}

// Provision fills in the defaults.
func (h *E2BHost) Provision(caddy.Context) error {
	if h.Domain == "" {
		h.Domain = "e2b.app"
	}
	if h.APIURL == "" {
		h.APIURL = "https://api." + h.Domain
	}
	return nil
}

// Validate checks the URL.
func (h *E2BHost) Validate() error {
	_, err := parseOrigin(h.APIURL)
	return err
}

// HostName implements hostModule.
func (h *E2BHost) HostName() string { return cmp.Or(h.Name, "e2b") }

// Open implements hostModule.
func (h *E2BHost) Open(string, *zap.Logger) (openHost, error) {
	base, err := parseOrigin(h.APIURL)
	if err != nil {
		return openHost{}, err
	}
	forward := newAPITransport()
	domain, port, err := net.SplitHostPort(h.Domain)
	if err != nil {
		domain, port = h.Domain, "443"
	}
	r := &remoteHost{
		name: h.HostName(),
		api:  e2b.NewClient(base.String(), keyOr(h.APIKey), &http.Client{Transport: forward}),
		route: func(t e2b.Target) engine.Route {
			name := t.String() + "." + domain
			return engine.Route{Addr: net.JoinHostPort(name, port), TLS: true, Host: t.String() + "." + h.Domain}
		},
	}
	return openHost{Host: r, Closer: closeIdle(forward), base: base, forward: forward, key: keyOr(h.APIKey)}, nil
}

// remoteHost is a host that is asked over the network.
type remoteHost struct {
	name  string
	api   *e2b.Client
	route func(e2b.Target) engine.Route
}

func (r *remoteHost) Name() string                             { return r.name }
func (r *remoteHost) Freezer() string                          { return "" }
func (r *remoteHost) API() *e2b.Client                         { return r.api }
func (r *remoteHost) Route(t e2b.Target) (engine.Route, error) { return r.route(t), nil }
func (r *remoteHost) Watch(func(id string)) (stop func())      { return func() {} }

// Admit implements engine.Host: a host over the network checks for itself.
func (r *remoteHost) Admit(http.ResponseWriter, *http.Request, e2b.Target) bool { return true }

// newAPITransport gives the transport for a host's API. Whoever calls bounds
// the call.
func newAPITransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
	}
}

func closeIdle(t *http.Transport) io.Closer {
	return closerFunc(func() error { t.CloseIdleConnections(); return nil })
}

func parseOrigin(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, &url.Error{Op: "parse", URL: s, Err: errNoOrigin}
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return u, nil
}

var errNoOrigin = originError("a host's URL is http://… or https://…")

type originError string

func (e originError) Error() string { return string(e) }

func hostPort(u *url.URL) string {
	if port := u.Port(); port != "" {
		return u.Host
	}
	port := 80
	if u.Scheme == "https" {
		port = 443
	}
	return net.JoinHostPort(u.Hostname(), strconv.Itoa(port))
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*OriginHost)(nil)
	_ caddy.Validator       = (*OriginHost)(nil)
	_ hostModule            = (*OriginHost)(nil)
	_ caddyfile.Unmarshaler = (*E2BHost)(nil)
	_ caddy.Provisioner     = (*E2BHost)(nil)
	_ caddy.Validator       = (*E2BHost)(nil)
	_ hostModule            = (*E2BHost)(nil)
)
