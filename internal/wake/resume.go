package wake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

// errFailed says that a resume came to an end that the record tells.
var errFailed = errors.New("resume failed")

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
	op, err := w.store.Wake(ctx, next)
	if err != nil {
		return err
	}
	if !op.Valid() {
		return fmt.Errorf("%w: stalled before the call", errFailed) // others settle it
	}
	err = w.connect(ctx, s.Record, cause)
	return w.end(ctx, op, err, cause)
}

// connect calls the host, behind its breaker.
func (w *Waker) connect(ctx context.Context, rec session.Record, cause Cause) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.CallTimeout)
	defer cancel()
	// without traffic through us the host should pause it soon after we would
	timeout := max(cause.Timeout, w.cfg.IdleTimeout(rec)+2*time.Minute)
	return w.breakers.do(rec.Host, func() error { return w.host.Connect(ctx, rec, timeout) })
}

// end closes the op. The store is tried until the op's time is over; then
// others settle it.
func (w *Waker) end(ctx context.Context, op Op, failed error, cause Cause) error {
	step := func(r session.Record) (session.Record, error) {
		now := time.Now()
		switch {
		case failed == nil:
			return r.Settle(session.Running, cause.Reason, now)
		case errors.Is(failed, ErrGone):
			return r.Settle(session.Killed, "gone at the host: 404", now)
		default:
			return r.Fail(failed.Error(), backoff(r.Failures(session.OpResume)), now)
		}
	}
	for {
		err := op.End(ctx, step)
		if err == nil || errors.Is(err, session.ErrConflict) || !op.Valid() {
			break
		}
		w.cfg.Logger.Warn("closing a resume failed", zap.Error(err))
		time.Sleep(storeRetry)
	}
	if failed != nil {
		w.cfg.Logger.Warn("resume failed", zap.String("reason", cause.Reason), zap.Error(failed))
		return fmt.Errorf("%w: %w", errFailed, failed)
	}
	return nil
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
