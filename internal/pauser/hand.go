package pauser

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sandman-proxy/sandman/internal/failpoint"
	"github.com/sandman-proxy/sandman/internal/session"
)

// InUseError refuses a pause by hand: something is being served.
type InUseError struct {
	What []string // what is in flight, in words
}

func (e *InUseError) Error() string { return "in use: " + strings.Join(e.What, ", ") }

// Options of a pause by hand.
type Options struct {
	By    string // who asked for it, for the history: "token ops"
	Force bool   // end what is in flight instead of refusing
}

// hand is one pause by hand, which all who ask for it meanwhile wait for.
type hand struct {
	force bool // guarded by Pauser.mu: somebody who joined may force it
	done  chan struct{}
	err   error
}

// Pause pauses a session that somebody wants to sleep, whether it is idle or
// not:
//
//	RUNNING → PAUSING draining   new requests wait; proxies leave when nothing
//	                             is in flight, without lingering
//	draining → calling           once nobody is present
//	draining → cutting → calling after Config.Drain where it is forced: what is
//	                             in flight is ended
//
// changed is false if it slept before. A pause that has begun goes on if ctx
// ends. The error is an *InUseError where something is in flight and it is not
// forced, ErrGone where the sandbox is no more, and ErrAway where none could
// begin.
func (p *Pauser) Pause(ctx context.Context, id string, o Options) (changed bool, err error) {
	for {
		s := p.store.Get(id)
		switch {
		case s == nil || s.State == session.Killed:
			return changed, ErrGone
		case s.State == session.Paused:
			return changed, nil
		case s.State == session.Running:
			changed = true
			if err = p.untilSettled(ctx); err == nil {
				err = p.join(ctx, s, o)
			}
		case s.State == session.Pausing && p.raise(id, o):
			changed = true
			err = p.join(ctx, s, o)
		default: // somebody else's op: wait for its end
			changed = changed || s.State == session.Pausing
			err = p.await(ctx, s)
		}
		if err != nil && !isConflict(err) {
			return changed, err
		}
	}
}

// await waits for the end of an op that is not ours.
func (p *Pauser) await(ctx context.Context, s *session.Snapshot) error {
	if p.store.Abandoned(s) {
		return p.settle(ctx, s)
	}
	ctx, end := with(ctx, p.quit)
	defer end()
	within, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := p.store.Until(within, s.SandboxID, func(now *session.Snapshot) bool {
		return now == nil || now.State != s.State
	})
	if err != nil && ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}

// raise tells whether a pause by hand of this session is under way here, and
// forces it if o says so.
func (p *Pauser) raise(id string, o Options) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.hands[id]
	if ok && o.Force {
		h.force = true
	}
	return ok
}

// join starts the pause, or waits for the one that is under way here.
func (p *Pauser) join(ctx context.Context, s *session.Snapshot, o Options) error {
	h, err := p.hand(ctx, s, o)
	if err != nil {
		return err
	}
	select {
	case <-h.done:
		return h.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Pauser) hand(ctx context.Context, s *session.Snapshot, o Options) (*hand, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h, ok := p.hands[s.SandboxID]; ok {
		h.force = h.force || o.Force
		return h, nil
	}
	h := &hand{force: o.Force, done: make(chan struct{})}
	if !p.unsyncedSpawn(func() { p.runHand(ctx, s, h, o) }) {
		return nil, ErrShuttingDown
	}
	p.hands[s.SandboxID] = h
	return h, nil
}

func (p *Pauser) runHand(ctx context.Context, s *session.Snapshot, h *hand, o Options) {
	ctx, end := p.detach(ctx)
	defer end()
	h.err = p.pauseByHand(ctx, s, h, o)
	p.mu.Lock()
	delete(p.hands, s.SandboxID)
	p.mu.Unlock()
	close(h.done)
}

func (p *Pauser) forced(h *hand) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return h.force
}

