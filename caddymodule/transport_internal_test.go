package caddymodule

import (
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

func TestTransport_idleConnections(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		configured *reverseproxy.HTTPTransport
		want       int
	}{
		"by default":             {nil, 256},
		"where other things are": {&reverseproxy.HTTPTransport{KeepAlive: &reverseproxy.KeepAlive{IdleConnTimeout: 1}}, 256},
		"as configured":          {&reverseproxy.HTTPTransport{KeepAlive: &reverseproxy.KeepAlive{MaxIdleConnsPerHost: 7}}, 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
			defer cancel()
			tr := &Transport{HTTP: test.configured}
			if err := tr.Provision(ctx); err != nil {
				t.Fatal(err)
			}
			if got := tr.HTTP.Transport.MaxIdleConnsPerHost; got != test.want {
				t.Errorf("%d idle connections to an address are kept, want %d", got, test.want)
			}
		})
	}
}
