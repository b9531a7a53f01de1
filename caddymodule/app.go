// Package caddymodule is Sandman as Caddy sees it: modules, directives,
// commands and their lifecycle. It translates; the work is done in internal/.
//
//	app        sandman                              the engine, shared by all sites
//	handler    http.handlers.sandman                the gate: which sandbox, and does it run
//	transport  http.reverse_proxy.transport.sandman forwards, replays, meters
//	handler    http.handlers.sandman_api            the JSON API
//	handler    http.handlers.sandman_e2b            the E2B API, passed through
//	hosts      sandman.hosts.*                      where sandboxes run
package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
)

func init() {
	caddy.RegisterModule(App{})
}

// DefaultData is the folder that is used where App.Data is not set.
const DefaultData = ".sandman"

// App lets sandboxes sleep while nobody uses them, and wakes them on the next
// request. It holds what all sites share: the session store, the hosts where
// the sandboxes run, and the idle timeouts. The sites use it through the
// `sandman` handler and transport (`sandman_proxy` in a Caddyfile).
//
// Events of Caddy's events app, with the data `id`, `state`, `reason`, `since`,
// `owner` and `project`. Each is emitted once, by the process that leads;
// subscribers hold up nothing but the next event:
//
// Event | When
// ------|-----
// `sandman_paused` | A sandbox was paused
// `sandman_resumed` | A sandbox was woken
// `sandman_killed` | A sandbox was found to be gone at its host
type App struct {
	// The folder for everything that is kept on disk: embedded etcd, local
	// sandboxes, a generated token. It is made with mode 0700. Two processes
	// can't share one. Default: `.sandman` in the working directory.
	Data string `json:"data,omitempty"`

	// Where sessions are stored. Default: an embedded etcd in the data folder.
	Etcd *Etcd `json:"etcd,omitempty"`

	// Where sandboxes run. The first host creates the new ones, and is what the
	// E2B API leads to; all of them are asked for a sandbox that is not known.
	// Of several of one kind, all but one must be given a `name`.
	// Default: `local`, process trees on this machine.
	HostsRaw []json.RawMessage `json:"hosts,omitempty" caddy:"namespace=sandman.hosts inline_key=host"`

	// How long a sandbox must be unused before it is paused, unless it has an
	// idle timeout of its own, or its project or owner has (`/policies` in the
	// API). A shorter one saves more and lets visitors wait
	// for a wake more often. A reload applies it to what is running, too. At
	// least 2s. Default: 10m.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`

	// What idle timeouts may be, whoever sets them.
	Limits *Limits `json:"limits,omitempty"`

	// How often all records are compared with the hosts' own lists. Deadlines
	// are met without it; it finds what others have done at a host, and costs a
	// list of all sandboxes each time. Default: 5m.
	CheckEvery caddy.Duration `json:"check_every,omitempty"`

	// How often a sandbox's activity is written to etcd at most. A longer one
	// spares etcd, and lets other proxies see the last use later; no pause
	// depends on it. 0 writes each change. Default: 1s.
	ActivityResolution *caddy.Duration `json:"activity_resolution,omitempty"`

	// What a running sandbox costs per minute, in any currency, for the savings
	// that are shown. Default: 0.
	PricePerMinute float64 `json:"price_per_minute,omitempty"`

	// The currency of that price, such as USD, which is shown with each amount.
	// In a Caddyfile it stands behind the amount. Default: none is shown.
	Currency string `json:"currency,omitempty"`

	// The timeout that the host's own API gives a sandbox, which ends its run
	// whether somebody uses it or not. The savings tell what whole runs of it
	// would have cost instead. A reload applies it to what is counted from then
	// on. Default: 5m, as E2B's API and SDKs have it.
	HostTimeout caddy.Duration `json:"host_timeout,omitempty"`

	// Who may use the API. Without one nobody may. A reload that changes only
	// these changes nothing else.
	Tokens []Token `json:"tokens,omitempty"`

	// The key of the metadata that a sandbox was created with, whose value is
	// its owner. Default: `userId`.
	OwnerMetadata string `json:"owner_metadata,omitempty"`

	// The same for its project. Default: `projectId`.
	ProjectMetadata string `json:"project_metadata,omitempty"`

	// How long a request is held while its sandbox wakes, before it is answered
	// with 503 and `Retry-After`. It begins when a pause that is under way has
	// ended. The wake goes on without it. Requests to port 49983, the SDK's, are
	// held for 55s. Default: 30s.
	Hold caddy.Duration `json:"hold,omitempty"`

	// How long a pause by hand waits for the requests in flight, before it is
	// refused, or ends them if it is forced. New requests are held meanwhile.
	// Default: 5s.
	Drain caddy.Duration `json:"drain,omitempty"`

	// How long a proxy that has vanished is still taken for serving. A shorter
	// one lets another proxy lead sooner after a crash, and bears shorter
	// outages of etcd. Default: 10s.
	LeaseTTL caddy.Duration `json:"lease_ttl,omitempty"`

	hosts    []hostModule
	tokens   []api.Token
	running  *runningEngine
	identity string        // all of the configuration that an engine depends on
	poolKey  string        // identity, while the engine is in use
	started  chan struct{} // closed once running is set
	onStart  []func()      // what whenStarted waits with
	demo     bool          // the demo sandbox is in our care
	ctx      caddy.Context // for other apps, and events

	serving     context.Context // ends when this configuration, or the process, is about to end
	stopServing context.CancelFunc

	logger *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "sandman",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision sets up a. Nothing is connected before Start.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	a.started = make(chan struct{})
	a.serving, a.stopServing = context.WithCancel(ctx)
	a.defaults()
	if err := makeDataFolder(a.Data); err != nil {
		return err
	}
	var err error
	if a.identity, err = a.identify(); err != nil {
		return err
	}
	mods, err := ctx.LoadModule(a, "HostsRaw")
	if err != nil {
		return fmt.Errorf("loading hosts: %w", err)
	}
	for _, mod := range mods.([]any) {
		h, ok := mod.(hostModule)
		if !ok {
			return fmt.Errorf("module %T is no host of sandboxes", mod)
		}
		a.hosts = append(a.hosts, h)
	}
	for _, t := range a.Tokens {
		token, err := t.resolve(a.Data)
		if err != nil {
			return err
		}
		a.tokens = append(a.tokens, token)
	}
	if err := a.watchStopping(ctx); err != nil {
		return err
	}
	return a.provisionDemo(ctx)
}

