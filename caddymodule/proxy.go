package caddymodule

import (
	"encoding/json"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

func init() {
	httpcaddyfile.RegisterDirective("sandman_proxy", parseProxy)
	httpcaddyfile.RegisterDirectiveOrder("sandman_proxy", httpcaddyfile.Before, "reverse_proxy")
	httpcaddyfile.RegisterHandlerDirective("sandman_api", parseAPI)
	httpcaddyfile.RegisterDirectiveOrder("sandman_api", httpcaddyfile.Before, "reverse_proxy")
	httpcaddyfile.RegisterHandlerDirective("sandman_e2b", parseE2B)
	httpcaddyfile.RegisterDirectiveOrder("sandman_e2b", httpcaddyfile.Before, "reverse_proxy")
}

// parseProxy parses the sandman_proxy directive, which has this form:
//
//	sandman_proxy [<matcher>] {
//		wake            any|intent|manual
//		reconnect_wakes <count>
//		page_after      <duration>
//		count           client|both|none
//		presets         <name...>|none
//		noise [<name>] {
//			path    <path>
//			methods <method...>
//			match {
//				...
//			}
//			opcode  text|binary
//			length  <bytes>|<from>-<to>
//			prefix  <text>|<0xhex>
//			payload <text>|<0xhex>
//			names   <name...>
//		}
//	}
//
// The options are the gate's. The JSON that it makes is a route of two handlers, the gate and Caddy's own
// reverse proxy:
//
//	{"handler": "sandman"}
//	{
//		"handler": "reverse_proxy",
//		"upstreams": [{"dial": "sandbox:80"}],
//		"transport": {"protocol": "sandman"},
//		"flush_interval": -1,
//		"stream_close_delay": "24h"
//	}
//
// The upstream is a name only: the transport asks the sandbox's host for the
// address. Answers are flushed as they come, and a reload leaves WebSockets
// open.
func parseProxy(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // consume directive name
	matchers, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	var gate Handler
	// the matcher is gone, and the dispenser at its start again
	if err := gate.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	proxy := reverseproxy.Handler{
		Upstreams:        reverseproxy.UpstreamPool{{Dial: upstreamName}},
		TransportRaw:     json.RawMessage(`{"protocol":"sandman"}`),
		FlushInterval:    -1,
		StreamCloseDelay: caddy.Duration(streamCloseDelay),
	}
	route := caddyhttp.Route{HandlersRaw: []json.RawMessage{
		caddyconfig.JSONModuleObject(gate, "handler", "sandman", nil),
		caddyconfig.JSONModuleObject(proxy, "handler", "reverse_proxy", nil),
	}}
	if matchers != nil {
		route.MatcherSetsRaw = caddyhttp.RawMatcherSets{matchers}
	}
	// no subroute: Caddy would compile it anew for each request
	return []httpcaddyfile.ConfigValue{{Class: "route", Value: route}}, nil
}

const (
	upstreamName = "sandbox:80"

	// streamCloseDelay is how long after a reload the old configuration's
	// WebSockets are closed.
	streamCloseDelay = 24 * time.Hour
)
