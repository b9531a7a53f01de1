package main

import (
	"testing"

	"github.com/sandman-proxy/sandman/internal/sandboxd"
)

func TestCheckListen_keepsTheDefaultKeyOffTheNetwork(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		listen, key string
		ok          bool
	}{
		{"127.0.0.1:3080", "", true},
		{"127.0.0.1:0", sandboxd.DefaultAPIKey, true},
		{"[::1]:3080", "", true},
		{"localhost:3080", "", true},
		{":3080", "", false},
		{"0.0.0.0:3080", "", false},
		{"0.0.0.0:3080", sandboxd.DefaultAPIKey, false},
		{"192.0.2.1:3080", "", false},
		{"example.com:3080", "", false},
		{"nonsense", "", false},
		{"0.0.0.0:3080", "e2b_of_my_own", true},
	} {
		if err := checkListen(config{Listen: tt.listen, APIKey: tt.key}); (err == nil) != tt.ok {
			t.Errorf("%q with key %q: %v", tt.listen, tt.key, err)
		}
	}
}
