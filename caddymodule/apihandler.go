package caddymodule

import (
	"cmp"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/store"
)

func init() {
	caddy.RegisterModule(API{})
	caddy.RegisterModule(E2BAPI{})
}

// API answers Sandman's own API under /api/v1, described by
// /api/v1/openapi.json. Its bearer tokens are those of the app.
type API struct{ lateHandler }

// CaddyModule returns the Caddy module information.
func (API) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sandman_api",
		New: func() caddy.Module { return new(API) },
	}
}

// Provision sets up a.
func (a *API) Provision(ctx caddy.Context) error {
	return a.provision(ctx, func(app *App, e *runningEngine) (http.Handler, error) {
		return api.New(api.Config{
			Version: version(), Reader: e, Actor: e, Tokens: app.tokens, Ending: app.serving, Log: app.logger.Named("api"),
			PricePerMinute: app.PricePerMinute, HostTimeout: cmp.Or(time.Duration(app.HostTimeout), store.DefaultHostTimeout),
		})
	})
}

// parseAPI parses the sandman_api directive:
//
//	sandman_api [<matcher>]
func parseAPI(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	return new(API), noArgs(h)
}

// E2BAPI passes the E2B API on to the first host, for SDKs that are pointed at
// it, and keeps track of what is created, paused, resumed and killed through
// it. The path prefix that it stands under must be stripped (`handle_path`).
type E2BAPI struct {
	// The domain that answers tell the SDK instead of the host's own, so that
	// `getHost` leads through Sandman. Default: the host's.
	Domain string `json:"domain,omitempty"`

	lateHandler
}

// CaddyModule returns the Caddy module information.
func (E2BAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sandman_e2b",
		New: func() caddy.Module { return new(E2BAPI) },
	}
}

// Provision sets up a.
func (a *E2BAPI) Provision(ctx caddy.Context) error {
	return a.provision(ctx, func(app *App, e *runningEngine) (http.Handler, error) {
		h := e.hosts[0]
		return api.NewE2B(api.E2BConfig{
			Backend: e, Base: h.base, Forward: h.forward, HostKey: h.key, Domain: a.Domain, Log: app.logger.Named("e2b"),
		}), nil
	})
}

// parseE2B parses the sandman_e2b directive:
//
//	sandman_e2b [<matcher>] {
//		domain <domain>
//	}
func parseE2B(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	a := new(E2BAPI)
	h.Next() // consume directive name
	if h.NextArg() {
		return nil, h.ArgErr()
	}
	for nesting := h.Nesting(); h.NextBlock(nesting); {
		if h.Val() != "domain" {
			return nil, h.Errf("unrecognized subdirective %s", h.Val())
		}
		if err := oneArg(h.Dispenser, &a.Domain); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func noArgs(h httpcaddyfile.Helper) error {
	h.Next() // consume directive name
	if h.NextArg() {
		return h.ArgErr()
	}
	if h.NextBlock(0) {
		return h.Errf("unrecognized subdirective %s", h.Val())
	}
	return nil
}

// lateHandler is a handler that can be made only when the engine runs, which
// is after the first request may have come.
type lateHandler struct {
	app  *App
	once func() (http.Handler, error)
}

func (l *lateHandler) provision(ctx caddy.Context, build func(*App, *runningEngine) (http.Handler, error)) (err error) {
	if l.app, err = appOf(ctx); err != nil {
		return err
	}
	app := l.app
	l.once = sync.OnceValues(func() (http.Handler, error) { return build(app, app.running) })
	return nil
}

func (l *lateHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	e, err := l.app.use(r.Context())
	if err != nil {
		return refuse(w, r, e2b.Target{}, err)
	}
	defer e.uses.end()
	h, err := l.once()
	if err != nil {
		l.app.logger.Error("setting up a handler", zap.Error(err))
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	h.ServeHTTP(w, r)
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*API)(nil)
	_ caddyhttp.MiddlewareHandler = (*API)(nil)
	_ caddy.Provisioner           = (*E2BAPI)(nil)
	_ caddyhttp.MiddlewareHandler = (*E2BAPI)(nil)
)
