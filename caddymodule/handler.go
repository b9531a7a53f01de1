package caddymodule

import (
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/wake"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler is the gate in front of sandboxes. It finds out which sandbox a
// request is for, makes sure that it runs, holding the request while it wakes,
// and keeps it awake while the request is being served. What comes after it in
// the route must be a `reverse_proxy` with the transport `sandman`, as
// `sandman_proxy` sets it up.
//
// A sandbox is named by the leftmost label of the host, `{port}-{sandboxID}`,
// or, where the host is localhost, an IP address or begins with `sandbox.`, by
// the headers `E2b-Sandbox-Id` and `E2b-Sandbox-Port`. Other hosts are answered
// with 404.
//
// Placeholders:
//
// Placeholder | Description
// ------------|-------------
// `{http.sandman.id}` | The sandbox's ID
// `{http.sandman.port}` | The port in the sandbox
// `{http.sandman.state}` | The sandbox's state when the request came
// `{http.sandman.held_ms}` | How long the request was held, in milliseconds
type Handler struct {
	app    *App
	logger *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sandman",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets up h.
func (h *Handler) Provision(ctx caddy.Context) (err error) {
	h.logger = ctx.Logger()
	h.app, err = appOf(ctx)
	return err
}

// wellKnown is the part of a sandbox's address that is Sandman's own.
const wellKnown = "/.well-known/sandman/"

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	target, err := e2b.ParseTarget(r.Host, r.Header)
	if err != nil {
		return refuse(w, r, target, err)
	}
	if strings.HasPrefix(r.URL.Path, wellKnown) {
		return refuse(w, r, target, errWellKnown)
	}
	e, err := h.app.use(r.Context())
	if err != nil {
		return refuse(w, r, target, err)
	}
	defer e.uses.end()
	if !e.Admit(w, r, target) {
		return nil
	}
	f := &flight{
		engine: e, target: target, visit: e.Visit(target.SandboxID, "request"),
		state: e.State(target.SandboxID), writer: w, arrived: r,
	}
	replacerOf(r).Map(f.placeholder)
	if isProbe(r, target) {
		return f.probe(w, r, next)
	}
	return f.serve(w, r, next)
}

// envdPort is where a sandbox's own daemon serves commands and files.
// Source: E2B's envd, see the SDKs.
const envdPort = 49983

// isProbe tells whether the request is the SDK's isRunning.
func isProbe(r *http.Request, t e2b.Target) bool {
	return t.Port == envdPort && r.Method == http.MethodGet && r.URL.Path == "/health"
}

// sdkHold is how long an SDK's call is held: its own limit is 60 s, and it
// does not repeat calls to a sandbox.
const sdkHold = 55 * time.Second

// causeOf is why a request wakes the sandbox. Most wake none.
func causeOf(r *http.Request, t e2b.Target) wake.Cause {
	return wake.Cause{Reason: "request: " + r.Method + " " + shortened(r.URL.Path), Kind: "request", Hold: holdOf(t)}
}

// holdOf is how long a request is held, 0: for the default.
func holdOf(t e2b.Target) time.Duration {
	if t.Port == envdPort {
		return sdkHold
	}
	return 0
}

// shortened keeps what histories and logs repeat of a path within bounds.
func shortened(path string) string {
	const most = 80
	if len(path) <= most {
		return path
	}
	return strings.ToValidUTF8(path[:most], "") + "…"
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
