package caddymodule

import (
	"cmp"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
)

// Limits are what idle timeouts may be. The API refuses others, and what was
// set under other limits counts as the nearest that these allow.
type Limits struct {
	// The shortest idle timeout. Default: 2s, which is the least.
	MinIdleTimeout caddy.Duration `json:"min_idle_timeout,omitempty"`

	// The longest idle timeout. Default: 0, any.
	MaxIdleTimeout caddy.Duration `json:"max_idle_timeout,omitempty"`
}

func (l *Limits) limits() session.Limits {
	if l == nil {
		return session.Limits{}
	}
	return session.Limits{MinIdleTimeout: time.Duration(l.MinIdleTimeout), MaxIdleTimeout: time.Duration(l.MaxIdleTimeout)}
}

// validate checks the limits, and that the default idle timeout (0: as where
// none is configured) is within them.
func (l *Limits) validate(idle time.Duration) error {
	if l == nil {
		return nil
	}
	idle = cmp.Or(idle, pauser.DefaultIdleTimeout)
	shortest, longest := time.Duration(l.MinIdleTimeout), time.Duration(l.MaxIdleTimeout)
	switch {
	case shortest < 0 || longest < 0:
		return fmt.Errorf("limits: idle_timeout must not be negative")
	case shortest != 0 && shortest < session.MinIdleTimeout:
		return fmt.Errorf("limits: idle_timeout %s is too short: at least %s", shortest, session.MinIdleTimeout)
	case longest != 0 && longest < max(shortest, session.MinIdleTimeout):
		return fmt.Errorf("limits: the longest idle_timeout %s is shorter than the shortest %s", longest, max(shortest, session.MinIdleTimeout))
	case idle < shortest || longest != 0 && idle > longest:
		return fmt.Errorf("idle_timeout %s is beyond the limits", idle)
	}
	return nil
}

func (l *Limits) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := false
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch {
		case d.Val() != "idle_timeout":
			return d.Errf("unrecognized limits option %s", d.Val())
		case seen:
			return d.Err("idle_timeout already specified")
		}
		seen = true
		args := d.RemainingArgs()
		if len(args) != 2 {
			return d.ArgErr()
		}
		for i, to := range []*caddy.Duration{&l.MinIdleTimeout, &l.MaxIdleTimeout} {
			v, err := caddy.ParseDuration(args[i])
			if err != nil {
				return d.Errf("bad idle_timeout limit %s: %v", args[i], err)
			}
			*to = caddy.Duration(v)
		}
	}
	if !seen {
		return d.Err("limits has no idle_timeout")
	}
	return nil
}
