package caddymodule

import (
	"errors"
	"fmt"
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
	// What may wake a sandbox of this site, unless it has a policy of its own
	// (`wakePolicy` in the API). `any`: each request. `intent`: each one that a
	// person may be behind, so programs, navigations and what pages ask for, but no
	// favicon, prefetch, bot, service worker's script, nor what another site's page
	// shows of this one. Reconnects of pages that were open at the pause do so
	// `reconnect_wakes` times a day. `manual`: only the API, or the button of the
	// page that navigations get. Whatever is refused is answered at once with 503.
	// Default: `intent`.
	Wake string `json:"wake,omitempty"`

	// How many times a day (UTC) pages that were open when a sandbox was paused may
	// wake it by themselves: by a WebSocket handshake, an EventSource, or a reload
	// by script. A laptop that is opened finds its editors alive, and a forgotten
	// tab costs no more than as many idle timeouts a day. Default: 6.
	ReconnectWakes *int `json:"reconnect_wakes,omitempty"`

	// How long a navigation is held while its sandbox wakes, before it is answered
	// with a page that opens the address again as soon as the sandbox runs.
	// Default: 2s.
	PageAfter caddy.Duration `json:"page_after,omitempty"`

	// Whose messages in a WebSocket count, but for noise: `client`, `both`, or
	// `none`, where open WebSockets keep nothing awake. `both` lets a program that
	// prints keep its sandbox awake though nobody looks. Default: `client`.
	Count string `json:"count,omitempty"`

	// Which apps' noise is known without a rule, or `none`. Presets only take effect
	// where an app shows itself by its paths, protocols or messages. Default: all
	// that there are: `browser`, `jupyter`, `next`, `shellinabox`, `socket.io`,
	// `vite`, `vscode`, `webpack`, `xterm`.
	Presets []string `json:"presets,omitempty"`

	// What else no person sends. Such a request is forwarded to a sandbox that runs,
	// without keeping it awake, and answered with 503 else; such a message reaches
	// the app, after the next wake if it came while the sandbox slept.
	Noise []NoiseRule `json:"noise,omitempty"`

	policy   wake.Policy
	counting *counting
	app      *App
	logger   *zap.Logger
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
	h.policy = wake.Policy{Rule: wake.Rule(h.Wake), ReconnectWakes: wake.DefaultReconnectWakes}
	if h.ReconnectWakes != nil {
		h.policy.ReconnectWakes = *h.ReconnectWakes
	}
	if h.PageAfter == 0 {
		h.PageAfter = caddy.Duration(DefaultPageAfter)
	}
	if err := h.provisionCounting(ctx); err != nil {
		return err
	}
	if err := shareSockets(ctx); err != nil {
		return err
	}
	h.app, err = appOf(ctx)
	return err
}

// Validate checks the values.
func (h *Handler) Validate() error {
	switch h.policy.Rule {
	case "", wake.WakeAny, wake.WakeIntent, wake.WakeManual:
	default:
		return fmt.Errorf("wake %q: want any, intent or manual", h.Wake)
	}
	if h.policy.ReconnectWakes < 0 {
		return errors.New("reconnect_wakes must not be negative")
	}
	if h.PageAfter < 0 {
		return errors.New("page_after must not be negative")
	}
	return nil
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	target, err := e2b.ParseTarget(r.Host, r.Header)
	if err != nil {
		return refuse(w, r, target, err)
	}
	e, err := h.app.use(r.Context())
	if err != nil {
		return refuse(w, r, target, err)
	}
	defer e.uses.end()
	if !e.Admit(w, r, target) {
		return nil
	}
	if strings.HasPrefix(r.URL.Path, wellKnown) {
		return h.serveWellKnown(w, r, e, target)
	}
	f := &flight{
		gate: h, engine: e, target: target, visit: e.Visit(target.SandboxID, "request"),
		state: e.State(target.SandboxID), writer: w, arrived: r, counting: h.counting,
	}
	replacerOf(r).Map(f.placeholder)
	if isProbe(r, target) {
		return f.probe(w, r, next)
	}
	if rule, ok := h.counting.noise.Request(r); ok {
		if f.reopens = f.isReopening(); !f.reopens {
			return f.serveNoise(w, r, next, rule)
		}
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
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
