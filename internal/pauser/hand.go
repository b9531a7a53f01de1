package pauser

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

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
// changed is false if it slept before. The pause goes on if ctx ends. The
// error is an *InUseError where something is in flight and it is not forced,
// and ErrGone where the sandbox is no more.
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
			err = p.join(ctx, s, o)
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
	within, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := p.store.Until(within, s.SandboxID, func(now *session.Snapshot) bool {
		return now == nil || now.State != s.State
	})
	if err != nil && ctx.Err() == nil {
		return nil
	}
	return err
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
	p.mu.Lock()
	h, ok := p.hands[s.SandboxID]
	if !ok {
		h = &hand{force: o.Force, done: make(chan struct{})}
		p.hands[s.SandboxID] = h
		detached := context.WithoutCancel(ctx)
		p.ops.Go(func() {
			h.err = p.pauseByHand(detached, s, h, o)
			p.mu.Lock()
			delete(p.hands, s.SandboxID)
			p.mu.Unlock()
			close(h.done)
		})
	}
	h.force = h.force || o.Force
	p.mu.Unlock()
	select {
	case <-h.done:
		return h.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Pauser) forced(h *hand) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return h.force
}

func (p *Pauser) pauseByHand(ctx context.Context, s *session.Snapshot, h *hand, o Options) error {
	if err := p.untilSettled(ctx); err != nil {
		return err
	}
	now := time.Now()
	reason := "paused by hand: " + o.By
	next, err := s.Sleep(p.newOp(session.PhaseDraining, 2*p.cfg.Drain+p.cfg.CallWithin+p.cfg.CallTimeout+opMargin, now), reason, now)
	if err != nil {
		return session.ErrConflict
	}
	op, err := p.store.Drain(ctx, next)
	if err != nil {
		return err
	}
	if err := p.drain(ctx, s.SandboxID, h, op); err != nil {
		return errors.Join(err, p.giveUp(ctx, op, "pause refused, "+err.Error()))
	}
	return p.call(ctx, s.Record, op, reason)
}

// untilSettled waits for the end of the settle period.
func (p *Pauser) untilSettled(ctx context.Context) error {
	for {
		at, _ := p.store.SettledAt()
		wait := time.Until(at)
		if wait <= 0 {
			return nil
		}
		select {
		case <-time.After(min(wait, time.Second)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drain leads from draining to calling. Its error says why it could not.
func (p *Pauser) drain(ctx context.Context, id string, h *hand, op Op) error {
	err := p.quieten(ctx, id, op)
	if err == nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if !p.forced(h) {
		return &InUseError{What: p.inUse(id)}
	}
	if err := op.Advance(ctx, session.PhaseCutting, 0); err != nil {
		return err
	}
	err = p.quieten(ctx, id, op)
	if errors.Is(err, context.DeadlineExceeded) {
		return &InUseError{What: p.inUse(id)}
	}
	return err
}

// quieten waits, for Config.Drain, until nobody is present and the last visit
// was closed, and takes the op to calling. After a lapse an empty presence is
// not an empty sandbox: the visit must be closed first.
func (p *Pauser) quieten(ctx context.Context, id string, op Op) error {
	within, cancel := context.WithTimeout(ctx, p.cfg.Drain)
	defer cancel()
	for {
		s, err := p.store.Until(within, id, func(s *session.Snapshot) bool {
			return s == nil || s.State != session.Pausing || len(s.Presence) == 0
		})
		switch {
		case err != nil:
			return err
		case s == nil || s.State != session.Pausing:
			return session.ErrConflict // settled by somebody
		case s.Activity.Open:
			err = p.store.Lapsed(within, s)
		default:
			err = op.Advance(within, session.PhaseCalling, s.ActivityRevision)
			if err == nil {
				return nil
			}
		}
		if err != nil && !isConflict(err) {
			return err
		}
	}
}

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
		what = []string{"requests"}
	}
	return what
}
