package pauser

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

// leader is one term's work.
type leader struct {
	*Pauser
	term Term

	deadlines *deadlines
	ahead     ahead
	dirty     *dirtySet
	atWork    map[string]bool // sessions that a worker is busy with
	done      chan string     // a worker has ended
	slots     chan struct{}   // bounds the workers

	looked     chan aheadLook // an end time was looked at
	aheadSlots chan struct{}  // bounds the lookers

	settledAt time.Time
	epoch     uint64
	swept     chan struct{} // closed at the end of the sweep under way; nil: none is
	nextSweep time.Time
}

const (
	// maxWorkers is how many pauses one leader has under way at the same time.
	maxWorkers = 64
	// maxLookers is how many end times of runs it asks for at the same time.
	maxLookers = 8
)

// Lead does the leader's work until ctx ends, and returns when all that it
// began has ended, too: a pause call is never cut short.
func (p *Pauser) Lead(ctx context.Context, term Term) {
	l := &leader{
		Pauser: p, term: term,
		deadlines: newDeadlines(), ahead: newAhead(), dirty: newDirtySet(),
		atWork: make(map[string]bool), done: make(chan string), slots: make(chan struct{}, maxWorkers),
		looked: make(chan aheadLook), aheadSlots: make(chan struct{}, maxLookers),
	}
	l.settledAt, l.epoch = p.store.SettledAt()
	stop := p.store.Watch(l.dirty.add)
	defer stop()
	l.run(ctx)
	for len(l.atWork) > 0 {
		delete(l.atWork, <-l.done)
	}
	if l.swept != nil {
		<-l.swept
	}
}

// run is the leader's one loop: everything that it knows is touched here.
func (l *leader) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-l.dirty.wake:
			for _, id := range l.dirty.take() {
				l.schedule(id)
			}
		case id := <-l.done:
			delete(l.atWork, id)
			l.schedule(id)
		case look := <-l.looked:
			if l.ahead.seen[look.id] == look.revision {
				l.ahead.checks.set(look.id, look.at)
			}
		case <-l.swept:
			l.swept = nil
		case <-timer.C:
		case now := <-every.C:
			l.checkContact()
			l.settleAbandoned(ctx)
			l.startAhead(ctx, now)
			l.maybeSweep(ctx, now)
		}
		timer.Reset(l.startDue(ctx, time.Now()))
	}
}

// schedule works out anew when something is to be done about a session.
func (l *leader) schedule(id string) {
	if l.atWork[id] {
		return // looked at again when its worker has ended
	}
	s := l.store.Get(id)
	l.ahead.follow(id, s, time.Now())
	if s == nil || s.State != session.Running {
		l.deadlines.remove(id)
		return
	}
	at, ok := s.PauseAt(l.cfg.IdleTimeout(s.Record))
	switch {
	case ok:
		if s.LastError != nil && s.LastError.Op == session.OpPause && s.LastError.RetryAt.After(at) {
			at = s.LastError.RetryAt
		}
		l.deadlines.set(id, at)
	case len(s.Presence) == 0 && s.Activity.Open:
		// one Txn deletes presence and closes the visit, but its two events
		// come one after the other
		l.deadlines.set(id, time.Now().Add(lapseGrace))
	default:
		l.deadlines.remove(id)
	}
}

const lapseGrace = 100 * time.Millisecond

// startDue starts a worker for each session whose time has come, and tells
// after how long the next one's will.
func (l *leader) startDue(ctx context.Context, now time.Time) time.Duration {
	if wait := l.settledAt.Sub(now); wait > 0 {
		return wait
	}
	for {
		id, at, ok := l.deadlines.next()
		if !ok {
			return time.Hour
		}
		if wait := at.Sub(now); wait > 0 {
			return wait
		}
		if !l.start(ctx, id, func() { l.due(ctx, id) }) {
			return 50 * time.Millisecond // all workers are busy
		}
		l.deadlines.remove(id)
	}
}

