package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"
)

// runReload counts the requests that reloads lose, of clients that repeat
// none, beside Caddy's bare reverse_proxy on the same upstream: those whose
// connection ends without a byte of an answer.
func runReload(ctx context.Context, args []string) error {
	flags := newFlags("reload")
	reloads := flags.Int("reloads", 40, "reloads of each")
	clients := flags.Int("clients", 8, "clients at a time")
	every := flags.Duration("every", 100*time.Millisecond, "time between two reloads")
	_ = flags.Parse(args) // exits on error

	r, err := newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	id, err := r.sandbox(ctx)
	if err != nil {
		return err
	}
	s, _, err := r.state(ctx, id)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%d reloads of each\trequests\tlost\t\n", *reloads)
	for _, side := range []struct{ name, app, site string }{
		{"caddy reverse_proxy", "", "reverse_proxy " + s.Address},
		{"sandman", "sandman {\n\t\tdata " + r.dir + "/reloaded\n\t\thost " + r.hostURL + "\n\t}", fmt.Sprintf("request_header Host %d-%s.localhost\n\tsandman_proxy", appPort, id)},
	} {
		p, err := r.startReloadable(ctx, side.app, side.site)
		if err != nil {
			return err
		}
		for _, load := range reloadLoads {
			requests, lost, err := load.run(ctx, p, *clients, *reloads, *every)
			if err != nil {
				return errors.Join(err, p.close())
			}
			fmt.Fprintf(w, "%s, %s\t%d\t%d\t\n", side.name, load.name, requests, lost)
		}
		if err := p.close(); err != nil {
			return err
		}
	}
	return w.Flush()
}

// reloadable is a proxy with a site in plain text, and one by TLS.
type reloadable struct {
	cmd           *exec.Cmd
	program       string
	config, admin string
	plain, secure string // addresses
}

func (r *rig) startReloadable(ctx context.Context, app, site string) (*reloadable, error) {
	plain, err := freePort()
	if err != nil {
		return nil, err
	}
	secure, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &reloadable{
		program: filepath.Join(r.dir, "sandman"),
		config:  filepath.Join(r.dir, "reloaded.Caddyfile"), admin: "unix/" + filepath.Join(r.dir, "reloaded.sock"),
		plain: "127.0.0.1:" + strconv.Itoa(plain), secure: "127.0.0.1:" + strconv.Itoa(secure),
	}
	text := fmt.Sprintf(`{
	admin %s
	grace_period 10s
	persist_config off
	skip_install_trust
	auto_https disable_redirects
	%s
}
http://%s {
	%s
}
https://localhost:%d {
	bind 127.0.0.1
	tls internal
	%s
}
`, p.admin, app, p.plain, site, secure, site)
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p.cmd, err = r.launch([]string{"XDG_DATA_HOME=" + r.dir, "E2B_API_KEY="}, "sandman", "run", "--config", p.config)
	if err != nil {
		return nil, err
	}
	if err := r.await(ctx, "http://"+p.plain+plainPath); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *reloadable) close() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.cmd.Wait()
}

func (p *reloadable) reload(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, p.program, "reload", "--force", "--config", p.config, "--address", p.admin).CombinedOutput()
	if err != nil {
		return fmt.Errorf("reloading: %w: %s", err, out)
	}
	return nil
}

// reloadLoad is a kind of client. HTTP/2 is not among them: its server says
// which requests it has not looked at.
type reloadLoad struct {
	name         string
	secure, keep bool
}

var reloadLoads = []reloadLoad{
	{"new connections", false, false},
	{"kept connections", false, true},
	{"new connections, TLS", true, false},
	{"kept connections, TLS", true, true},
}

// run has clients ask as fast as they can, while p is reloaded.
func (l reloadLoad) run(ctx context.Context, p *reloadable, clients, reloads int, every time.Duration) (requests, lost int64, err error) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var asked, unanswered atomic.Int64
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for asking.Err() == nil {
				n, whole := l.ask(asking, p)
				asked.Add(n)
				if !whole {
					unanswered.Add(1)
				}
			}
		})
	}
	for n := 0; n < reloads && err == nil; n++ {
		select {
		case <-time.After(every):
			err = p.reload(ctx)
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	stop()
	all.Wait()
	return asked.Load(), unanswered.Load(), err
}

// ask sends requests on one connection, until the server announces its end or
// ctx ends, and says how many were answered, and whether all were.
func (l reloadLoad) ask(ctx context.Context, p *reloadable) (answered int64, all bool) {
	dialer, address := interface {
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	}(new(net.Dialer)), p.plain
	if l.secure {
		config := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"http/1.1"}} //nolint:gosec // its own CA's
		dialer, address = &tls.Dialer{Config: config}, p.secure
	}
	conn, err := dialer.DialContext(context.WithoutCancel(ctx), "tcp", address) // what was begun is counted
	if err != nil {
		return 0, false
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		_, err := io.WriteString(conn, "POST "+plainPath+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody")
		if err != nil {
			return answered, false
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return answered, false
		}
		_, err = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			return answered, false
		}
		answered++
		if !l.keep || res.Close || ctx.Err() != nil {
			return answered, true
		}
	}
}