func (a *App) defaults() {
	if a.Data == "" {
		a.Data = DefaultData
	}
	if abs, err := filepath.Abs(a.Data); err == nil {
		a.Data = abs
	}
	if a.Etcd == nil {
		a.Etcd = &Etcd{Embedded: true}
	}
	if a.Etcd.Embedded && a.Etcd.Dir == "" {
		a.Etcd.Dir = filepath.Join(a.Data, "etcd")
	}
	if len(a.HostsRaw) == 0 {
		a.HostsRaw = []json.RawMessage{json.RawMessage(`{"host":"local"}`)}
	}
	if a.ActivityResolution == nil {
		second := caddy.Duration(time.Second)
		a.ActivityResolution = &second
	}
}

// identify must be called before the raw hosts are loaded, and let go.
func (a *App) identify() (string, error) {
	settings := *a
	settings.Tokens, settings.PricePerMinute, settings.Currency = nil, 0, ""
	b, err := json.Marshal(settings)
	if settings.Etcd != nil {
		b = append(b, settings.Etcd.key()...)
	}
	return string(b), err
}

// currencies are ISO 4217's codes and the like, or signs.
var currencies = regexp.MustCompile(`^(|[A-Za-z]{1,5}|[A-Za-z]{0,3}\p{Sc})$`)

// Validate checks the values, and what they mean together.
func (a *App) Validate() error {
	if d := time.Duration(a.IdleTimeout); d != 0 && d < session.MinIdleTimeout {
		return fmt.Errorf("idle_timeout %s is too short: at least %s", d, session.MinIdleTimeout)
	}
	for name, d := range map[string]caddy.Duration{
		"host_timeout": a.HostTimeout, "check_every": a.CheckEvery, "activity_resolution": *a.ActivityResolution, "hold": a.Hold, "drain": a.Drain, "lease_ttl": a.LeaseTTL,
	} {
		if d < 0 {
			return fmt.Errorf("%s must not be negative", name)
		}
	}
	if err := a.Limits.validate(time.Duration(a.IdleTimeout)); err != nil {
		return err
	}
	if a.PricePerMinute < 0 {
		return errors.New("price_per_minute must not be negative")
	}
	if !currencies.MatchString(a.Currency) {
		return fmt.Errorf("currency %q is none: write three letters such as USD, or a sign such as €", a.Currency)
	}
	if err := checkHostNames(a.hosts); err != nil {
		return err
	}
	for _, h := range a.hosts {
		if _, local := h.(*LocalHost); local && !a.Etcd.Embedded {
			return errors.New("host local can't be used with a shared etcd: other proxies could not reach its sandboxes; run cmd/sandboxd and name its URL as the host")
		}
	}
	if err := api.CheckTokens(a.tokens); err != nil {
		return err
	}
	return a.Etcd.validate()
}

// Start starts the engine, or takes over the one that an equal configuration
// runs already.
func (a *App) Start() error {
	v, _, err := engines.LoadOrNew(a.identity, func() (caddy.Destructor, error) { return newRunningEngine(a) })
	if err != nil {
		return err
	}
	a.poolKey, a.running = a.identity, v.(*runningEngine)
	a.running.events.app.Store(a)
	close(a.started)
	for _, f := range a.onStart {
		f()
	}
	return nil
}

// Stop gives the engine up. Where no other configuration uses it, leadership is
// resigned, and the engine ends with what it still serves.
func (a *App) Stop() error {
	if a.poolKey == "" {
		return nil
	}
	a.stopServing()
	a.stopDemo()
	key := a.poolKey
	a.poolKey = ""
	_, err := engines.Delete(key)
	return err
}

// use gives the engine, once the app has started: the http app may serve before
// that. The engine goes on until its uses have ended, which must follow.
func (a *App) use(ctx context.Context) (*runningEngine, error) {
	select {
	case <-a.started: // looked at alone, which takes no lock that all requests share
	default:
		select {
		case <-a.started:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if !a.running.uses.begin() {
		return nil, errReplaced
	}
	return a.running, nil
}

// errReplaced: a request came long after its configuration was replaced.
var errReplaced = errors.New("the connection is from before the configuration was changed; send the request again on a new one")

// appOf gives the app that a module belongs to.
func appOf(ctx caddy.Context) (*App, error) {
	v, err := ctx.App("sandman")
	if err != nil {
		return nil, fmt.Errorf("the sandman app: %w", err)
	}
	return v.(*App), nil
}

// Interface guards
var (
	_ caddy.App         = (*App)(nil)
	_ caddy.Provisioner = (*App)(nil)
	_ caddy.Validator   = (*App)(nil)
)
