package caddymodule

import (
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("sandman", parseHandler)
	httpcaddyfile.RegisterDirectiveOrder("sandman", httpcaddyfile.Before, "reverse_proxy")
}

// parseHandler parses the sandman directive, for a site that has a
// `reverse_proxy` of its own with the transport `sandman`. Its options are those
// of sandman_proxy.
func parseHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the handler:
//
//	sandman [<matcher>] {
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
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume directive name
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if seen[option] && option != "noise" {
			return d.Errf("%s already specified", option)
		}
		seen[option] = true
		if err := h.unmarshalOption(d, option); err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) unmarshalOption(d *caddyfile.Dispenser, option string) error {
	switch option {
	case "wake":
		return wordArg(d, &h.Wake, "any", "intent", "manual")
	case "reconnect_wakes":
		h.ReconnectWakes = new(int)
		return countArg(d, h.ReconnectWakes)
	case "page_after":
		return durationArg(d, &h.PageAfter)
	case "count":
		return wordArg(d, &h.Count, "client", "both", "none")
	case "presets":
		return h.unmarshalPresets(d)
	case "noise":
		return h.unmarshalNoise(d)
	}
	return d.Errf("unrecognized option %s", option)
}

// wordArg reads one of a few words.
func wordArg(d *caddyfile.Dispenser, to *string, words ...string) error {
	option := d.Val()
	if err := oneArg(d, to); err != nil {
		return err
	}
	if !slices.Contains(words, *to) {
		return d.Errf("bad %s value %s: want one of %q", option, *to, words)
	}
	return nil
}

func countArg(d *caddyfile.Dispenser, to *int) error {
	var arg string
	option := d.Val()
	if err := oneArg(d, &arg); err != nil {
		return err
	}
	n, err := strconv.Atoi(arg)
	if err != nil || n < 0 {
		return d.Errf("bad %s value %s: want a number that is not negative", option, arg)
	}
	*to = n
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Handler)(nil)
