package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
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
type API struct {
	// The origins of pages that may use the API from another address, such as
	// `https://app.example.com`, where a badge stands; or `*`. Default: none.
	AllowOrigins []string `json:"allow_origins,omitempty"`

	// How many requests each token may send; the badge tokens of a sandbox share
	// one limit. What is above is answered 429. Default: no limit.
	RateLimit *RateLimit `json:"rate_limit,omitempty"`

	lateHandler
}

// RateLimit is so many requests in a time.
type RateLimit struct {
	// How many requests.
	Requests int `json:"requests"`

	// In which time. Default: 1s.
	Per caddy.Duration `json:"per,omitempty"`

	// How many may come at once. Default: as many as in a second, at least 1.
	Burst int `json:"burst,omitempty"`
}

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
			PricePerMinute: app.PricePerMinute, Currency: app.Currency, HostTimeout: cmp.Or(time.Duration(app.HostTimeout), store.DefaultHostTimeout),
			AllowOrigins: a.AllowOrigins, RateLimit: a.RateLimit.limit(),
		})
	})
}

// Validate checks the values.
func (a *API) Validate() error {
	if err := api.CheckOrigins(a.AllowOrigins); err != nil {
		return fmt.Errorf("allow_origin: %w", err)
	}
	if r := a.RateLimit; r != nil && (r.Requests < 1 || r.Per < 0 || r.Burst < 0) {
		return errors.New("rate_limit must be at least one request in a time")
	}
	return nil
}

func (r *RateLimit) limit() api.RateLimit {
	if r == nil {
		return api.RateLimit{}
	}
	per := cmp.Or(time.Duration(r.Per), time.Second)
	return api.RateLimit{PerSecond: float64(r.Requests) / per.Seconds(), Burst: r.Burst}
}

// parseAPI parses the sandman_api directive:
//
//	sandman_api [<matcher>] {
//		allow_origin <origin...>
//		rate_limit   <requests>/<time> [<burst>]
//	}
func parseAPI(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	a := new(API)
	h.Next() // consume directive name
	if h.NextArg() {
		return nil, h.ArgErr()
	}
	for nesting := h.Nesting(); h.NextBlock(nesting); {
		var err error
		switch h.Val() {
		case "allow_origin":
			origins := h.RemainingArgs()
			if len(origins) == 0 {
				return nil, h.ArgErr()
			}
			a.AllowOrigins = append(a.AllowOrigins, origins...)
		case "rate_limit":
			if a.RateLimit != nil {
				return nil, h.Err("rate_limit already specified")
			}
			a.RateLimit, err = parseRateLimit(h)
		default:
			err = h.Errf("unrecognized subdirective %s", h.Val())
		}
		if err != nil {
			return nil, err
		}
	}
	return a, nil
}

// parseRateLimit reads 100/s, 1000/m or 5/10s, and a burst.
func parseRateLimit(h httpcaddyfile.Helper) (*RateLimit, error) {
	args := h.RemainingArgs()
	if len(args) < 1 || len(args) > 2 {
		return nil, h.ArgErr()
	}
	requests, per, ok := strings.Cut(args[0], "/")
	r := new(RateLimit)
	var err error
	if r.Requests, err = strconv.Atoi(requests); err != nil || !ok || per == "" {
		return nil, h.Errf("bad rate_limit value %s: want requests in a time, such as 100/s", args[0])
	}
	if strings.Trim(per[:1], "0123456789") != "" { // the unit alone
		per = "1" + per
	}
	span, err := caddy.ParseDuration(per)
	if err != nil || span <= 0 {
		return nil, h.Errf("bad rate_limit value %s: want requests in a time, such as 100/s", args[0])
	}
	r.Per = caddy.Duration(span)
	if len(args) == 2 {
		if r.Burst, err = strconv.Atoi(args[1]); err != nil || r.Burst < 1 {
			return nil, h.Errf("bad rate_limit burst %s: want a number of requests", args[1])
		}
	}
	return r, nil
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
	if err := shareSockets(ctx); err != nil {
		return err
	}
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
	_ caddy.Validator             = (*API)(nil)
	_ caddyhttp.MiddlewareHandler = (*API)(nil)
	_ caddy.Provisioner           = (*E2BAPI)(nil)
	_ caddyhttp.MiddlewareHandler = (*E2BAPI)(nil)
)
