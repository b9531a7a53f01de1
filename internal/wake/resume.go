package wake

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

// errFailed says that a resume came to an end that the record tells.
var errFailed = errors.New("resume failed")

// errUncalled ends an op whose connect call was never sent: nothing speaks
// against the next attempt.
var errUncalled = errors.New("the op was over before the connect call")

// opMargin is what an op may take beyond its call to the host: the Txns before
// and after it.
const opMargin = 5 * time.Second

// resume is WAKE: it takes the session to RESUMING, calls connect, and closes
// with what came of it. It returns nil once the record is RUNNING.
func (w *Waker) resume(ctx context.Context, s *session.Snapshot, cause Cause) error {
	now := time.Now()
	next, err := s.Wake(session.Op{
		ID: uuid.NewString(), Kind: session.OpResume, Node: w.cfg.Node,
		StartedAt: now, Deadline: now.Add(w.cfg.CallTimeout + opMargin),
	}, cause.Reason, now)
	if err != nil {
		return err
	}
	if cause.Reconnect && s.Parked > 0 { // else no page can have woken it since the pause
		next = next.CountReconnect(now)
	}
	failpoint.Hit(failpoint.WakeBegin)
	op, err := w.store.Wake(ctx, next)
	failpoint.Hit(failpoint.WakeDone)
	if err != nil {
		w.undo(ctx, op, cause)
		return err
	}
	if !op.Valid() {
		return w.end(ctx, op, errUncalled, cause)
	}
	err = w.connect(ctx, s.Record, cause)
	failpoint.Hit(failpoint.ConnectDone)
	err = w.end(ctx, op, err, cause)
	failpoint.Hit(failpoint.ResumeDone)
	return err
}

// undo ends an op that may or may not have begun, because the store did not
// answer: everybody would wait for it until its deadline.
func (w *Waker) undo(ctx context.Context, op Op, cause Cause) {
	if op == nil {
		return
	}
	w.spawn(ctx, func(ctx context.Context) error { return w.end(ctx, op, errUncalled, cause) })
}

// connect calls the host, behind its breaker.
func (w *Waker) connect(ctx context.Context, rec session.Record, cause Cause) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.CallTimeout)
	defer cancel()
	// without traffic through us the host should pause it soon after we would
	timeout := max(cause.Timeout, w.cfg.IdleTimeout(rec)+2*time.Minute)
	return w.breakers.do(rec.Host, func() error { return w.host.Connect(ctx, rec, timeout) })
}

// end closes the op. It tries until others may have settled it, also when the
// right to call the host has ended: closing is safe by its compare.
func (w *Waker) end(ctx context.Context, op Op, failed error, cause Cause) error {
	var id string
	step := func(r session.Record) (session.Record, error) {
		id = r.SandboxID
		now := time.Now()
		if cause.Reconnect && r.Parked > 0 && failed != nil && !errors.Is(failed, context.DeadlineExceeded) {
			r = r.UncountReconnect() // it has cost nothing
		}
		switch {
		case failed == nil:
			return r.Settle(session.Running, cause.Reason, now)
		case errors.Is(failed, ErrGone):
			return r.FailGone("gone at the host: 404", backoff(r.Failures(session.OpResume)), now)
		case errors.Is(failed, errUncalled):
			return r.Fail(failed.Error(), storeRetry, now)
		default:
			next, err := r.Fail(failed.Error(), backoff(r.Failures(session.OpResume)), now)
			if err != nil {
				return r, err
			}
			return next.OfKind(failureOf(failed)), nil
		}
	}
	until := time.Now().Add(w.cfg.CallTimeout + opMargin)
	for {
		err := op.End(ctx, step)
		if err == nil || errors.Is(err, session.ErrConflict) || time.Now().After(until) {
			break
		}
		w.cfg.Logger.Warn("closing a resume failed", zap.String("sandbox", id), zap.Error(err))
		if pause(ctx, storeRetry) != nil {
			break
		}
	}
	if failed != nil {
		w.cfg.Logger.Warn("resume failed", zap.String("sandbox", id), zap.String("reason", cause.Reason), zap.Error(failed))
		return fmt.Errorf("%w: %w", errFailed, failed)
	}
	return nil
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	firstBackoff = time.Second
	maxBackoff   = 30 * time.Second
)

// backoff is how long after the given number of failures in a row no resume is
// tried.
func backoff(failures int) time.Duration {
	return min(maxBackoff, firstBackoff<<min(failures, 10))
}
