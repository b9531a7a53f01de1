package sandboxd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/sandboxd/envd"
	"github.com/sandman-proxy/sandman/internal/sandboxd/freezer"
)

// DefaultAPIKey is accepted where no other is configured. A host with it must
// not be reachable from other machines.
const DefaultAPIKey = "e2b_0000000000000000000000000000000000000000"

// opTimeout bounds one transition, without the delays of [Faults].
const opTimeout = 30 * time.Second

// Config is what a host is opened with.
type Config struct {
	// Dir holds the sandboxes: their records, homes and logs. One host at a time
	// can have it open.
	Dir string
	// APIKey must come with every call; empty means [DefaultAPIKey].
	APIKey string
	// EnvdCommand is the command that calls [EnvdMain]; a sandbox's folder is
	// appended to it. Empty means this program with the argument "envd".
	EnvdCommand []string
	// Freezer is the way of pausing; empty means the best that works here.
	Freezer freezer.Mode
	Faults  Faults
	// Logger may be nil.
	Logger *zap.Logger
}

// Host is a host of sandboxes. Its methods may be called at once.
type Host struct {
	cfg     Config
	log     *zap.Logger
	unlock  func() error
	freezer *freezer.Freezer
	changes *dispatcher
	conns   conns

	// ctx ends at Close; with it end the watchers, but no transition.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // transitions and watchers

	mu        sync.Mutex // guards the following fields
	sandboxes map[string]*sandbox
	faults    Faults
	closed    bool
}

// ErrUnknown says that there is no such sandbox.
var ErrUnknown = errors.New("no such sandbox")

var errClosed = errors.New("the host is closed")

// EnvdMain is the hidden command of a program that opens a host: it runs a
// sandbox's envd until it is killed, and returns an exit code. Args are those
// that follow [Config.EnvdCommand].
func EnvdMain(args []string) int { return envd.Main(args) }

// Open opens the host in cfg.Dir, with the sandboxes that live in it. Those whose
// processes are gone are removed, lifetimes that have run out meanwhile end now.
func Open(ctx context.Context, cfg Config) (*Host, error) {
	if err := complete(&cfg); err != nil {
		return nil, fmt.Errorf("opening the host: %w", err)
	}
	unlock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening the host in %q: %w", cfg.Dir, err)
	}
	fz, err := freezer.Detect(ctx, cfg.Freezer)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the host: %w", err), unlock())
	}
	h := &Host{
		cfg: cfg, log: cfg.Logger, unlock: unlock, freezer: fz, faults: cfg.Faults,
		changes: newDispatcher(), sandboxes: map[string]*sandbox{},
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	if err := h.attachAll(ctx); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// complete fills in defaults and makes the folder.
func complete(cfg *Config) error {
	if cfg.APIKey == "" {
		cfg.APIKey = DefaultAPIKey
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if len(cfg.EnvdCommand) == 0 {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cfg.EnvdCommand = []string{self, "envd"}
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "sandboxes"), 0o700); err != nil {
		return err
	}
	// envd compares paths with its home's
	abs, err := filepath.Abs(cfg.Dir)
	if err == nil {
		cfg.Dir, err = filepath.EvalSymlinks(abs)
	}
	return err
}

// Close lets go of the sandboxes, which go on running or sleeping. It waits for
// transitions that are under way.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	for _, s := range h.all() {
		s.stopTimer()
	}
	h.work.Wait()
	h.changes.close()
	return h.unlock()
}

// start runs f in a goroutine that Close waits for.
func (h *Host) start(f func()) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errClosed
	}
	h.work.Go(f)
	return nil
}

// Freezer names the way of pausing that was found, for people.
func (h *Host) Freezer() string { return string(h.freezer.Kind()) }

// SetFaults replaces the faults, from the next call on.
func (h *Host) SetFaults(f Faults) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = f
}

func (h *Host) currentFaults() Faults {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.faults
}

// OnChange has f called after each change of a sandbox to running, paused or
// killed, in the order of the changes, from one goroutine and with no lock held.
// Changes before the call are not reported.
func (h *Host) OnChange(f func(id string, state State)) { h.changes.add(f) }

// Location is where a sandbox is.
type Location struct {
	State State
	envd  netip.AddrPort
}

// Addr returns the address and port at which the sandbox's port can be dialled
// while it is running.
func (l Location) Addr(port uint16) netip.AddrPort {
	if port == envd.Port {
		return l.envd
	}
	return netip.AddrPortFrom(l.envd.Addr(), port)
}

// Lookup says where a sandbox is; [ErrUnknown] if there is none. An address that
// was looked up is the sandbox's own until it is killed.
func (h *Host) Lookup(id string) (Location, error) {
	s, err := h.find(id)
	if err != nil {
		return Location{}, err
	}
	l := s.location()
	if l.State == StateKilled {
		return Location{}, ErrUnknown
	}
	return l, nil
}

func (h *Host) find(id string) (*sandbox, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s, ok := h.sandboxes[id]; ok {
		return s, nil
	}
	return nil, ErrUnknown
}

func (h *Host) all() []*sandbox {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]*sandbox, 0, len(h.sandboxes))
	for _, s := range h.sandboxes {
		list = append(list, s)
	}
	return list
}

func (h *Host) put(s *sandbox) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errClosed
	}
	h.sandboxes[s.id] = s
	return nil
}

func (h *Host) forget(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sandboxes, id)
}

func (h *Host) dir(id string) string { return filepath.Join(h.cfg.Dir, "sandboxes", id) }

// lockDir refuses a second host in the same folder. The lock goes with the
// process, also when it is killed; envd doesn't inherit it.
func lockDir(dir string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("another host has this folder open: %w", err)
	}
	return func() error { return errors.Join(funlock(f), f.Close()) }, nil
}
