package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sandman-proxy/sandman/internal/dashboard"
)

func init() {
	caddy.RegisterModule(Dashboard{})
	httpcaddyfile.RegisterHandlerDirective("sandman_dashboard", parseDashboard)
	httpcaddyfile.RegisterDirectiveOrder("sandman_dashboard", httpcaddyfile.Before, "reverse_proxy")
}

// Dashboard serves the dashboard at `/`, and at `/badge.js` the web component
// `<sandman-badge>` for other sites' pages. Both are files only: what they show
// they ask of `sandman_api`, which must be at `/api/*` of the same address, with
// the visitor's own token. A path prefix that it stands under must be stripped
// (`handle_path`), together with the API's.
type Dashboard struct{ files http.Handler }

// CaddyModule returns the Caddy module information.
func (Dashboard) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sandman_dashboard",
		New: func() caddy.Module { return new(Dashboard) },
	}
}

// Provision sets up d.
func (d *Dashboard) Provision(caddy.Context) error {
	d.files = dashboard.Handler()
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	d.files.ServeHTTP(w, r)
	return nil
}

// parseDashboard parses the sandman_dashboard directive:
//
//	sandman_dashboard [<matcher>]
func parseDashboard(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	return new(Dashboard), noArgs(h)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Dashboard)(nil)
	_ caddyhttp.MiddlewareHandler = (*Dashboard)(nil)
)
