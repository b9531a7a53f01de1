package pauser

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

// opMargin is what an op may take beyond its call to the host: the Txns before
// and after it.
const opMargin = 5 * time.Second

func (p *Pauser) newOp(phase session.Phase, span time.Duration, now time.Time) session.Op {
	return session.Op{
		ID: uuid.NewString(), Kind: session.OpPause, Phase: phase, Node: p.cfg.Node,
		StartedAt: now, Deadline: now.Add(span),
	}
}

// sleep pauses an idle session. A conflict means that it is not idle any more,
// which is as good.
func (l *leader) sleep(ctx context.Context, s *session.Snapshot, idle time.Duration) error {
	_, epoch := l.store.SettledAt()
	if epoch != l.epoch {
		return nil // the loop will notice, and settle
	}
	sent := time.Now()
	op := l.newOp(session.PhaseCalling, l.cfg.CallWithin+l.cfg.CallTimeout+opMargin, sent)
	next, err := s.Sleep(op, "idle for "+idle.String(), sent)
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, l.cfg.CallWithin)
	defer cancel()
	own, err := l.term.Sleep(within, next, s.ActivityRevision)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // the op has an owner now, leader or not
	if _, now := l.store.SettledAt(); now != epoch || time.Since(sent) > l.cfg.CallWithin {
		return l.giveUp(ctx, own, "contact with the store was lost before the pause call")
	}
	return l.call(ctx, s.Record, own, next.Reason)
}

// giveUp ends an op whose pause call was never sent.
func (p *Pauser) giveUp(ctx context.Context, op Op, why string) error {
	return p.end(ctx, op, func(r session.Record) (session.Record, error) {
		return r.Settle(session.Running, why, time.Now())
	})
}

// call is the host's pause call and what comes after it. The call is sent once,
// and what it answers is believed only where it is clear.
func (p *Pauser) call(ctx context.Context, rec session.Record, op Op, reason string) error {
	if !op.Valid() {
		return p.giveUp(ctx, op, "stalled before the pause call")
	}
	failed := p.pauseAtHost(ctx, rec)
	told := session.Paused
	if failed != nil {
		told = p.ask(ctx, rec, failed)
	}
	return p.end(ctx, op, func(r session.Record) (session.Record, error) {
		now := time.Now()
		switch told {
		case session.Paused:
			return r.Settle(told, reason, now)
		case session.Killed:
			return r.Settle(told, "gone at the host: 404", now)
		default:
			return r.Fail(failed.Error(), backoff(r.Failures(session.OpPause)), now)
		}
	})
}

func (p *Pauser) pauseAtHost(ctx context.Context, rec session.Record) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.CallTimeout)
	defer cancel()
	return p.host.Pause(ctx, rec)
}

// ask finds out what came of a pause call that failed: it may have been
// carried out all the same. "Already paused" proves nothing either: the host
// says so, too, while a resume is under way.
func (p *Pauser) ask(ctx context.Context, rec session.Record, failed error) session.State {
	if errors.Is(failed, ErrGone) {
		return session.Killed
	}
	p.cfg.Logger.Warn("pause call failed", zap.String("sandbox", rec.SandboxID), zap.Error(failed))
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	told, err := p.host.State(ctx, rec)
	if errors.Is(err, ErrGone) {
		return session.Killed
	}
	if err != nil {
		return session.Running // if it sleeps, the next request finds out and wakes it
	}
	return told
}

const (
	askTimeout = 10 * time.Second
	endRetry   = 100 * time.Millisecond
)

// end closes the op. The store is tried until the op's time is over; then
// others settle it. An op that was settled meanwhile is over, too.
func (p *Pauser) end(ctx context.Context, op Op, step func(session.Record) (session.Record, error)) error {
	for {
		err := op.End(ctx, step)
		if err == nil || isConflict(err) {
			return nil
		}
		if !op.Valid() {
			return fmt.Errorf("closing a pause: %w", err)
		}
		time.Sleep(endRetry)
	}
}

const (
	firstBackoff = 5 * time.Second
	maxBackoff   = 5 * time.Minute
)

// backoff is how long after the given number of failures in a row no pause is
// tried. An awake sandbox costs money, a storm of failing calls costs more.
func backoff(failures int) time.Duration {
	return min(maxBackoff, firstBackoff<<min(failures, 10))
}

func isConflict(err error) bool { return errors.Is(err, session.ErrConflict) }

// settle writes the host's word over a busy session that nobody works on. It
// never pauses for somebody else.
func (p *Pauser) settle(ctx context.Context, s *session.Snapshot) error {
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	told, err := p.host.State(ask, s.Record)
	if errors.Is(err, ErrGone) {
		told, err = session.Killed, nil
	}
	if err != nil {
		return err
	}
	return p.settleTo(ctx, s, told, "the "+string(s.Op.Kind)+" was left unfinished by "+s.Op.Node)
}

func (p *Pauser) settleTo(ctx context.Context, s *session.Snapshot, told session.State, why string) error {
	if told == session.Killed {
		why = "gone at the host: 404"
	}
	next, err := s.Settle(told, why, time.Now())
	if err != nil {
		return err
	}
	return p.store.Settle(ctx, next)
}
