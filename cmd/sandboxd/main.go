// Command sandboxd is a local host of sandboxes that speaks the E2B API. It is
// for development, tests and trusted code: process trees are no security
// boundary.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/caarlos0/env/v11"
	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/sandboxd"
	"github.com/sandman-proxy/sandman/internal/sandboxd/freezer"
)

// config is read from the environment.
type config struct {
	// Listen is the one address of the API and the data plane; port 0 takes a
	// free one, which is printed.
	Listen string `env:"SANDBOXD_LISTEN" envDefault:"127.0.0.1:3080"`
	// Data holds the sandboxes.
	Data string `env:"SANDBOXD_DATA" envDefault:"./.sandboxd"`
	// Faults make the host misbehave, see sandboxd.Faults.
	Faults string `env:"SANDBOXD_FAULTS"`
	// Freezer is auto, cgroup or signal.
	Freezer string `env:"SANDBOXD_FREEZER" envDefault:"auto"`
	// APIKey must come with every call of the API.
	APIKey string `env:"E2B_API_KEY"`
}

// shutdownTimeout is how long calls in progress may take after SIGTERM.
const shutdownTimeout = 5 * time.Second

func main() {
	// the host runs this program again as each sandbox's daemon
	if len(os.Args) > 1 && os.Args[1] == "envd" {
		os.Exit(sandboxd.EnvdMain(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "sandboxd:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	cfg, err := env.ParseAs[config]()
	if err != nil {
		return err
	}
	faults, err := sandboxd.ParseFaults(cfg.Faults)
	if err != nil {
		return fmt.Errorf("SANDBOXD_FAULTS: %w", err)
	}
	if err := checkListen(cfg); err != nil {
		return fmt.Errorf("SANDBOXD_LISTEN: %w", err)
	}
	log, err := zap.NewProduction()
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	host, err := sandboxd.Open(ctx, sandboxd.Config{
		Dir: cfg.Data, APIKey: cfg.APIKey, Faults: faults,
		Freezer: freezer.Mode(cfg.Freezer), Logger: log,
	})
	if err != nil {
		return err
	}
	return errors.Join(serve(ctx, cfg, host), host.Close())
}

// checkListen keeps a host whose key everybody knows off the network.
func checkListen(cfg config) error {
	if cfg.APIKey != "" && cfg.APIKey != sandboxd.DefaultAPIKey {
		return nil
	}
	name, _, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(name); name == "localhost" || (ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%q can be reached from other machines: set E2B_API_KEY to a key of your own first", cfg.Listen)
}

// serve runs until ctx ends. The sandboxes go on without it.
func serve(ctx context.Context, cfg config, host *sandboxd.Host) error {
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return err
	}
	announce(ln.Addr().String(), host)
	// no limits on reading and writing: the data plane's streams have none
	srv := &http.Server{Handler: host.Handler(), ReadHeaderTimeout: time.Minute, IdleTimeout: 10 * time.Minute}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	shutdown, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(shutdown); err != nil {
		return srv.Close() // streams don't end by themselves
	}
	return nil
}

// announce writes what a person needs; the first line's last word is the URL.
func announce(addr string, host *sandboxd.Host) {
	fmt.Printf("sandboxd listens on http://%s\n", addr)
	fmt.Printf("pausing with: %s\n", host.Freezer())
	fmt.Println("for development, tests and trusted code: process trees are no security boundary")
}
