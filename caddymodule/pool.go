package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/store"
)

// What outlives a configuration. An engine is shared by all configurations
// that are equal in what it depends on; where they differ the old one serves
// what it has in flight, beside the new one, on the same store.
var (
	engines = caddy.NewUsagePool()
	stores  = caddy.NewUsagePool()
)

// openStore is one etcd client, and the server behind it where it is embedded.
type openStore struct {
	client   *store.Client
	embedded *store.Embedded
}

func newOpenStore(e *Etcd, logger *zap.Logger) (*openStore, error) {
	if !e.Embedded {
		client, err := e.dial(logger)
		return &openStore{client: client}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), embeddedStart)
	defer cancel()
	embedded, err := store.OpenEmbedded(ctx, store.EmbeddedConfig{Dir: e.Dir, Logger: logger})
	if err != nil {
		return nil, err
	}
	// nobody else can use it: what its former process was serving is over
	if err := store.EndFormer(ctx, embedded.Client(), e.Prefix); err != nil {
		return nil, errors.Join(err, embedded.Close())
	}
	return &openStore{client: embedded.Client(), embedded: embedded}, nil
}

const embeddedStart = 30 * time.Second

// Destruct implements caddy.Destructor.
func (s *openStore) Destruct() error {
	if s.embedded != nil {
		return s.embedded.Close()
	}
	return s.client.Close()
}

// runningEngine is an engine with what it works on: its hosts, and its part of
// a store.
type runningEngine struct {
	*engine.Engine
	hosts    []openHost
	storeKey string
	logger   *zap.Logger
}

func newRunningEngine(a *App) (*runningEngine, error) {
	key := a.Etcd.key()
	s, _, err := stores.LoadOrNew(key, func() (caddy.Destructor, error) {
		return newOpenStore(a.Etcd, a.logger.Named("etcd"))
	})
	if err != nil {
		return nil, fmt.Errorf("opening the session store: %w", err)
	}
	r := &runningEngine{storeKey: key, logger: a.logger}
	if err := r.start(a, s.(*openStore).client); err != nil {
		return nil, errors.Join(err, r.release())
	}
	return r, nil
}

func (r *runningEngine) start(a *App, client *store.Client) error {
	var hosts []engine.Host
	for _, m := range a.hosts {
		h, err := m.Open(a.Data, a.logger)
		if err != nil {
			return fmt.Errorf("opening a host of sandboxes: %w", err)
		}
		r.hosts = append(r.hosts, h)
		hosts = append(hosts, h.Host)
	}
	e, err := engine.New(client, engine.Config{
		Prefix: a.Etcd.Prefix, Version: version(), Exclusive: a.Etcd.Embedded,
		IdleTimeout: time.Duration(a.IdleTimeout), CheckEvery: time.Duration(a.CheckEvery),
		ActivityResolution: time.Duration(*a.ActivityResolution), Hold: time.Duration(a.Hold),
		Drain: time.Duration(a.Drain), LeaseTTL: time.Duration(a.LeaseTTL),
		OwnerKey: a.OwnerMetadata, ProjectKey: a.ProjectMetadata,
		Hosts: hosts, Logger: a.logger,
	})
	if err != nil {
		return err
	}
	e.Start()
	r.Engine = e
	return nil
}

// exitWait is how long an exit waits for requests that are being answered. A
// server in front of it waits for its own grace period.
const exitWait = 10 * time.Second

// Destruct implements caddy.Destructor. On a reload the requests that the old
// configuration still serves keep the engine; on exit they have exitWait.
func (r *runningEngine) Destruct() error {
	if caddy.Exiting() {
		ctx, cancel := context.WithTimeout(context.Background(), exitWait)
		defer cancel()
		_ = r.Drained(ctx)
		return r.close()
	}
	r.Retire()
	go func() {
		_ = r.Drained(context.Background())
		if err := r.close(); err != nil {
			r.logger.Error("closing a former configuration", zap.Error(err))
		}
	}()
	return nil
}

func (r *runningEngine) close() error {
	r.Engine.Close()
	return r.release()
}

// release gives up what the engine worked on.
func (r *runningEngine) release() error {
	var errs []error
	for _, h := range r.hosts {
		errs = append(errs, h.Close())
	}
	_, err := stores.Delete(r.storeKey)
	return errors.Join(append(errs, err)...)
}

// version is this module's, as the build knows it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == modulePath && m.Version != "" {
			return m.Version
		}
	}
	return "(devel)"
}

const modulePath = "github.com/sandman-proxy/sandman"