// start runs work in a worker of its own; false if none is free.
func (l *leader) start(_ context.Context, id string, work func()) bool {
	select {
	case l.slots <- struct{}{}:
	default:
		return false
	}
	l.atWork[id] = true
	l.ops.Go(func() {
		work()
		<-l.slots
		l.done <- id
	})
	return true
}

// due does what a session's deadline was for, if it still holds.
func (l *leader) due(ctx context.Context, id string) {
	s := l.store.Get(id)
	if s == nil || s.State != session.Running {
		return
	}
	timeout := l.cfg.IdleTimeout(s.Record)
	at, ok := s.PauseAt(timeout)
	var err error
	switch {
	case ok && !time.Now().Before(at):
		err = l.sleep(ctx, s, timeout)
	case !ok && len(s.Presence) == 0 && s.Activity.Open:
		err = l.store.Lapsed(ctx, s)
	}
	if err != nil && ctx.Err() == nil {
		l.report("pausing an idle sandbox", id, err)
	}
}

// checkContact drops what was decided before a loss of contact with the store,
// and settles anew.
func (l *leader) checkContact() {
	at, epoch := l.store.SettledAt()
	if epoch == l.epoch {
		return
	}
	l.settledAt, l.epoch = at, epoch
	l.cfg.Logger.Info("contact with the store was lost; no pause until all proxies have entered again",
		zap.Time("until", at))
}

// settleAbandoned finishes the ops that nobody works on any more.
func (l *leader) settleAbandoned(ctx context.Context) {
	for _, s := range l.store.All() {
		if s.State.Busy() && !l.atWork[s.SandboxID] && l.store.Abandoned(s) {
			l.start(ctx, s.SandboxID, func() {
				if err := l.settle(ctx, s); err != nil && ctx.Err() == nil {
					l.report("settling an op that nobody finished", s.SandboxID, err)
				}
			})
		}
	}
}

// startAhead sees to the hosts' end times. A second more or less is nothing
// beside their margin.
func (l *leader) startAhead(ctx context.Context, now time.Time) {
	for {
		id, at, ok := l.ahead.checks.next()
		if !ok || at.After(now) {
			return
		}
		s := l.store.Get(id)
		if s == nil || s.State != session.Running {
			l.ahead.checks.remove(id)
			continue
		}
		select {
		case l.aheadSlots <- struct{}{}:
		default:
			return // the rest comes with the next tick
		}
		l.ahead.checks.set(id, now.Add(askTimeout)) // unless the answer says otherwise
		l.ops.Go(func() {
			again := l.keepAhead(ctx, s)
			<-l.aheadSlots
			select {
			case l.looked <- aheadLook{id, s.Revision, time.Now().Add(again)}:
			case <-ctx.Done():
			}
		})
	}
}

// aheadLook says when a session's end time is to be looked at again.
type aheadLook struct {
	id       string
	revision int64 // of the record that it was looked at for
	at       time.Time
}

func (l *leader) maybeSweep(ctx context.Context, now time.Time) {
	if l.swept != nil || now.Before(l.nextSweep) {
		return
	}
	l.nextSweep = now.Add(l.cfg.CheckEvery)
	swept := make(chan struct{})
	l.swept = swept
	l.ops.Go(func() {
		defer close(swept)
		l.Sweep(ctx)
	})
}

func (p *Pauser) report(doing, id string, err error) {
	if !isConflict(err) {
		p.cfg.Logger.Warn(doing+" failed", zap.String("sandbox", id), zap.Error(err))
	}
}

// dirtySet collects the IDs of sessions that have changed.
type dirtySet struct {
	wake chan struct{}

	mu  sync.Mutex // guards the following field
	ids map[string]struct{}
}

func newDirtySet() *dirtySet {
	return &dirtySet{wake: make(chan struct{}, 1), ids: make(map[string]struct{})}
}

func (d *dirtySet) add(id string) {
	d.mu.Lock()
	d.ids[id] = struct{}{}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *dirtySet) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]string, 0, len(d.ids))
	for id := range d.ids {
		ids = append(ids, id)
	}
	clear(d.ids)
	return ids
}
