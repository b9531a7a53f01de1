package caddymodule

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sandman-proxy/sandman/internal/engine"
)

// The end of the process, in order:
//
//	"stopping"   streams of events end; leadership goes; WebSockets get their 1001, one after the other
//	             within the grace period; no more connections are accepted, and the requests of those
//	             that were come to be served
//	App.Stop     Caddy stops its apps, in no order; the http app gives what is
//	             being answered its grace period, and the engines serve on
//	OnExit       what is still held was told to come again; the engines take
//	             their presence back and end
func init() {
	caddy.OnExit(func(context.Context) { open.exit() })
}

// open are all engines of the process, also those whose configuration is gone.
var open = newOpenEngines()

type openEngines struct {
	mu       sync.Mutex // guards the following fields
	engines  []*runningEngine
	deadline time.Time // of the exit, zero before it

	leaving context.Context // ends when what is held must be answered
	release context.CancelFunc
}

func newOpenEngines() *openEngines {
	o := new(openEngines)
	o.leaving, o.release = context.WithCancel(context.Background()) //nolint:gosec // it lives as long as the process
	return o
}

func (o *openEngines) add(r *runningEngine) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.engines = append(o.engines, r)
}

func (o *openEngines) remove(r *runningEngine) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.engines = slices.DeleteFunc(o.engines, func(other *runningEngine) bool { return other == r })
}

func (o *openEngines) all() iter.Seq[*runningEngine] {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Values(slices.Clone(o.engines))
}

// watchStopping has stopping called before the first app is stopped.
func (a *App) watchStopping(ctx caddy.Context) error {
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	a.ctx = ctx
	return events.(*caddyevents.App).On("stopping", stopping{a})
}

type stopping struct{ app *App }

// Handle implements caddyevents.Handler. Streams of events end with their
// configuration, whose tokens may not be the next one's: their clients come
// again, and miss nothing.
func (s stopping) Handle(context.Context, caddy.Event) error {
	s.app.stopServing()
	if caddy.Exiting() {
		open.leave(s.app.gracePeriod())
		sockets.Leave(s.app.ctx)
	}
	return nil
}

// gracePeriod is the http app's, 0 if it has none.
func (a *App) gracePeriod() time.Duration {
	if app, err := a.ctx.AppIfConfigured("http"); err == nil {
		return time.Duration(app.(*caddyhttp.App).GracePeriod)
	}
	return 0
}

const (
	// defaultFarewell is how long WebSockets have where the servers wait for
	// ever for what they answer.
	defaultFarewell = 10 * time.Second

	// lastAnswers is how long before the end of the grace period what is still
	// held is answered.
	lastAnswers = time.Second

	// slowest is the longest time between two WebSockets that are closed: few
	// of them don't make the exit wait.
	slowest = 250 * time.Millisecond

	// lastCalls bounds what engines do at the end: presence that could not be
	// taken back ends with its lease.
	lastCalls = time.Second
)

// leave begins the end of the process. It does not block: what it waits for
// ends with the process.
func (o *openEngines) leave(grace time.Duration) {
	farewell := grace
	if grace == 0 {
		farewell = defaultFarewell
	}
	o.mu.Lock()
	begun := !o.deadline.IsZero()
	if !begun {
		o.deadline = time.Now().Add(farewell)
	}
	o.mu.Unlock()
	if begun {
		return
	}
	if grace > 0 {
		time.AfterFunc(max(grace/2, grace-lastAnswers), o.release)
	}
	go o.sayGoodbye(farewell)
	for r := range o.all() {
		r.Retire()
	}
}

// sayGoodbye closes the streams, spread over most of the given time, so that
// their clients don't all come again in the same moment.
func (o *openEngines) sayGoodbye(within time.Duration) {
	var all []func()
	for r := range o.all() {
		for _, s := range r.Streams().Leave() {
			all = append(all, func() { engine.Goodbye(s) })
		}
	}
	if len(all) == 0 {
		return
	}
	pace := time.NewTicker(min(slowest, max(time.Microsecond, within*4/5/time.Duration(len(all)))))
	defer pace.Stop()
	for _, say := range all {
		say()
		<-pace.C
	}
}

// exit ends the engines. The servers have answered all they could.
func (o *openEngines) exit() {
	o.leave(0) // where Caddy's events did not come
	o.mu.Lock()
	deadline := o.deadline
	o.mu.Unlock()
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	var all sync.WaitGroup
	for r := range o.all() {
		all.Go(func() { r.exit(ctx) })
	}
	all.Wait()
}

// exit waits for the streams, whose clients are being told to close, and closes
// the engine, whatever is left.
func (r *runningEngine) exit(ctx context.Context) {
	idle, closed := make(chan struct{}), make(chan error, 1)
	go func() { r.uses.close(); close(idle) }()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	go func() { closed <- r.closing() }()
	var err error
	select {
	case err = <-closed:
	case <-time.After(lastCalls):
		err = errors.New("calls under way have not ended in time")
	}
	if err != nil {
		r.logger.Warn("ending", zap.Error(err))
	}
}
