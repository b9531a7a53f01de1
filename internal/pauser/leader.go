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
	atWork    map[string]bool     // sessions that a worker is busy with
	busy      map[string]struct{} // sessions with an op, whoever's
	done      chan worked         // a worker has ended
	slots     chan struct{}       // bounds the workers

	looked     chan aheadLook // an end time was looked at
	aheadSlots chan struct{}  // bounds the lookers

	pass pass // what came due lately

	epoch     uint64        // of the contact with the store
	swept     chan struct{} // closed at the end of the sweep under way; nil: none is
	nextSweep time.Time
}

const (
	// maxWorkers is how many pauses one leader has under way at the same time.
	maxWorkers = 64
	// maxLookers is how many end times of runs it asks for at the same time.
	maxLookers = 8
)

// worked is the end of a worker.
type worked struct {
	id    string
	after time.Duration // nothing more is done about the session before that
}

// Lead does the leader's work until ctx ends. Pauses that have begun go on
// without it: they belong to this process, not to the term, see Wait. So does
// the leadership not wait for a slow host.
func (p *Pauser) Lead(ctx context.Context, term Term) {
	l := &leader{
		Pauser: p, term: term,
		deadlines: newDeadlines(), ahead: newAhead(), dirty: newDirtySet(),
		atWork: make(map[string]bool), busy: make(map[string]struct{}), done: make(chan worked), slots: make(chan struct{}, maxWorkers),
		looked: make(chan aheadLook), aheadSlots: make(chan struct{}, maxLookers),
	}
	defer func() { l.tellPass(time.Now(), true) }()
	_, l.epoch = p.store.SettledAt()
	stop := p.store.Watch(l.dirty.add)
	defer stop()
	l.run(ctx)
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
				l.schedule(id, 0)
			}
		case <-l.again:
			for _, s := range l.store.All() {
				l.schedule(s.SandboxID, 0)
			}
		case w := <-l.done:
			delete(l.atWork, w.id)
			l.schedule(w.id, w.after)
		case look := <-l.looked:
			if l.ahead.seen[look.id] == look.revision {
				l.ahead.checks.set(look.id, look.at)
			}
		case <-l.swept:
			l.noteSweep(time.Now())
		case <-timer.C:
		case now := <-every.C:
			l.tellPass(now, false)
			l.settleAbandoned(ctx)
			l.maybeSweep(ctx, now)
		}
		l.startAhead(ctx, time.Now())
		timer.Reset(l.startDue(ctx, time.Now()))
	}
}

// schedule works out anew when something is to be done about a session, not
// before the given time has passed.
func (l *leader) schedule(id string, after time.Duration) {
	if l.atWork[id] {
		return // looked at again when its worker has ended
	}
	s := l.store.Get(id)
	l.ahead.follow(id, s, time.Now())
	delete(l.busy, id)
	if s != nil && s.State.Busy() {
		l.busy[id] = struct{}{}
	}
	if s == nil || s.State != session.Running {
		l.deadlines.remove(id)
		return
	}
	at, ok := s.PauseAt(l.cfg.IdleTimeout(s.Record))
	switch {
	case ok:
		at = later(at, retryAt(s))
	case len(s.Presence) == 0 && s.Activity.Open:
		at = time.Now() // its proxy has vanished
	default:
		l.deadlines.remove(id)
		return
	}
	l.deadlines.set(id, later(at, time.Now().Add(after)))
}

