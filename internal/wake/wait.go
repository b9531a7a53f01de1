package wake

import (
	"context"
	"errors"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

// wait is one caller's way through the states.
type wait struct {
	*Waker
	ctx   context.Context
	id    string
	visit Visit
	cause Cause

	deadline  time.Time // end of the hold; zero while a pause is under way
	storeDown time.Time // since when the store has not answered
	woke      bool      // it did not run when the caller came
	lastErr   error
}

func (w *Waker) newWait(ctx context.Context, id string, v Visit, cause Cause) *wait {
	if cause.Hold == 0 {
		cause.Hold = w.cfg.Hold
	}
	return &wait{Waker: w, ctx: ctx, id: id, visit: v, cause: cause}
}

// run goes from state to state until one of them answers.
func (w *wait) run() error {
	for {
		s := w.store.Get(w.id)
		if err := w.checkHold(s); err != nil {
			return err
		}
		done, err := w.step(s)
		if done || err != nil {
			return err
		}
	}
}

func (w *wait) step(s *session.Snapshot) (done bool, err error) {
	switch {
	case s == nil:
		return false, w.adopt()
	case s.State == session.Killed:
		return false, w.revive(s)
	case s.State == session.Running && s.Revision != w.cause.Suspect:
		return w.enter(s)
	case s.State.Busy() && !w.store.Abandoned(s):
		return false, w.await(s)
	default:
		w.woke = true
		return w.wake(s)
	}
}

// checkHold starts the hold once no pause is under way, and ends it.
func (w *wait) checkHold(s *session.Snapshot) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if s != nil && s.State == session.Pausing {
		w.deadline = time.Time{}
		return nil
	}
	if w.deadline.IsZero() {
		w.deadline = time.Now().Add(w.cause.Hold)
	}
	if time.Now().Before(w.deadline) {
		return nil
	}
	return w.notYet(s)
}

func (w *wait) notYet(s *session.Snapshot) error {
	e := &NotYetError{RetryAfter: time.Second, Cause: w.lastErr}
	if s != nil {
		e.State = s.State
		if s.LastError != nil && s.LastError.Op == session.OpResume {
			e.RetryAfter = max(time.Second, time.Until(s.LastError.RetryAt))
			e.Cause = errors.New(s.LastError.Message)
		}
	}
	return e
}

// enter lets the visit in under a RUNNING record. Where the store does not
// answer for longer than a leader may take from SLEEP to its call, the visit
// is let in by what is known.
func (w *wait) enter(s *session.Snapshot) (bool, error) {
	err := w.visit.Enter(w.ctx, s.Revision)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, session.ErrConflict):
		w.storeDown = time.Time{}
		return false, nil
	case w.ctx.Err() != nil:
		return false, w.ctx.Err()
	}
	w.lastErr = err
	if w.unreachable() {
		w.visit.Force()
		return true, nil
	}
	return false, w.pause(storeRetry)
}

const storeRetry = 100 * time.Millisecond

// unreachable tells whether the store has been failing for EnterTries.
func (w *wait) unreachable() bool {
	if w.storeDown.IsZero() {
		w.storeDown = time.Now()
	}
	return time.Since(w.storeDown) >= w.cfg.EnterTries
}

// pause waits for d, or until the caller gives up.
func (w *wait) pause(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// look is how often a wait looks whether the op that it waits for has been
// abandoned, which no event tells.
const look = time.Second

// await waits until the record changes.
func (w *wait) await(s *session.Snapshot) error { return w.awaitFor(s, look) }

func (w *wait) awaitFor(s *session.Snapshot, d time.Duration) error {
	if !w.deadline.IsZero() {
		d = min(d, max(0, time.Until(w.deadline)))
	}
	ctx, cancel := context.WithTimeout(w.ctx, d)
	defer cancel()
	_, err := w.store.Until(ctx, w.id, func(now *session.Snapshot) bool {
		return now == nil || now.Revision != s.Revision
	})
	if err != nil && w.ctx.Err() == nil {
		return nil // time to look again
	}
	return err
}

// wake resumes the sandbox, or joins the wake that is under way here, unless
// the last failure is too fresh.
func (w *wait) wake(s *session.Snapshot) (bool, error) {
	if s.State == session.Paused && s.LastError != nil && s.LastError.Op == session.OpResume {
		if rest := time.Until(s.LastError.RetryAt); rest > 0 {
			if time.Now().Add(rest).After(w.deadline) {
				return false, w.notYet(s)
			}
			return false, w.awaitFor(s, rest)
		}
	}
	err := w.join("wake ", func(ctx context.Context) error { return w.resume(ctx, s, w.cause) })
	switch {
	case err == nil, errors.Is(err, session.ErrConflict), errors.Is(err, errFailed):
		return false, nil // the record says how it went
	case w.ctx.Err() != nil:
		return false, w.ctx.Err()
	}
	w.lastErr = err
	if !w.unreachable() {
		return false, w.pause(storeRetry)
	}
	// the store is away, but the session is known: the host alone must do
	err = w.join("direct ", func(ctx context.Context) error { return w.connect(ctx, s.Record, w.cause) })
	if err != nil {
		w.lastErr = err
		return false, w.pause(storeRetry)
	}
	w.visit.Force()
	return true, nil
}

// join runs what for the sandbox, once for all who ask for it at the same
// time, on a context that none of them can end. The caller stops waiting when
// its hold ends.
func (w *wait) join(what string, do func(context.Context) error) error {
	ctx := context.WithoutCancel(w.ctx)
	c := w.flight.DoChan(what+w.id, func() (any, error) { return nil, do(ctx) })
	var hold <-chan time.Time
	if !w.deadline.IsZero() {
		hold = time.After(time.Until(w.deadline))
	}
	select {
	case r := <-c:
		return r.Err
	case <-hold:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}
