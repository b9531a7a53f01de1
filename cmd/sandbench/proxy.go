package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// runProxy compares Sandman with Caddy's bare reverse_proxy on the same
// upstream, in alternating rounds, by the CPU time that the proxy's process
// takes for a request and by requests per second. The load comes from this
// process, on the same cores.
func runProxy(ctx context.Context, args []string) error {
	flags := newFlags("proxy")
	rounds := flags.Int("rounds", 10, "rounds of each")
	span := flags.Duration("span", 3*time.Second, "length of a round")
	connections := flags.Int("connections", 64, "kept connections")
	idle := flags.Int("bare-idle-connections", 0, "idle connections that bare Caddy keeps to the upstream; 0: its default, 32 (Sandman's is 256)")
	_ = flags.Parse(args) // exits on error

	r, err := newRig(ctx, "SANDMAN_HOST=local")
	if err != nil {
		return err
	}
	defer r.close()
	id, bare, base, err := r.besideBare(ctx, *idle)
	if err != nil {
		return err
	}
	defer func() { _ = bare.Process.Kill(); _ = bare.Wait() }()
	sides := []*side{
		{name: "caddy reverse_proxy", pid: bare.Process.Pid, url: base + plainPath},
		{name: "sandman", pid: r.sandman.Process.Pid, url: r.url(id) + plainPath[1:]},
	}
	for i := range 2 * *rounds {
		// ABBA, so that neither always comes after the other
		if err := sides[(i+i/2)%2].round(ctx, r.client, *connections, *span); err != nil {
			return err
		}
	}
	printSides(sides[0], sides[1])
	return nil
}

// besideBare makes a sandbox, and starts Caddy's bare reverse_proxy to its app at
// base, which keeps so many idle connections to it; 0: Caddy's default. The process
// is the caller's to end.
func (r *rig) besideBare(ctx context.Context, idleConns int) (id string, bare *exec.Cmd, base string, err error) {
	if id, err = r.sandbox(ctx); err != nil {
		return "", nil, "", err
	}
	s, _, err := r.state(ctx, id)
	if err != nil {
		return "", nil, "", err
	}
	bare, base, err = r.bareCaddy(ctx, s.Address, idleConns)
	return id, bare, base, err
}

// plainPath is where the app answers 1 KB and does nothing else.
const plainPath = "/plain"

// bareCaddy starts the same binary with nothing but a reverse_proxy.
func (r *rig) bareCaddy(ctx context.Context, upstream string, idleConns int) (*exec.Cmd, string, error) {
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	options := "flush_interval -1\n"
	if idleConns > 0 {
		options += fmt.Sprintf("\t\ttransport http {\n\t\t\tkeepalive_idle_conns_per_host %d\n\t\t}\n", idleConns)
	}
	config := fmt.Sprintf("{\n\tadmin off\n}\nhttp://:%d {\n\tbind 127.0.0.1\n\treverse_proxy %s {\n\t\t%s\t}\n}\n", port, upstream, options)
	file := filepath.Join(r.dir, "bare.Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, "", err
	}
	cmd := exec.Command(filepath.Join(r.dir, "sandman"), "run", "--config", file, "--adapter", "caddyfile")
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	base := "http://127.0.0.1:" + strconv.Itoa(port)
	return cmd, base, r.await(ctx, base+plainPath)
}

// side is one of the two that are compared.
type side struct {
	name, url string
	pid       int
	rates     []float64       // requests per second
	cpu       []time.Duration // for each request
}

func (s *side) round(ctx context.Context, client *http.Client, connections int, span time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	before, err := cpuTime(s.pid)
	if err != nil {
		return err
	}
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	began := time.Now()
	for range connections {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := get(ctx, client, s.url); err != nil {
					if ctx.Err() == nil {
						failed.Store(&err)
					}
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	if err := failed.Load(); err != nil {
		return fmt.Errorf("%s: %w", s.name, *err)
	}
	after, err := cpuTime(s.pid)
	if err != nil || done.Load() == 0 {
		return errors.Join(err, ctx.Err())
	}
	s.rates = append(s.rates, float64(done.Load())/took.Seconds())
	s.cpu = append(s.cpu, (after-before)/time.Duration(done.Load()))
	return nil
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

// clockTick is the unit of the times in /proc: Linux gives user programs
// hundredths of a second, on every architecture.
const clockTick = 10 * time.Millisecond

// cpuTime reads what a process has used, as user and in the kernel.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("CPU times are read from /proc, which only Linux has: %w", err)
	}
	// the second field is the program's name, in brackets, with anything in it
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("reading the CPU time of process %d: %q", pid, b)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}
