package store

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/sandman-proxy/sandman/internal/session"
)

// Client is the etcd client that a Store works with.
type Client = clientv3.Client

// Defaults of [Config].
const (
	DefaultPrefix   = "/sandman/v1/"
	DefaultLeaseTTL = 10 * time.Second

	// DefaultHostTimeout is the timeout that E2B's API and SDKs give a sandbox
	// at create and connect where nobody names one (POST /v2/sandboxes: 300 s).
	DefaultHostTimeout = 5 * time.Minute
)

// requestTimeout bounds each call to etcd, also where the caller's context
// has no deadline: an etcd client without a server waits for ever.
const requestTimeout = 5 * time.Second

var (
	// ErrConflict is wrapped by the error of a step whose compare failed:
	// nothing was written, and the view has what the compare saw.
	ErrConflict = session.ErrConflict

	// ErrNoLease is wrapped by the error of a step that needs this node's
	// lease while there is none. Nothing was written.
	ErrNoLease = errors.New("this node has no lease")

	// ErrBroken is wrapped instead of ErrConflict where the record that is in
	// the way can't be read: looking at the view again would show nothing.
	ErrBroken = errors.New("the stored value can't be read")

	// ErrNoSpace is wrapped by the error of every write while etcd is over
	// its quota. Nothing was written.
	ErrNoSpace = errors.New("etcd is over its quota: compact and defragment it, or raise the quota")

	// ErrAway is wrapped by the error of a call that etcd, or what is between,
	// has failed for reasons of its own. A write may have landed.
	ErrAway = errors.New("etcd does not do what it is asked")
)

// Config configures a Store. The zero value works.
type Config struct {
	// Prefix of all keys, default DefaultPrefix. Stores with the same prefix
	// in the same etcd are one Sandman.
	Prefix string

	// Node names this process, default a random name. It must be new at each
	// start: presence and ops of an earlier process must not look alive.
	Node string

	// LeaseTTL is how long presence outlives a process that has died, default
	// DefaultLeaseTTL. etcd knows whole seconds only, and none below 2.
	LeaseTTL time.Duration

	// HostTimeout is the host's own timeout that usage is compared with, default
	// DefaultHostTimeout.
	HostTimeout time.Duration

	// Logger, default none.
	Logger *zap.Logger
}

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if !strings.HasSuffix(c.Prefix, "/") {
		c.Prefix += "/"
	}
	if c.Node == "" {
		c.Node = strings.ToLower(rand.Text()[:12])
	}
	if c.LeaseTTL <= 0 {
		c.LeaseTTL = DefaultLeaseTTL
	}
	if c.HostTimeout <= 0 {
		c.HostTimeout = DefaultHostTimeout
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return c
}

// Store is one process's access to the sessions in etcd. Its methods may be
// called from any goroutine; those that take a Txn's turn need Run to be
// running.
type Store struct {
	client  *clientv3.Client
	cfg     Config
	keys    keys
	log     *zap.Logger
	contact *contact
	view    *View
	keeper  *keeper
	trimmer *trimmer
}

// New gives a Store on the client, which stays the caller's to close, after
// Run has returned. No call is made before Run.
func New(client *clientv3.Client, cfg Config) *Store {
	cfg = cfg.withDefaults()
	s := &Store{client: client, cfg: cfg, keys: keys{cfg.Prefix}, log: cfg.Logger}
	s.contact = newContact(cfg.Logger, maxSilence(cfg.LeaseTTL))
	s.view = newView(s.keys, s.contact)
	s.keeper = newKeeper(s)
	s.trimmer = newTrimmer()
	return s
}

// Run keeps the node's lease and its key under nodes/, and feeds the view,
// until ctx is done; then it revokes the lease, with which the node's presence
// goes. It never gives up: an etcd that is away, at the start too, is tried
// again. The caller awaits it before closing the client. The error is nil.
func (s *Store) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { s.keeper.run(ctx); return nil })
	g.Go(func() error { s.feed(ctx); return nil })
	g.Go(func() error { s.trimAsTold(ctx); return nil })
	return g.Wait()
}

// Node is this process's name in presence, ops and history.
func (s *Store) Node() string { return s.cfg.Node }

// View is what this process knows of all sessions.
func (s *Store) View() *View { return s.view }

// Lease is the node's lease as it stands, the zero Lease if there is none. It
// is one atomic load: cheap enough for every request.
func (s *Store) Lease() Lease { return s.keeper.lease() }
