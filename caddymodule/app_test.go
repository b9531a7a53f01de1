package caddymodule

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// validate provisions and validates a configuration, without starting it.
func validate(t *testing.T, config string) error {
	t.Helper()
	cfg := &caddy.Config{Admin: &caddy.AdminConfig{Disabled: true}}
	ctx, err := caddy.ProvisionContext(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ctx.LoadModuleByID("sandman", []byte(config))
	return err
}

func TestApp_refusesWhatCantWork(t *testing.T) {
	for _, tt := range []struct{ name, config, want string }{
		{"unknown field", `"bogus": 1`, "bogus"},
		{"idle timeout below what the protocol bears", `"idle_timeout": "1s"`, "at least 2s"},
		{"negative time", `"hold": "-1s"`, "hold must not be negative"},
		{"negative price", `"price_per_minute": -1`, "price_per_minute"},
		{"a currency that is none", `"price_per_minute": 1, "currency": "US dollars"`, "such as USD"},
		{"local host with a shared etcd", `"etcd": {"endpoints": ["localhost:2379"]}`, "cmd/sandboxd"},
		{"etcd twice", `"etcd": {"embedded": true, "endpoints": ["localhost:2379"]}`, "either embedded"},
		{"etcd nowhere", `"etcd": {}, "hosts": [{"host": "origin", "url": "http://localhost:3080"}]`, "no endpoints"},
		{"host without a URL", `"hosts": [{"host": "origin", "url": "localhost:3080"}]`, "http://"},
		{"two hosts of one kind without names", `"hosts": [{"host": "origin", "url": "http://a"}, {"host": "origin", "url": "http://b"}]`, `two hosts are named "origin": give`},
		{"a host named as one of another kind", `"hosts": [{"host": "local"}, {"host": "origin", "url": "http://b", "name": "local"}]`, `two hosts are named "local": give`},
		{"a host's name of strange letters", `"hosts": [{"host": "e2b", "name": "our host"}]`, `"our host"`},
		{"token of no known role", `"tokens": [{"name": "x", "role": "king", "secret": "s"}]`, "king"},
		{"two tokens of one name", `"tokens": [{"name": "x", "role": "admin", "secret": "s"}, {"name": "x", "role": "viewer", "secret": "r"}]`, `"x"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := validate(t, fmt.Sprintf(`{"data": %q, %s}`, t.TempDir(), tt.config))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want one that says %q", err, tt.want)
			}
		})
	}
}

func TestApp_needsNoConfiguration(t *testing.T) {
	if err := validate(t, fmt.Sprintf(`{"data": %q}`, t.TempDir())); err != nil {
		t.Error(err)
	}
}

func TestApp_takesSeveralHostsOfOneKind(t *testing.T) {
	config := `"hosts": [{"host": "origin", "url": "http://a"}, {"host": "origin", "url": "http://b", "name": "b"}, {"host": "e2b"}, {"host": "e2b", "name": "e2b-eu"}, {"host": "local"}]`
	if err := validate(t, fmt.Sprintf(`{"data": %q, %s}`, t.TempDir(), config)); err != nil {
		t.Error(err)
	}
}

func TestApp_identityIsAllThatAnEngineDependsOn(t *testing.T) {
	t.Parallel()
	base := App{Data: "/data"}
	same, other := base, base
	same.Tokens = []Token{{Name: "x"}}
	other.IdleTimeout = 1
	want, _ := base.identify()
	if got, _ := same.identify(); got != want {
		t.Error("tokens make another engine")
	}
	if got, _ := other.identify(); got == want {
		t.Error("another idle timeout makes no other engine")
	}
}