// retryAt is when a pause may be tried again after one that failed. Only the
// span is believed of what another node wrote: its clock may be wrong. A record
// that somebody else has made must not keep it from sleeping for ever.
func retryAt(s *session.Snapshot) time.Time {
	if s.LastError == nil || s.LastError.Op != session.OpPause {
		return time.Time{}
	}
	return s.Seen.Add(min(maxBackoff, s.LastError.RetryAt.Sub(s.LastError.At)))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// startDue starts a worker for each session whose time has come, and tells
// after how long the next one's will.
func (l *leader) startDue(ctx context.Context, now time.Time) time.Duration {
	if wait := l.settling(now); wait > 0 {
		return wait
	}
	epoch := l.epoch
	for {
		id, at, ok := l.deadlines.next()
		if !ok {
			return time.Hour
		}
		if wait := at.Sub(now); wait > 0 {
			return wait
		}
		if !l.atWork[id] && !l.start(ctx, id, func() error { return l.due(ctx, id, epoch) }) {
			return time.Hour // all workers are busy: one that ends comes here
		}
		l.deadlines.remove(id)
	}
}

// settling tells how long no verdict may be reached. Each loss of contact with
// the store makes it begin anew: proxies ENTER again all that they are serving.
func (l *leader) settling(now time.Time) time.Duration {
	at, epoch := l.store.SettledAt()
	if epoch != l.epoch {
		l.epoch = epoch
		l.cfg.Logger.Info("contact with the store was lost; no pause until all proxies have entered again",
			zap.Time("until", at))
	}
	return at.Sub(now)
}

// start runs work in a worker of its own; false if none is free.
func (l *leader) start(ctx context.Context, id string, work func() error) bool {
	select {
	case l.slots <- struct{}{}:
	default:
		return false
	}
	l.atWork[id] = true
	l.spawn(func() { // or the process is about to end
		err := work()
		<-l.slots
		w := worked{id: id}
		if err != nil {
			w.after = workRetry
		}
		select {
		case l.done <- w:
		case <-ctx.Done(): // nobody listens any more
		}
	})
	return true
}

// workRetry is how long a session is left alone about which something could not
// be done, even if it was only that somebody else was quicker.
const workRetry = 200 * time.Millisecond

// due does what a session's deadline was for, if it still holds.
func (l *leader) due(ctx context.Context, id string, epoch uint64) error {
	s := l.store.Get(id)
	if s == nil || s.State != session.Running {
		return nil
	}
	timeout := l.cfg.IdleTimeout(s.Record)
	at, ok := s.PauseAt(timeout)
	var err error
	switch {
	case ok && !time.Now().Before(at):
		var told session.State
		began := time.Now()
		told, err = l.sleep(ctx, s, timeout, epoch)
		l.pass.note(id, began, told, err)
	case !ok && len(s.Presence) == 0 && s.Activity.Open:
		err = l.store.Lapsed(ctx, s)
	}
	if ctx.Err() == nil {
		l.report("pausing an idle sandbox", id, err)
	}
	return err
}

// settleAbandoned finishes the ops that nobody works on any more.
func (l *leader) settleAbandoned(ctx context.Context) {
	for id := range l.busy {
		s := l.store.Get(id)
		if s == nil || !s.State.Busy() || l.atWork[id] || !l.store.Abandoned(s) {
			continue
		}
		l.start(ctx, id, func() error {
			err := l.settle(ctx, s)
			if ctx.Err() == nil {
				l.report("settling an op that nobody finished", id, err)
			}
			return err
		})
	}
}

// startAhead sees to the hosts' end times.
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
			return // a looker that ends comes here
		}
		l.ahead.checks.set(id, now.Add(askTimeout)) // unless the answer says otherwise
		l.spawn(func() {
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
	if !l.spawn(func() { defer close(swept); l.Sweep(ctx) }) {
		close(swept)
	}
}

// sweepRetry is how soon hosts are compared again after one of them could not
// be.
const sweepRetry = 15 * time.Second

// noteSweep ends the sweep that was under way.
func (l *leader) noteSweep(now time.Time) {
	l.swept = nil
	if len(l.LastSweep().Errors) > 0 {
		if again := now.Add(sweepRetry); again.Before(l.nextSweep) {
			l.nextSweep = again
		}
	}
}

func (p *Pauser) report(doing, id string, err error) {
	if err != nil && !isConflict(err) {
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
