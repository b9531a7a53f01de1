package caddymodule

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("sandman", parseApp)
}

func parseApp(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		d.Next() // for the line in the error
		return nil, d.Err("sandman already specified")
	}
	var a App
	if err := a.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	// the admin endpoint may be a socket in this folder, and is opened before
	// any app is provisioned
	if a.Data != "" {
		if err := makeDataFolder(a.Data); err != nil {
			return nil, d.WrapErr(err)
		}
	}
	return httpcaddyfile.App{Name: "sandman", Value: caddyconfig.JSON(a, nil)}, nil
}

// UnmarshalCaddyfile sets up the app from its global option:
//
//	sandman {
//		data                <dir>
//		etcd                embedded [<dir>]
//		etcd                <endpoint...> {
//			tls    [<ca> [<cert> <key>]]
//			user   <name> <password>
//			prefix <prefix>
//		}
//		host                local|e2b|<url> {
//			...
//		}
//		idle_timeout        <duration>
//		limits {
//			idle_timeout <min> <max>
//		}
//		check_every         <duration>
//		activity_resolution <duration>
//		price_per_minute    <amount> [<currency>]
//		host_timeout        <duration>
//		token               <name> <role> <secret|hash|generate> [<owner>]
//		owner_metadata      <key>
//		project_metadata    <key>
//		hold                <duration>
//		drain               <duration>
//		lease_ttl           <duration>
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume option name
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if seen[option] && option != "host" && option != "token" {
			return d.Errf("%s already specified", option)
		}
		seen[option] = true
		var err error
		switch option {
		case "data":
			err = oneArg(d, &a.Data)
		case "etcd":
			a.Etcd = new(Etcd)
			err = a.Etcd.unmarshalCaddyfile(d)
		case "host":
			err = a.unmarshalHost(d)
		case "idle_timeout":
			err = durationArg(d, &a.IdleTimeout)
		case "limits":
			a.Limits = new(Limits)
			err = a.Limits.unmarshalCaddyfile(d)
		case "check_every":
			err = durationArg(d, &a.CheckEvery)
		case "activity_resolution":
			a.ActivityResolution = new(caddy.Duration)
			err = durationArg(d, a.ActivityResolution)
		case "price_per_minute":
			err = a.unmarshalPrice(d)
		case "host_timeout":
			err = durationArg(d, &a.HostTimeout)
		case "token":
			err = a.unmarshalToken(d)
		case "owner_metadata":
			err = oneArg(d, &a.OwnerMetadata)
		case "project_metadata":
			err = oneArg(d, &a.ProjectMetadata)
		case "hold":
			err = durationArg(d, &a.Hold)
		case "drain":
			err = durationArg(d, &a.Drain)
		case "lease_ttl":
			err = durationArg(d, &a.LeaseTTL)
		default:
			err = d.Errf("unrecognized sandman option %s", option)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unmarshalHost reads a host. A URL stands for an E2B API that serves API and
// sandboxes on one origin.
func (a *App) unmarshalHost(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	name := d.Val()
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		name = "origin" // its UnmarshalCaddyfile reads the URL
	}
	unm, err := caddyfile.UnmarshalModule(d, "sandman.hosts."+name)
	if err != nil {
		return err
	}
	a.HostsRaw = append(a.HostsRaw, caddyconfig.JSONModuleObject(unm, "host", name, nil))
	host, ok := unm.(hostModule)
	if !ok {
		return nil // Provision says so
	}
	a.hosts = append(a.hosts, host) // of a configuration that is only read
	if err := checkHostNames(a.hosts); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (a *App) unmarshalToken(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 3 || len(args) > 4 {
		return d.ArgErr()
	}
	t := Token{Name: args[0], Role: args[1], Secret: args[2]}
	if len(args) == 4 {
		t.Owner = args[3]
	}
	a.Tokens = append(a.Tokens, t)
	return nil
}

func oneArg(d *caddyfile.Dispenser, to *string) error {
	if !d.Args(to) || d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

func durationArg(d *caddyfile.Dispenser, to *caddy.Duration) error {
	var arg string
	option := d.Val()
	if err := oneArg(d, &arg); err != nil {
		return err
	}
	v, err := caddy.ParseDuration(arg)
	if err != nil {
		return d.Errf("bad %s value %s: %v", option, arg, err)
	}
	*to = caddy.Duration(v)
	return nil
}

// unmarshalPrice reads an amount, and its currency where one is told.
func (a *App) unmarshalPrice(d *caddyfile.Dispenser) error {
	option, args := d.Val(), d.RemainingArgs()
	if len(args) != 1 && len(args) != 2 {
		return d.ArgErr()
	}
	v, err := strconv.ParseFloat(args[0], 64)
	if err != nil {
		return d.Errf("bad %s value %s: it is no number", option, args[0])
	}
	a.PricePerMinute, a.Currency = v, ""
	if len(args) == 2 {
		a.Currency = args[1]
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*App)(nil)
