package caddymodule

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEtcd_keyChangesWithWhatIsReadOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, password := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "password")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := &Etcd{
		Endpoints: []string{"localhost:2379"}, Username: "sandman", Password: "{file." + password + "}",
		TLS: &EtcdTLS{CA: ca},
	}
	write(ca, "roots")
	write(password, "secret")
	before := e.key()
	if e.key() != before {
		t.Error("it changes without a reason")
	}
	if strings.Contains(before, "secret") {
		t.Error("it shows the password")
	}
	write(password, "another")
	other := e.key()
	write(ca, "other roots")
	if other == before || e.key() == other {
		t.Error("another password, or other roots, make no other client")
	}
}

func TestEtcd_reachNamesTheEndpointThatRefuses(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open, closed := l.Addr().String(), "127.0.0.1:1"
	t.Cleanup(func() { l.Close() })
	for _, tt := range []struct {
		endpoints []string
		want      string // "": it is reached
	}{
		{nil, ""}, // embedded
		{[]string{open}, ""},
		{[]string{"http://" + open + "/"}, ""},
		{[]string{closed, open}, ""},
		{[]string{"unix:///run/etcd.sock"}, ""}, // not looked into
		{[]string{closed}, "etcd at " + closed},
		{[]string{"http://" + closed}, "connection refused"},
	} {
		err := (&Etcd{Endpoints: tt.endpoints}).reach(t.Context())
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.endpoints, err, tt.want)
		}
	}
}