func (p *Pauser) pauseByHand(ctx context.Context, s *session.Snapshot, h *hand, o Options) error {
	now := time.Now()
	settled, epoch := p.store.SettledAt()
	if settled.After(now) {
		return session.ErrConflict // contact was just lost: whoever asked waits again, or has left
	}
	reason := "paused by hand: " + o.By
	next, err := s.Sleep(p.newOp(session.PhaseDraining, p.cfg.Drain+p.cfg.Cut+p.cfg.CallWithin+p.cfg.CallTimeout+opMargin, now), reason, now)
	if err != nil {
		return session.ErrConflict
	}
	next.Parked = p.cfg.Streams(s)
	op, err := p.store.Drain(ctx, next)
	failpoint.Hit(failpoint.DrainDone)
	if err != nil {
		return errors.Join(err, p.undo(ctx, op))
	}
	d := drain{Pauser: p, hand: h, id: s.SandboxID, opID: next.Op.ID, op: op}
	sent, err := d.run(ctx)
	if err != nil {
		return errors.Join(err, p.giveUp(ctx, op, "pause refused, "+err.Error()))
	}
	_, err = p.call(ctx, op, verdict{s.Record, reason, sent, epoch})
	return err
}

// ErrAway: there is no contact with the store, without which nothing is paused.
var ErrAway = errors.New("the session store can't be reached: nothing is paused until it is back")

// awayFor is how long a pause by hand waits for contact with the store.
const awayFor = 4 * time.Second

// untilSettled waits for the end of the settle period. The error is ErrAway
// where it could not even begin for awayFor.
func (p *Pauser) untilSettled(ctx context.Context) error {
	ctx, cancel := with(ctx, p.quit)
	defer cancel()
	var lost time.Time
	for {
		at, _ := p.store.SettledAt()
		wait := time.Until(at)
		switch inReach := p.store.InReach(); {
		case inReach && wait <= 0:
			return nil
		case inReach:
			lost = time.Time{}
		case lost.IsZero():
			lost = time.Now()
		case time.Since(lost) >= awayFor:
			return ErrAway
		}
		if err := pause(ctx, min(max(wait, settleLook), time.Second)); err != nil {
			return err
		}
	}
}

// settleLook is how soon it is looked again whether there is contact.
const settleLook = 100 * time.Millisecond

// drain leads a pause by hand from draining to calling.
type drain struct {
	*Pauser
	hand *hand
	id   string
	opID string
	op   Op
}

// run gives the time at which the Txn was sent that allows the pause call. Its
// error says why there was none.
func (d drain) run(ctx context.Context) (sent time.Time, err error) {
	ctx, cancel := with(ctx, d.quit)
	defer cancel()
	sent, err = d.quieten(ctx, d.cfg.Drain, false)
	if !errors.Is(err, errBusy) {
		return sent, err
	}
	if !d.forced(d.hand) {
		return sent, &InUseError{What: d.inUse(d.id)}
	}
	if err := d.op.Advance(ctx, session.PhaseCutting, 0); err != nil {
		return sent, err
	}
	failpoint.Hit(failpoint.CutDone)
	sent, err = d.quieten(ctx, d.cfg.Cut, true)
	if errors.Is(err, errBusy) {
		err = &InUseError{What: d.inUse(d.id)}
	}
	return sent, err
}

// errBusy says that the time was over before the session was quiet.
var errBusy = errors.New("still in use")

// quieten waits until nobody is present and the last visit was closed, and
// takes the op to calling. After a lapse an empty presence is not an empty
// sandbox: its proxy may only have stalled. That is a reason to refuse, unless
// requests are being cut.
func (d drain) quieten(ctx context.Context, most time.Duration, cutting bool) (sent time.Time, err error) {
	within, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		s, err := d.store.Until(within, d.id, func(s *session.Snapshot) bool {
			return d.over(s) || (len(s.Presence) == 0 && (cutting || !s.Activity.Open))
		})
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return sent, errBusy
		case err != nil:
			return sent, err
		case d.over(s):
			return sent, errVoid
		}
		if s.Activity.Open {
			err = d.store.Lapsed(ctx, s)
		} else {
			sent = time.Now()
			err = d.op.Advance(ctx, session.PhaseCalling, s.ActivityRevision)
			if err == nil {
				return sent, nil
			}
		}
		if err != nil && !isConflict(err) {
			return sent, err
		}
	}
}

// over tells that somebody else has ended the op.
func (d drain) over(s *session.Snapshot) bool { return s == nil || s.Op == nil || s.Op.ID != d.opID }

// inUse says in words what keeps the session from sleeping.
func (p *Pauser) inUse(id string) []string {
	what := p.cfg.InUse(id)
	if s := p.store.Get(id); s != nil {
		for _, pr := range s.Presence {
			if pr.Node != p.cfg.Node {
				what = append(what, fmt.Sprintf("requests through proxy %s", pr.Node))
			}
		}
	}
	if len(what) == 0 {
		what = []string{"requests through a proxy that has vanished"}
	}
	return what
}
