// Package engine is one running Sandman: it wires the store, the visits, the
// waking and the pausing to each other and to the hosts, and knows nothing of
// the server in front of it.
package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/activity"
	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// Config is what an Engine goes by. Zero values mean the defaults, but Hosts
// must not be empty.
type Config struct {
	Prefix  string // of the keys in etcd
	Version string // shown in the status

	IdleTimeout time.Duration // default pauser.DefaultIdleTimeout
	CheckEvery  time.Duration // default pauser.DefaultCheckEvery
	LeaseTTL    time.Duration // default store.DefaultLeaseTTL
	Hold        time.Duration // default wake.DefaultHold
	Drain       time.Duration // default pauser.DefaultDrain

	// ActivityResolution is how often activity is written at most, for each
	// sandbox. 0 writes each change.
	ActivityResolution time.Duration

	// Limits are those of all idle timeouts, whoever sets them.
	Limits session.Limits

	// HostTimeout is the host's own timeout that usage is compared with. Default
	// store.DefaultHostTimeout.
	HostTimeout time.Duration

	// OwnerKey and ProjectKey name the metadata that a sandbox's owner and
	// project are taken from.
	OwnerKey, ProjectKey string

	// Exclusive says that no other process can use the store, as where it is
	// embedded: after a loss of contact nobody else needs time to come back.
	Exclusive bool

	// Reach tells what keeps this process from the store's servers, nil where
	// they can be connected to: the store's client says no more than that time
	// was up. It is called while there is no contact. Optional.
	Reach func(context.Context) error

	// Trouble tells what is the matter with a store that is embedded, and what
	// can be done; nil if nothing is. Optional.
	Trouble func() error

	// Changed is told of transitions as the watch brings them, by the engine that
	// leads. It must not block. Optional.
	Changed func(from session.State, r session.Record)

	Hosts  []Host // the first creates new sandboxes
	Logger *zap.Logger
}

