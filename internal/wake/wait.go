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
	storeDown time.Time // since when the store has been tried in vain, without a break
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
	case s != nil && s.State == session.Running && s.Revision != w.cause.Suspect:
		return w.enter(s)
	case s != nil && (!s.State.Busy() || w.store.Abandoned(s)) && s.State != session.Killed:
		return w.wake(s)
	}
	w.storeDown = time.Time{} // other things come between the tries
	switch {
	case s == nil:
		return false, w.adopt()
	case s.State == session.Killed:
		return false, w.revive(s)
	}
	if err := w.may(s); err != nil {
		return false, err
	}
	return false, w.await(s)
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

func (w *wait) notYet(s *session.Snapshot) *NotYetError {
	e := &NotYetError{RetryAfter: time.Second, Cause: w.lastErr}
	if s != nil {
		e.State = s.State
		if s.LastError != nil && s.LastError.Op == session.OpResume {
			e.RetryAfter = max(time.Second, backingOff(s))
			e.Cause = &HostError{Kind: s.LastError.Kind, Err: errors.New(s.LastError.Message)}
		}
	}
	if e.Cause == nil {
		e.Cause = ErrHeld
	}
	return e
}

// enter lets the visit in under a RUNNING record. Where the store does not
// answer for longer than a leader may take from SLEEP to its call, the visit
// is let in by what is known.
func (w *wait) enter(s *session.Snapshot) (bool, error) {
	began := time.Now()
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
	if w.unreachable(began) {
		w.visit.Force()
		return true, nil
	}
	return false, pause(w.ctx, storeRetry)
}

const storeRetry = 100 * time.Millisecond

// unreachable notes that a try that began then has failed, and tells whether
// the store has been tried in vain for EnterTries.
func (w *wait) unreachable(began time.Time) bool {
	if w.storeDown.IsZero() {
		w.storeDown = began
	}
	return time.Since(w.storeDown) >= w.cfg.EnterTries
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
	if rest, until := w.rest(s); rest > 0 {
		if err := w.may(s); err != nil {
			return false, err
		}
		if time.Now().Add(rest).After(until) {
			return false, w.notYet(s).after(rest)
		}
		return false, w.awaitFor(s, rest)
	}
	began := time.Now()
	err := w.begin("wake ", s, func(ctx context.Context) error { return w.resume(ctx, s, w.cause) })
	if refused, ok := errors.AsType[*refusal](err); ok {
		return false, refused.to(w)
	}
	w.woke = true
	switch {
	case err == nil, errors.Is(err, session.ErrConflict), errors.Is(err, errFailed):
		w.storeDown = time.Time{}
		return false, nil // the record says how it went
	case errors.Is(err, ErrHeld):
		return false, w.notYet(w.store.Get(w.id))
	case w.ctx.Err() != nil:
		return false, w.ctx.Err()
	}
	w.lastErr = err
	if !w.unreachable(began) {
		return false, pause(w.ctx, storeRetry)
	}
	return w.wakeDirectly(s)
}

// rest tells how long no wake is to be begun, and until when the caller waits
// for one.
func (w *wait) rest(s *session.Snapshot) (rest time.Duration, until time.Time) {
	rest, until = backingOff(s), w.deadline
	if w.cause.Suspect == 0 || w.cause.Suspect != s.Revision {
		return rest, until
	}
	doubted, lasts := w.doubts.note(s)
	if doubted > 0 {
		w.lastErr = ErrContradicts
	}
	// this wait may be one of many that its request has been through
	return max(rest, doubted), w.deadline.Add(-lasts)
}

// wakeDirectly is for a store that is away: the session is known, so the host
// alone must do.
func (w *wait) wakeDirectly(s *session.Snapshot) (bool, error) {
	err := w.begin("direct ", s, func(ctx context.Context) error {
		err := w.connect(ctx, s.Record, w.cause)
		if err == nil {
			w.doubts.woken(w.id)
		}
		return err
	})
	if refused, ok := errors.AsType[*refusal](err); ok {
		return false, refused.to(w)
	}
	switch {
	case err == nil:
		w.visit.Force()
		return true, nil
	case errors.Is(err, ErrHeld):
		return false, w.notYet(w.store.Get(w.id))
	case w.ctx.Err() != nil:
		return false, w.ctx.Err()
	}
	w.lastErr = err
	return false, pause(w.ctx, storeRetry)
}

// backingOff tells how long no resume is tried, after one that failed. Only the
// span is believed of what another node wrote: its clock may be wrong. A record
// that somebody else has made must not keep it from waking for ever.
func backingOff(s *session.Snapshot) time.Duration {
	if s.State != session.Paused && s.State != session.Running || s.LastError == nil || s.LastError.Op != session.OpResume {
		return 0
	}
	return time.Until(s.Seen.Add(min(maxBackoff, s.LastError.RetryAt.Sub(s.LastError.At))))
}

// may asks whether this caller may begin a wake. Where one has been begun, or
// the sandbox was to run anyway, there is nothing to ask.
func (w *wait) may(s *session.Snapshot) error {
	if w.cause.May == nil || s.State != session.Paused && s.State != session.Pausing {
		return nil
	}
	return w.cause.May(s.Record)
}

// begin joins what is under way for the sandbox, or begins it if this caller
// may. It asks where only the one who begins comes by: the view may not show yet
// that a wake has begun. The error is a *refusal if somebody was refused.
func (w *wait) begin(what string, s *session.Snapshot, do func(context.Context) error) error {
	return w.join(what, func(ctx context.Context) error {
		if err := w.may(s); err != nil {
			return &refusal{who: w, error: err}
		}
		return do(ctx)
	})
}

// refusal is that of one caller; the others who had joined it ask for
// themselves.
type refusal struct {
	who *wait
	error
}

func (r *refusal) to(w *wait) error {
	if r.who == w {
		return r.error
	}
	return nil
}

// ErrHeld is the Cause of a NotYetError where the hold ended before what was
// waited for, and nothing had failed.
var ErrHeld = errors.New("not done within the time that the request was held")

// join runs what for the sandbox, once for all who ask for it at the same
// time, on a context that none of them can end. The caller stops waiting when
// its hold ends, which begins here at the latest: no pause is under way.
func (w *wait) join(what string, do func(context.Context) error) error {
	if w.deadline.IsZero() {
		w.deadline = time.Now().Add(w.cause.Hold)
	}
	c := w.flight.DoChan(what+w.id, func() (any, error) { return nil, w.detached(w.ctx, do) })
	hold := time.NewTimer(time.Until(w.deadline))
	defer hold.Stop()
	select {
	case r := <-c:
		return r.Err
	case <-hold.C:
		return ErrHeld
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}
