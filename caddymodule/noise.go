package caddymodule

import (
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/noise"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// noPresets stands for an empty list of presets.
const noPresets = "none"

// NoiseRule says of an app which of its messages or requests no person sends:
// they neither count nor wake. A rule with `names`, or with some of `opcode`,
// `length`, `prefix` and `payload`, is about messages of WebSockets, and all that
// it says must hold; one without is about requests.
type NoiseRule struct {
	// What is shown where the rule took effect. Default: what the rule says.
	Name string `json:"name,omitempty"`

	// The path of the requests, or of those that have opened the WebSocket:
	// `/api/poll`, `/api/*` for all below it, `*/poll` for all that end so. Default:
	// all.
	Path string `json:"path,omitempty"`

	// The methods of the requests. Default: all.
	Methods []string `json:"methods,omitempty"`

	// Caddy's request matchers, of which one set must match the request, or the
	// one that has opened the WebSocket. Default: all match.
	MatcherSetsRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`

	// The kind of the messages: `text` or `binary`. Default: both.
	Opcode string `json:"opcode,omitempty"`

	// The length of the messages in bytes, decompressed: `13`, `10-20`, `100-` or
	// `-8`. Default: any.
	Length string `json:"length,omitempty"`

	// How the messages begin: text, or bytes in hexadecimal after `0x`. Default: in
	// any way.
	Prefix string `json:"prefix,omitempty"`

	// The messages as a whole, written as `prefix` is. Default: any.
	Payload string `json:"payload,omitempty"`

	// Calls of a protocol that a preset reads: VS Code's (`$onFileEvent`,
	// `telemetry.*`), Jupyter's types of messages, socket.io's events. A `*` at the
	// end stands for whatever follows. Default: any.
	Names []string `json:"names,omitempty"`
}

// rule loads the matchers.
func (n *NoiseRule) rule(ctx caddy.Context) (noise.Rule, error) {
	rule := n.compiled()
	if n.MatcherSetsRaw == nil {
		return rule, nil
	}
	loaded, err := ctx.LoadModule(n, "MatcherSetsRaw")
	if err != nil {
		return rule, fmt.Errorf("loading the matchers of a noise rule: %w", err)
	}
	var sets caddyhttp.MatcherSets
	if err := sets.FromInterface(loaded); err != nil {
		return rule, err
	}
	rule.Match = func(r *http.Request) bool {
		matches, err := sets.AnyMatchWithError(r)
		return err == nil && matches // where in doubt, it counts
	}
	return rule, nil
}

// compiled is the rule but for its matchers.
func (n *NoiseRule) compiled() noise.Rule {
	return noise.Rule{
		Name: n.Name, Path: n.Path, Methods: n.Methods, Opcode: n.Opcode, Length: n.Length,
		Prefix: n.Prefix, Payload: n.Payload, Names: n.Names,
	}
}

func (h *Handler) provisionCounting(ctx caddy.Context) (err error) {
	cfg := noise.Config{Presets: presetsOf(h.Presets)}
	for i := range h.Noise {
		rule, err := h.Noise[i].rule(ctx)
		if err != nil {
			return err
		}
		cfg.Rules = append(cfg.Rules, rule)
	}
	h.counting, err = newCounting(cfg, h.Count)
	return err
}

// presetsOf tells none from nothing said.
func presetsOf(names []string) []string {
	if len(names) == 1 && names[0] == noPresets {
		return []string{}
	}
	return names
}

// unmarshalNoise reads a rule, and checks it, so that an error has a line.
func (h *Handler) unmarshalNoise(d *caddyfile.Dispenser) error {
	var rule NoiseRule
	if args := d.RemainingArgs(); len(args) == 1 {
		rule.Name = args[0]
	} else if len(args) > 1 {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := rule.unmarshalOption(d); err != nil {
			return err
		}
	}
	check := rule.compiled()
	if rule.MatcherSetsRaw != nil {
		check.Match = func(*http.Request) bool { return false }
	}
	if _, err := noise.New(noise.Config{Presets: []string{}, Rules: []noise.Rule{check}}); err != nil {
		return d.WrapErr(err)
	}
	h.Noise = append(h.Noise, rule)
	return nil
}

func (n *NoiseRule) unmarshalOption(d *caddyfile.Dispenser) error {
	switch option := d.Val(); option {
	case "path":
		return oneArg(d, &n.Path)
	case "methods":
		return listArg(d, &n.Methods)
	case "match":
		set, err := caddyhttp.ParseCaddyfileNestedMatcherSet(d)
		n.MatcherSetsRaw = append(n.MatcherSetsRaw, set)
		return err
	case "opcode":
		return wordArg(d, &n.Opcode, "text", "binary")
	case "length":
		return oneArg(d, &n.Length)
	case "prefix":
		return oneArg(d, &n.Prefix)
	case "payload":
		return oneArg(d, &n.Payload)
	case "names":
		return listArg(d, &n.Names)
	default:
		return d.Errf("unrecognized noise option %s", option)
	}
}

func (h *Handler) unmarshalPresets(d *caddyfile.Dispenser) error {
	if err := listArg(d, &h.Presets); err != nil {
		return err
	}
	if _, err := noise.New(noise.Config{Presets: presetsOf(h.Presets)}); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// listArg reads one or more arguments, and adds them.
func listArg(d *caddyfile.Dispenser, to *[]string) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	*to = append(*to, args...)
	return nil
}

// serveNoise forwards what no person has sent to a sandbox that runs. It neither
// counts nor wakes, and no pause waits for it. One that a pause overtakes is
// answered after the wake where the host keeps connections, and is refused then
// where the host cuts them.
func (f *flight) serveNoise(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, rule string) error {
	f.probes, f.noise = true, rule
	if f.engine.Runs(r.Context(), f.target.SandboxID) {
		caddyhttp.SetVar(r.Context(), flightVar, f)
		return next.ServeHTTP(w, r)
	}
	switch f.engine.State(f.target.SandboxID) {
	case "":
		return refuse(w, r, f.target, wake.ErrUnknown)
	case session.Killed:
		return refuse(w, r, f.target, wake.ErrKilled)
	default:
		return f.refuse(w, r, f.isNoise())
	}
}

func (f *flight) isNoise() error {
	return &wake.RefusedError{Asker: f.asker(), Code: engine.ReasonNoise, Reason: "no person sends it (" + f.noise + ")"}
}

// isReopening tells whether what is noise while the sandbox runs is the reconnect of
// a page that was open at the pause. Who finds none that was open is refused:
// such pages try for ever.
func (f *flight) isReopening() bool {
	s := f.engine.Session(f.target.SandboxID)
	return s != nil && s.State != session.Running && s.Parked > 0 && f.counting.noise.Reopens(f.arrived)
}
