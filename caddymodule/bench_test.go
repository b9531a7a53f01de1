package caddymodule

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
)

// TestMain is also the daemon of the sandboxes that the tests make.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == envdCommand {
		os.Exit(sandboxd.EnvdMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// BenchmarkRequest compares a request to a running sandbox with the same request
// through Caddy's reverse_proxy alone: both through Caddy's server in this
// process, without a client's connection, to the same port of the same sandbox.
// Where others use the machine, too, it is the CPU time that can be compared; what
// the upstream takes of it is in both.
func BenchmarkRequest(b *testing.B) {
	rig := newBenchRig(b)
	for _, side := range []struct{ name, server, host string }{
		{"reverse_proxy", "bare", "bare.localhost"},
		{"sandman", "sandman", rig.host},
	} {
		b.Run(side.name, func(b *testing.B) {
			server := rig.servers[side.server]
			rig.get(b, server, side.host) // the connection is made, the session known
			b.ReportAllocs()
			before := cpuTime(b)
			for b.Loop() {
				rig.get(b, server, side.host)
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const benchPort = 8080

type benchRig struct {
	host    string // of the sandbox's port
	servers map[string]*caddyhttp.Server
}

// newBenchRig runs Caddy with a site that is Sandman and one that is a bare
// reverse_proxy to the same sandbox.
func newBenchRig(b *testing.B) *benchRig {
	const app = `"admin": {"disabled": true}, "logging": {"logs": {"default": {"level": "ERROR"}}}, "apps": {"sandman": {"data": %q}, "http": {"servers": {%s}}}`
	data, err := os.MkdirTemp("", "sandman-bench") //nolint:usetesting // the etcd in it ends after the cleanups
	if err != nil {
		b.Fatal(err)
	}
	const gate = `"sandman": {"listen": ["127.0.0.1:0"], "automatic_https": {"disable": true}, "routes": [{"handle": [
		{"handler": "sandman"},
		{"handler": "reverse_proxy", "upstreams": [{"dial": "sandbox:80"}], "transport": {"protocol": "sandman"}, "flush_interval": -1}]}]}`
	runCaddy(b, fmt.Sprintf(app, data, gate))
	b.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			b.Error(err)
		}
		_ = os.RemoveAll(data)
	})
	sb, addr := benchSandbox(b)
	const bare = `, "bare": {"listen": ["127.0.0.2:0"], "automatic_https": {"disable": true}, "routes": [{"handle": [
		{"handler": "reverse_proxy", "upstreams": [{"dial": %q}], "flush_interval": -1}]}]}`
	runCaddy(b, fmt.Sprintf(app, data, gate+fmt.Sprintf(bare, addr)))
	httpApp, err := caddy.ActiveContext().App("http")
	if err != nil {
		b.Fatal(err)
	}
	return &benchRig{host: fmt.Sprintf("%d-%s.localhost", benchPort, sb), servers: httpApp.(*caddyhttp.App).Servers}
}

func runCaddy(b *testing.B, config string) {
	b.Helper()
	if !json.Valid([]byte("{" + config + "}")) {
		b.Fatal(config)
	}
	if err := caddy.Load([]byte("{"+config+"}"), false); err != nil {
		b.Fatal(err)
	}
}

// benchSandbox makes a sandbox, and listens in its stead on its own address.
func benchSandbox(b *testing.B) (id, addr string) {
	app, err := caddy.ActiveContext().App("sandman")
	if err != nil {
		b.Fatal(err)
	}
	local := app.(*App).running.hosts[0].Host.(namedHost)
	hour := int32(time.Hour / time.Second)
	sb, err := local.API().Create(context.Background(), e2b.NewSandbox{TemplateID: "base", Timeout: &hour})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = local.API().Kill(context.Background(), sb.SandboxID) })
	at, err := local.host.Lookup(sb.SandboxID)
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", at.Addr(benchPort).String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ln.Close() })
	go answerAll(ln)
	return sb.SandboxID, ln.Addr().String()
}

// answerAll answers each request with 1 KB, by as little code as will do: what
// it takes is in both sides of the comparison.
func answerAll(ln net.Listener) {
	answer := append([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n"), make([]byte, 1024)...)
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			in := bufio.NewReader(conn)
			for {
				line, err := in.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) > 2 {
					continue // of the header
				}
				if _, err := conn.Write(answer); err != nil {
					return
				}
			}
		}()
	}
}

func (*benchRig) get(b *testing.B, server *caddyhttp.Server, host string) {
	r, err := http.NewRequest(http.MethodGet, "/", http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	r.Host, r.RequestURI, r.RemoteAddr = host, "/", "127.0.0.1:1"
	r.Header.Set("User-Agent", "bench")
	ctx, cancel := context.WithCancel(context.Background()) // as a server's
	defer cancel()
	w := &benchWriter{header: make(http.Header)}
	server.ServeHTTP(w, r.WithContext(ctx))
	if w.status != http.StatusOK || w.bytes != 1024 {
		b.Fatalf("status %d, %d bytes", w.status, w.bytes)
	}
}

// benchWriter counts what is written.
type benchWriter struct {
	header        http.Header
	status, bytes int
}

func (w *benchWriter) Header() http.Header { return w.header }

func (w *benchWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *benchWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.bytes += len(p)
	return len(p), nil
}

func (w *benchWriter) Flush() {}