func (c Config) withDefaults() Config {
	if c.IdleTimeout == 0 {
		c.IdleTimeout = pauser.DefaultIdleTimeout
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = store.DefaultLeaseTTL
	}
	if c.CheckEvery == 0 {
		c.CheckEvery = pauser.DefaultCheckEvery
	}
	if c.Trouble == nil {
		c.Trouble = func() error { return nil }
	}
	if c.OwnerKey == "" {
		c.OwnerKey = "userId"
	}
	if c.ProjectKey == "" {
		c.ProjectKey = "projectId"
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return c
}

// Engine is one running Sandman. Its methods may be called from any goroutine
// while it runs.
type Engine struct {
	cfg     Config
	log     *zap.Logger
	store   *store.Store
	view    *store.View
	visits  *activity.Tracker
	waker   *wake.Waker
	pauser  *pauser.Pauser
	hosts   hosts
	streams *Streams
	settle  settlePeriod
	secrets secrets
	runs    chan session.Run // that the store does not have yet
	started time.Time

	watchers *watchers

	leading  atomic.Bool
	toldAway atomic.Bool // somebody was told that the store is away
	defaults atomic.Pointer[defaults]

	client    *store.Client
	heir      atomic.Pointer[Engine]    // the engine that has taken over, on another store
	formers   atomic.Pointer[[]*Engine] // those that this one has taken over from
	mirroring sync.WaitGroup            // what is done for formers

	retire  context.CancelFunc // ends the leading
	stop    context.CancelFunc // ends all
	stopped chan struct{}
	ending  context.Context

	rescuing sync.Mutex // guards the following field, and that rescues begin
	noRescue bool
	rescues  sync.WaitGroup
}

// New gives an Engine on an etcd client, which stays the caller's to close,
// after Close has returned. Nothing runs before Start.
func New(client *store.Client, cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	if len(cfg.Hosts) == 0 {
		return nil, errors.New("no host of sandboxes is configured")
	}
	if err := checkNames(cfg.Hosts); err != nil {
		return nil, err
	}
	if cfg.IdleTimeout < session.MinIdleTimeout {
		return nil, fmt.Errorf("idle timeout %s is too short: at least %s", cfg.IdleTimeout, session.MinIdleTimeout)
	}
	e := &Engine{
		cfg: cfg, client: client, log: cfg.Logger, started: time.Now(), stopped: make(chan struct{}),
		runs: make(chan session.Run, runsAhead),
	}
	e.defaults.Store(&defaults{cfg.IdleTimeout, cfg.Limits})
	e.store = store.New(client, store.Config{Prefix: cfg.Prefix, LeaseTTL: cfg.LeaseTTL, HostTimeout: cfg.HostTimeout, Logger: cfg.Logger.Named("store")})
	e.view = e.store.View()
	e.streams = newStreams(e.State)
	e.watchers = newWatchers(e.view, e.get, e.show, e.standstill)
	e.settle = settlePeriod{view: e.view, span: cfg.LeaseTTL + 2*time.Second, node: e.store.Node(), alone: cfg.Exclusive}
	e.hosts = hosts{list: cfg.Hosts, ownerKey: cfg.OwnerKey, projectKey: cfg.ProjectKey, health: newHealth(cfg.Logger), former: e.hostOf}
	e.visits = activity.New(visitStore{e}, activity.Config{
		Resolution: cfg.ActivityResolution, Idle: e.idle, Linger: func(id string) time.Duration { return session.Linger(e.idle(id)) },
		Lost: e.lost, Logger: cfg.Logger.Named("activity"),
	})
	e.waker = wake.New(wakeStore{sessions{e}}, wakeHost{e.hosts}, wake.Config{
		Node: e.store.Node(), Hold: cfg.Hold, IdleTimeout: e.timeout, Logger: cfg.Logger.Named("wake"),
	})
	e.pauser = pauser.New(pauseStore{sessions{e}}, pauseHost{e.hosts}, pauser.Config{
		Node: e.store.Node(), IdleTimeout: e.timeout, CheckEvery: cfg.CheckEvery, Drain: cfg.Drain,
		Cut:   cfg.LeaseTTL + 5*time.Second, // the presence of a proxy that has died ends with its lease
		InUse: e.inUse, Streams: e.openStreams, Ran: e.ran, Logger: cfg.Logger.Named("pauser"),
	})
	return e, nil
}

// timeout is the idle timeout that holds for a session.
func (e *Engine) timeout(r session.Record) time.Duration { return e.rules(r).Settings(r).IdleTimeout }

// get gives the session as this process knows it; nil if it does not.
func (e *Engine) get(id string) *session.Snapshot {
	if s, ok := e.view.Get(id); ok {
		return &s.Snapshot
	}
	return nil
}

func (e *Engine) idle(id string) time.Duration {
	if s := e.get(id); s != nil {
		return e.timeout(s.Record)
	}
	return e.timeout(session.Record{})
}

// Start begins the engine's work. The store may be out of reach.
func (e *Engine) Start() {
	e.ending, e.stop = context.WithCancel(context.Background())
	var leading context.Context
	leading, e.retire = context.WithCancel(e.ending)
	stopHosts := make([]func(), 0, len(e.hosts.list))
	for _, h := range e.hosts.list {
		stopHosts = append(stopHosts, h.Watch(e.pausedByOthers))
	}
	unsubscribe := e.view.Subscribe(e.changed)
	go func() {
		defer close(e.stopped)
		e.run(leading)
		unsubscribe()
	}()
	context.AfterFunc(e.ending, func() {
		for _, stop := range stopHosts {
			stop()
		}
	})
}

// run ends in the order in which the parts need each other: first the
// leadership and the pauses under way, then presence, then the node's lease.
func (e *Engine) run(leading context.Context) {
	visits, endVisits := context.WithCancel(context.Background())
	base, endBase := context.WithCancel(context.Background())
	var visiting, storing, probing sync.WaitGroup
	probing.Go(func() { e.hosts.probe(e.ending, e.cfg.CheckEvery) })
	probing.Go(func() { e.tellContact(e.ending) })
	probing.Go(func() { e.tellReaders(e.ending) })
	storing.Go(func() { _ = e.store.Run(base) })
	storing.Go(func() { e.keepRuns(base) })
	visiting.Go(func() { e.visits.Run(visits) })
	visiting.Go(func() { e.streams.publish(visits, e.store.PutTraffic, e.log) })
	if err := e.store.Lead(leading, e.lead); err != nil {
		e.log.Error("leading failed", zap.Error(err))
	}
	<-e.ending.Done()
	probing.Wait()
	e.mirroring.Wait()
	e.rescuing.Lock()
	e.noRescue = true // see pausedByOthers
	e.rescuing.Unlock()
	e.rescues.Wait()
	e.waker.Wait()
	e.pauser.Wait()
	endVisits()
	visiting.Wait()
	endBase()
	storing.Wait()
}

func (e *Engine) lead(ctx context.Context, t store.Term) {
	e.settle.begin()
	e.leading.Store(true)
	defer e.leading.Store(false)
	e.log.Info("leading", zap.String("node", e.store.Node()))
	var tending sync.WaitGroup
	defer tending.Wait()
	tending.Go(func() { e.foldUsage(ctx) })
	e.pauser.Lead(ctx, term{e, t})
}

// Retire gives the leadership up, for good: another engine has taken over, and
// this one only ends what it serves.
func (e *Engine) Retire() {
	e.retire()
	e.disinherit()
}

// Close ends the engine: leadership is given up, presence taken back, the
// node's lease revoked. Calls to hosts under way have a few seconds to end. It
// must have been started.
func (e *Engine) Close() {
	e.stop()
	<-e.stopped
}

// Ready returns once the engine knows all sessions.
func (e *Engine) Ready(ctx context.Context) error { return e.view.Ready(ctx) }

// Node is the name of this process in presence, ops and history.
func (e *Engine) Node() string { return e.store.Node() }

// changed follows the watch: what other proxies and the leader do to a session
// decides what may be believed of our own visits.
func (e *Engine) changed(id string, old, s *store.Sandbox) {
	e.watchers.note(id, old, s)
	if s == nil {
		return
	}
	if s.PresenceOf(e.store.Node()) != 0 {
		e.visits.Observe(id)
	}
	if old != nil && len(old.Traffic) > 0 {
		e.observeTraffic(id, old, s)
	}
	if old != nil && old.Revision == s.Revision {
		return
	}
	if e.cfg.Changed != nil && old != nil && old.State != s.State && e.leading.Load() {
		e.cfg.Changed(old.State, s.Record)
	}
	e.heed(id, s)
	for _, f := range e.succeeded() {
		if f.heir.Load() == e {
			f.heed(id, s)
		}
	}
}

// heed lets what is served follow the session. The visits come first: a stream
// that is parked must not count any more, or its next message would undo that.
func (e *Engine) heed(id string, s *store.Sandbox) {
	defer e.streams.changed(id, s.State)
	switch {
	case s.State == session.Running:
		e.visits.Resume(id)
	case s.State == session.Pausing && s.Op != nil && s.Op.Phase == session.PhaseCutting:
		e.visits.Cut(id)
	case s.State == session.Pausing:
		e.visits.Drain(id)
	default:
		e.visits.Doubt(id)
		e.visits.Resume(id)
	}
}

// observeTraffic notices that what this process told is gone.
func (e *Engine) observeTraffic(id string, old, s *store.Sandbox) {
	_, was := old.TrafficOf(e.store.Node())
	if _, is := s.TrafficOf(e.store.Node()); was && !is {
		e.streams.lost(id)
	}
}

// lost is called for requests in flight whose presence is gone: the sandbox
// must run, and presence stand, again.
func (e *Engine) lost(ctx context.Context, id string) {
	v := e.visits.Begin(id, "request")
	defer v.End()
	err := e.waker.Ensure(ctx, id, v, wake.Cause{Reason: "a request was in flight", Kind: "request"})
	if err != nil && ctx.Err() == nil {
		e.log.Warn("requests are in flight at a sandbox that can't be made to run", zap.String("sandbox", id), zap.Error(err))
	}
}

// pausedByOthers is called by a host that notices pauses: if it was not one of
// ours while something is in flight, the sandbox is woken for it.
func (e *Engine) pausedByOthers(id string) {
	s := e.get(id)
	if requests, _ := e.visits.InUse(id); requests == 0 || s == nil || s.State != session.Running {
		return
	}
	e.rescuing.Lock()
	defer e.rescuing.Unlock()
	if e.noRescue {
		return
	}
	e.rescues.Go(func() {
		ctx, cancel := context.WithTimeout(e.ending, wake.DefaultCallTimeout)
		defer cancel()
		v := e.visits.Begin(id, "request")
		defer v.End()
		e.visits.Doubt(id)
		_ = e.waker.Ensure(ctx, id, v, wake.Cause{Reason: "paused by another tool while in use", Kind: "request", Suspect: s.Revision})
	})
}

// Streams are the long connections that this process has open.
func (e *Engine) Streams() *Streams { return e.streams }

// openStreams is how many streams of a session are open through all proxies: as
// they have told, and this one as it is.
func (e *Engine) openStreams(s *session.Snapshot) int {
	told, _ := s.TrafficOf(e.store.Node())
	return s.Streams() - told.Open + e.streams.open(s.SandboxID)
}

func (e *Engine) inUse(id string) []string {
	requests, streams := e.visits.InUse(id)
	var what []string
	for _, c := range []struct {
		n    int
		name string
	}{{requests, "request"}, {streams, "open stream"}} {
		switch {
		case c.n == 1:
			what = append(what, "1 "+c.name)
		case c.n > 1:
			what = append(what, fmt.Sprintf("%d %ss", c.n, c.name))
		}
	}
	return what
}

// settleAlone is the settle period of a process that has the store to itself:
// its own tracker puts presence again for all that it serves.
const settleAlone = time.Second

// settlePeriod is when this process may pause again after it lost contact with
// the store, or began to lead: by then every proxy that can reach the store
// has put presence again for what it serves.
type settlePeriod struct {
	view  *store.View
	span  time.Duration
	node  string
	alone bool // no other process can use the store

	mu    sync.Mutex // guards the following fields
	known bool       // epoch is that of a contact that was made
	epoch uint64
	at    time.Time
}

// begin starts a settle period for a new term.
func (s *settlePeriod) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	// a loss of contact may have begun a longer one
	if at := time.Now().Add(s.wait()); at.After(s.at) {
		s.at = at
	}
}

// now gives the end of the period, which is in the future while there is no
// contact, and the epoch of the contact.
func (s *settlePeriod) now() (time.Time, uint64) {
	epoch, ok := s.view.Contact()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !ok && s.alone, s.known && s.epoch != epoch && s.alone:
		s.at = time.Now().Add(settleAlone)
	case !ok:
		s.at = time.Now().Add(s.span)
	case !s.known:
		s.known = true
		s.at = time.Now().Add(s.wait())
	case s.epoch != epoch:
		s.at = time.Now().Add(s.span)
	}
	s.epoch = epoch
	return s.at, epoch
}

// wait is the period at a start: none where no other proxy can be serving.
func (s *settlePeriod) wait() time.Duration {
	if s.alone { // whoever used it before has died
		return 0
	}
	for _, n := range s.view.Nodes() {
		if n != s.node {
			return s.span
		}
	}
	return 0
}
