package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
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

	mu      sync.Mutex       // guards the following field
	engines []*runningEngine // that configurations use, the newest last
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

// trouble is what an operator must know of a server in this process.
func (s *openStore) trouble() error {
	if s.embedded == nil {
		return nil
	}
	return s.embedded.Err()
}

// agree makes the newest configuration's idle timeout and limits those of all
// engines on the store: of retired ones too, whose streams would else keep
// sandboxes awake by the timeout that they were opened under.
func (s *openStore) agree() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.engines) == 0 {
		return
	}
	newest := s.engines[len(s.engines)-1]
	for r := range open.all() {
		if r.store == s {
			r.SetDefaults(newest.idle, newest.limits)
		}
	}
}

func (s *openStore) add(r *runningEngine) {
	s.mu.Lock()
	s.engines = append(s.engines, r)
	s.mu.Unlock()
	s.agree()
}

func (s *openStore) drop(r *runningEngine) {
	s.mu.Lock()
	s.engines = slices.DeleteFunc(s.engines, func(other *runningEngine) bool { return other == r })
	s.mu.Unlock()
	s.agree()
}

// runningEngine is an engine with what it works on: its hosts, and its part of
// a store. It is closed when no configuration uses it, and nothing that came
// under one is being served any more.
type runningEngine struct {
	*engine.Engine
	uses     *uses
	wishes   wishes
	idle     time.Duration // as configured
	limits   session.Limits
	hosts    []openHost
	store    *openStore
	storeKey string
	logger   *zap.Logger
	events   *announcer
	closing  func() error // once
}

func newRunningEngine(a *App) (*runningEngine, error) {
	key := a.Etcd.key()
	s, _, err := stores.LoadOrNew(key, func() (caddy.Destructor, error) {
		return newOpenStore(a.Etcd, a.logger.Named("etcd"))
	})
	if err != nil {
		return nil, fmt.Errorf("opening the session store: %w", err)
	}
	r := &runningEngine{store: s.(*openStore), storeKey: key, logger: a.logger, uses: newUses(), events: newAnnouncer(a.logger)}
	if err := r.start(a); err != nil {
		return nil, errors.Join(err, r.release())
	}
	r.closing = sync.OnceValue(r.close)
	for former := range open.all() {
		r.Succeed(former.Engine)
	}
	open.add(r)
	r.store.add(r)
	return r, nil
}

func (r *runningEngine) start(a *App) error {
	var hosts []engine.Host
	for _, m := range a.hosts {
		h, err := m.Open(a.Data, a.logger)
		if err != nil {
			return fmt.Errorf("opening a host of sandboxes: %w", err)
		}
		r.hosts = append(r.hosts, h)
		hosts = append(hosts, h.Host)
	}
	r.idle = cmp.Or(time.Duration(a.IdleTimeout), pauser.DefaultIdleTimeout)
	r.limits = a.Limits.limits()
	e, err := engine.New(r.store.client, engine.Config{
		Prefix: a.Etcd.Prefix, Version: version(), Exclusive: a.Etcd.Embedded,
		IdleTimeout: r.idle, Limits: r.limits, HostTimeout: time.Duration(a.HostTimeout), CheckEvery: time.Duration(a.CheckEvery),
		ActivityResolution: time.Duration(*a.ActivityResolution), Hold: time.Duration(a.Hold),
		Drain: time.Duration(a.Drain), LeaseTTL: time.Duration(a.LeaseTTL),
		OwnerKey: a.OwnerMetadata, ProjectKey: a.ProjectMetadata,
		Reach: a.Etcd.reach, Trouble: r.store.trouble, Changed: r.events.changed, Hosts: hosts, Logger: a.logger,
	})
	if err != nil {
		return err
	}
	r.events.app.Store(a)
	go r.events.run()
	e.Start()
	r.Engine = e
	return nil
}

// stragglers is how long after a reload requests may still come under the old
// configuration: on connections that were open and had sent nothing yet, to
// which Go's server gives 5 s.
const stragglers = 6 * time.Second

// Destruct implements caddy.Destructor: the leadership goes to another engine,
// and this one ends with the last that it serves. At the end of the process the
// servers have their grace period first: see leave and exit.
func (r *runningEngine) Destruct() error {
	r.store.drop(r)
	r.Retire()
	if caddy.Exiting() {
		return nil
	}
	go func() {
		time.Sleep(stragglers)
		r.uses.close()
		if err := r.closing(); err != nil {
			r.logger.Error("closing a former configuration", zap.Error(err))
		}
	}()
	return nil
}

// close must be called through closing.
func (r *runningEngine) close() error {
	defer open.remove(r)
	r.Engine.Close()
	close(r.events.stop)
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
