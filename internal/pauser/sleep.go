package pauser

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/failpoint"
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
// which is as good. epoch is that of the contact with the store under which the
// verdict was reached.
// It gives the state that it ended in, "" where nothing came of it.
func (l *leader) sleep(ctx context.Context, s *session.Snapshot, idle time.Duration, epoch uint64) (session.State, error) {
	sent := time.Now()
	op := l.newOp(session.PhaseCalling, l.cfg.CallWithin+l.cfg.CallTimeout+opMargin, sent)
	next, err := s.Sleep(op, "idle for "+session.Span(idle), sent)
	if err != nil {
		return "", err
	}
	next.Parked = l.cfg.Streams(s)
	within, cancel := context.WithTimeout(ctx, l.cfg.CallWithin)
	defer cancel()
	failpoint.Hit(failpoint.SleepBegin)
	own, err := l.term.Sleep(within, next, s.ActivityRevision)
	failpoint.Hit(failpoint.SleepDone)
	ctx, end := l.detach(ctx) // the op has an owner now, leader or not
	defer end()
	if err != nil {
		return "", errors.Join(err, l.undo(ctx, own))
	}
	return l.call(ctx, own, verdict{s.Record, next.Reason, sent, epoch})
}

// undo ends an op that may or may not have begun, because the store did not
// answer: everybody would wait for it until its deadline. op may be nil.
func (p *Pauser) undo(ctx context.Context, op Op) error {
	if op == nil {
		return nil
	}
	return p.giveUp(ctx, op, "given up: the store did not answer")
}

// giveUp ends an op whose pause call was never sent.
func (p *Pauser) giveUp(ctx context.Context, op Op, why string) error {
	return p.end(ctx, op, func(r session.Record) (session.Record, error) {
		return r.Settle(session.Running, why, time.Now())
	})
}

// verdict is what a pause call is made on.
type verdict struct {
	rec    session.Record
	reason string
	sent   time.Time // when the Txn that allows the call was sent
	epoch  uint64    // of the contact with the store until then
}

// errVoid says that a verdict did not last until the call.
var errVoid = fmt.Errorf("given up before the pause call: %w", session.ErrConflict)

// void tells why the verdict is none any more. A proxy that can't reach the
// store begins to serve without it after a while that is longer than
// Config.CallWithin; and the op may have been settled by others.
func (p *Pauser) void(op Op, v verdict) string {
	_, epoch := p.store.SettledAt()
	switch {
	case p.quit.Err() != nil:
		return "shutting down before the pause call"
	case epoch != v.epoch:
		return "contact with the store was lost before the pause call"
	case time.Since(v.sent) > p.cfg.CallWithin, !op.Valid():
		return "stalled before the pause call"
	}
	return ""
}

// call is the host's pause call and what comes after it. The call is sent once,
// and what it answers is believed only where it is clear. told is the state that
// it ended in.
func (p *Pauser) call(ctx context.Context, op Op, v verdict) (told session.State, err error) {
	if why := p.void(op, v); why != "" {
		return "", errors.Join(errVoid, p.giveUp(ctx, op, why))
	}
	failpoint.Hit(failpoint.CallBegin)
	failed := p.pauseAtHost(ctx, v.rec)
	failpoint.Hit(failpoint.CallDone)
	told = session.Paused
	if failed != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("left to be settled by others: %w", context.Cause(ctx))
		}
		told = p.ask(ctx, v.rec, failed)
	}
	err = p.end(ctx, op, func(r session.Record) (session.Record, error) {
		now := time.Now()
		switch told {
		case session.Paused:
			return r.Settle(told, v.reason, now)
		case session.Killed:
			return r.Settle(told, "gone at the host: 404", now)
		default:
			return r.Fail(failed.Error(), backoff(r.Failures(session.OpPause)), now)
		}
	})
	failpoint.Hit(failpoint.PauseDone)
	if err == nil && told == session.Running {
		return told, fmt.Errorf("pausing at the host: %w", failed)
	}
	return told, err
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
	p.cfg.Logger.Info("pause call failed; asking what the host knows", zap.String("sandbox", rec.SandboxID), zap.Error(failed))
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

// end closes the op. It tries until others may have settled it, also when the
// right to call the host has ended: closing is safe by its compare. An op that
// was settled meanwhile is over, too.
func (p *Pauser) end(ctx context.Context, op Op, step func(session.Record) (session.Record, error)) error {
	until := time.Now().Add(p.cfg.CallTimeout + opMargin)
	for {
		err := op.End(ctx, step)
		if err == nil || isConflict(err) {
			return nil
		}
		if time.Now().After(until) || pause(ctx, endRetry) != nil {
			return fmt.Errorf("closing a pause: %w", err)
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
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
	if s.State == session.Running && told == session.Paused { // by somebody else
		next.Parked = p.cfg.Streams(s)
	}
	return p.store.Settle(ctx, next)
}
