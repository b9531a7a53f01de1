package e2b_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/sandman-proxy/sandman/internal/e2b"
)

// headers builds request headers from pairs.
func headers(kv ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(kv); i += 2 {
		h.Add(kv[i], kv[i+1])
	}
	return h
}

func TestParseTarget(t *testing.T) {
	t.Parallel()
	const id = "iabcdefghij0123456789"
	both := headers(e2b.HeaderSandboxID, id, e2b.HeaderSandboxPort, "49983")
	want := e2b.Target{SandboxID: id, Port: 8080}
	viaHeaders := e2b.Target{SandboxID: id, Port: 49983}
	tests := []struct {
		name string
		host string
		h    http.Header
		want e2b.Target
		err  error
	}{
		{"label", "8080-" + id + ".sandbox.example.com", nil, want, nil},
		{"label and port", "8080-" + id + ".localhost:8080", nil, want, nil},
		{"upper case", "8080-" + strings.ToUpper(id) + ".LOCALHOST", nil, want, nil},
		{"final dot", "8080-" + id + ".localhost.:80", nil, want, nil},
		{"old client ID", "8080-" + id + "-6532622b.e2b.app", nil, want, nil},
		{"smallest port", "1-a.x", nil, e2b.Target{SandboxID: "a", Port: 1}, nil},
		{"largest port", "65535-a.x", nil, e2b.Target{SandboxID: "a", Port: 65535}, nil},
		{"longest ID", "1-" + strings.Repeat("a", 61) + ".x", nil, e2b.Target{SandboxID: strings.Repeat("a", 61), Port: 1}, nil},
		{"headers on localhost", "localhost:3080", both, viaHeaders, nil},
		{"headers on LOCALHOST", "LOCALHOST", both, viaHeaders, nil},
		{"headers on an IPv4 address", "127.0.0.1:3080", both, viaHeaders, nil},
		{"headers on an IPv6 address", "[::1]:3080", both, viaHeaders, nil},
		{"headers on an IPv6 address without port", "[::1]", both, viaHeaders, nil},
		{"headers on a bare IPv6 address", "::1", both, viaHeaders, nil},
		{"headers on an IPv6 address that ends with a letter", "[fe80::a]:3080", both, viaHeaders, nil},
		{"a name that ends with a digit", "example.x1", both, e2b.Target{}, e2b.ErrNoTarget},
		{"headers on sandbox.", "sandbox.e2b.app", both, viaHeaders, nil},
		{"ID in upper case in a header", "localhost", headers(e2b.HeaderSandboxID, "IABC", e2b.HeaderSandboxPort, "1"), e2b.Target{SandboxID: "iabc", Port: 1}, nil},
		{"headers don't override a label", "8080-" + id + ".x", both, want, nil},
		{"headers mean nothing elsewhere", "example.com", both, e2b.Target{}, e2b.ErrNoTarget},
		{"forwarded host means nothing", "example.com", headers("X-Forwarded-Host", "8080-"+id+".x"), e2b.Target{}, e2b.ErrNoTarget},
		{"localhost", "localhost:8080", nil, e2b.Target{}, e2b.ErrNoTarget},
		{"address", "[::1]:8080", nil, e2b.Target{}, e2b.ErrNoTarget},
		{"sandbox.", "sandbox.example.com", nil, e2b.Target{}, e2b.ErrNoTarget},
		{"empty", "", nil, e2b.Target{}, e2b.ErrNoTarget},
		{"no dot", "8080-" + id, nil, e2b.Target{}, e2b.ErrNoTarget},
		{"nothing after the dot", "8080-" + id + ".", nil, e2b.Target{}, e2b.ErrNoTarget},
		{"somebody's site", "my-site.example.com", nil, e2b.Target{}, e2b.ErrNoTarget},
		{"ID alone", id + ".example.com", nil, e2b.Target{}, e2b.ErrNoTarget},
		{"port alone", "8080.example.com", nil, e2b.Target{}, e2b.ErrNoTarget},
		{"label is not the first", "www.8080-" + id + ".example.com", nil, e2b.Target{}, e2b.ErrNoTarget},
		{"ID header missing", "localhost", headers(e2b.HeaderSandboxPort, "1"), e2b.Target{}, e2b.ErrBadTarget},
		{"port header missing", "127.0.0.1", headers(e2b.HeaderSandboxID, id), e2b.Target{}, e2b.ErrBadTarget},
		{"ID header empty", "localhost", headers(e2b.HeaderSandboxID, "", e2b.HeaderSandboxPort, "1"), e2b.Target{}, e2b.ErrBadTarget},
		{"port header empty", "localhost", headers(e2b.HeaderSandboxID, id, e2b.HeaderSandboxPort, ""), e2b.Target{}, e2b.ErrBadTarget},
		{"two ID headers", "localhost", headers(e2b.HeaderSandboxID, id, e2b.HeaderSandboxID, "b", e2b.HeaderSandboxPort, "1"), e2b.Target{}, e2b.ErrBadTarget},
		{"signed port header", "localhost", headers(e2b.HeaderSandboxID, id, e2b.HeaderSandboxPort, "+80"), e2b.Target{}, e2b.ErrBadTarget},
		{"port 0", "0-" + id + ".x", nil, e2b.Target{}, e2b.ErrBadTarget},
		{"port 65536", "65536-" + id + ".x", nil, e2b.Target{}, e2b.ErrBadTarget},
		{"port beyond any integer", "99999999999999999999-" + id + ".x", nil, e2b.Target{}, e2b.ErrBadTarget},
		{"second name for a port", "08080-" + id + ".x", nil, e2b.Target{}, e2b.ErrBadTarget},
		{"no ID", "8080-.x", nil, e2b.Target{}, e2b.ErrBadTarget},
		{"bad ID", "8080-a_b.x", nil, e2b.Target{}, e2b.ErrBadTarget},
		{"ID of other letters", "8080-äöü.x", nil, e2b.Target{}, e2b.ErrBadTarget},
		{"overlong ID", "localhost", headers(e2b.HeaderSandboxID, strings.Repeat("a", 65), e2b.HeaderSandboxPort, "1"), e2b.Target{}, e2b.ErrBadTarget},
		{"overlong host", "8080-" + id + "." + strings.Repeat("x", 300), nil, e2b.Target{}, e2b.ErrBadTarget},
		{"bad port of the host", "8080-" + id + ".x:http", nil, e2b.Target{}, e2b.ErrBadTarget},
		{"open bracket", "[::1", both, e2b.Target{}, e2b.ErrBadTarget},
		{"text after a bracket", "[::1]x", both, e2b.Target{}, e2b.ErrBadTarget},
		{"name in brackets", "[localhost]", both, e2b.Target{}, e2b.ErrBadTarget},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := e2b.ParseTarget(tt.host, tt.h)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %v, %v, want %v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func BenchmarkParseTarget(b *testing.B) {
	h := headers("User-Agent", "bench")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e2b.ParseTarget("8080-iabcdefghij0123456789.localhost:8080", h); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, host := range []string{"8080-iabc.localhost:1", "localhost", "[::1]:1", "1-2-3.x", "0-a.x", "[", ":", "-.", "sandbox."} {
		f.Add(host, "iabc", "80")
	}
	f.Fuzz(func(t *testing.T, host, id, port string) {
		got, err := e2b.ParseTarget(host, headers(e2b.HeaderSandboxID, id, e2b.HeaderSandboxPort, port))
		if err != nil {
			if !errors.Is(err, e2b.ErrNoTarget) && !errors.Is(err, e2b.ErrBadTarget) {
				t.Errorf("an error of no kind: %v", err)
			}
			if got != (e2b.Target{}) || len(err.Error()) > 600 {
				t.Errorf("got %v with %v", got, err)
			}
			return
		}
		if got.Port == 0 || !e2b.ValidID(got.SandboxID) {
			t.Errorf("got %v", got)
		}
		if again, err := e2b.ParseTarget(got.String()+".x", nil); err != nil || again != got {
			t.Errorf("%v is read back as %v, %v", got, again, err)
		}
	})
}
