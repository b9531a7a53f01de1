package session

import (
	"cmp"
	"time"
)

// Sleep begins a pause: RUNNING to PAUSING. The op's phase is PhaseCalling
// for the leader's own verdict and PhaseDraining for a pause by hand.
func (r Record) Sleep(op Op, reason string, now time.Time) (Record, error) {
	if r.State != Running {
		return r, checkFollows(r.State, Pausing)
	}
	return r.move(Pausing, &op, reason, now)
}

// Advance moves a pause that was asked for by hand to its next phase. The
// state and the op's identity stay.
func (r Record) Advance(phase Phase) (Record, error) {
	if r.State != Pausing || r.Op == nil {
		return r, checkFollows(r.State, Pausing)
	}
	op := *r.Op
	op.Phase = phase
	r.Op = &op
	return r, nil
}

// Wake begins a resume: to RESUMING, from PAUSED, from RUNNING (the host has
// answered "paused" to a request), or from a busy state whose owner is gone.
// It remembers the sleep that it is to end.
func (r Record) Wake(op Op, reason string, now time.Time) (Record, error) {
	switch {
	case r.State == Paused:
		op.Sleep = Sleep{Since: r.Since, Reason: r.Reason}
	case r.State == Pausing:
		op.Sleep = Sleep{Reason: r.Reason}
	case r.State == Resuming && r.Op != nil:
		op.Sleep = r.Op.Sleep
	}
	return r.move(Resuming, &op, reason, now)
}

// CountReconnect gives the record with a page's own reconnect counted that wakes
// the sandbox on the day of now.
func (r Record) CountReconnect(now time.Time) Record {
	r.ReconnectWakes = ReconnectWakes{Day: day(now), Count: r.ReconnectsOn(now) + 1}
	return r
}

// UncountReconnect takes back what CountReconnect has counted last.
func (r Record) UncountReconnect() Record {
	r.ReconnectWakes.Count = max(0, r.ReconnectWakes.Count-1)
	return r
}

// ReconnectsOn tells how many wakes pages' reconnects have caused on the day
// of now, which begins at midnight UTC.
func (r Record) ReconnectsOn(now time.Time) int {
	if r.ReconnectWakes.Day != day(now) {
		return 0
	}
	return r.ReconnectWakes.Count
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// Settle ends an op with the host's word, or corrects a record that the host
// contradicts: to RUNNING, PAUSED or KILLED. A state that the record already
// has is an error, so that nobody writes for nothing.
func (r Record) Settle(to State, reason string, now time.Time) (Record, error) {
	if to.Busy() || to == r.State {
		return r, checkFollows(Killed, Pausing)
	}
	// a pause that succeeds shows that it ran: what became of resumes before is over, too
	if kind := kindOf(to); r.Op != nil && r.Op.Kind == kind && (kind == OpPause || r.Failures(kind) > 0) {
		r.LastError = nil
	}
	return r.move(to, nil, reason, now)
}

// killWithin is how long after a kill was asked for a sandbox that is gone is gone
// by it. Hosts answer a kill sooner.
const killWithin = time.Minute

// ToBeKilled gives the record of a sandbox that its host is about to be asked to
// kill: the reason of KILLED, if it comes to that, is then this one, whoever finds
// out first.
func (r Record) ToBeKilled(reason string, now time.Time) Record {
	r.Killing = Killing{Reason: reason, At: now}
	return r
}

// foundAsleep is the reason of a sleep that only its host knows the reason of.
const foundAsleep = "found paused at its host"

// Fail ends an op that did not succeed: a pause leaves the session RUNNING, a
// resume leaves it in the sleep that it was in, with LastError and the time of
// the next attempt.
func (r Record) Fail(message string, retryAfter time.Duration, now time.Time) (Record, error) {
	if r.Op == nil {
		return r, checkFollows(r.State, r.State)
	}
	failed := OpError{At: now, Op: r.Op.Kind, Message: message, RetryAt: now.Add(retryAfter), Failures: r.Failures(r.Op.Kind) + 1}
	next, err := r.failed(failed)
	if err != nil {
		return r, err
	}
	next.LastError = &failed
	return next, nil
}

// FailGone ends a resume because the host knows no such sandbox: KILLED. It counts
// as a failure like others where the sandbox is found after all.
func (r Record) FailGone(message string, retryAfter time.Duration, now time.Time) (Record, error) {
	next, err := r.Settle(Killed, message, now)
	if err != nil {
		return r, err
	}
	next.LastError = &OpError{
		At: now, Op: OpResume, Message: message, Kind: FailGone,
		RetryAt: now.Add(retryAfter), Failures: r.Failures(OpResume) + 1,
	}
	return next, nil
}

func (r Record) failed(e OpError) (Record, error) {
	if e.Op == OpPause {
		return r.move(Running, nil, e.words(), e.At)
	}
	sleep := r.Op.Sleep
	next, err := r.move(Paused, nil, cmp.Or(sleep.Reason, foundAsleep), e.At)
	if err != nil || sleep.Since.IsZero() {
		return next, err
	}
	// it never ran: neither a pause nor a new PausedAt; but the time of the resume
	// is counted, so what is to be counted begins later than the sleep did
	next.Totals.Pauses, next.PausedAt = r.Totals.Pauses, r.PausedAt
	next.CountedTo = next.countedFrom()
	next.Since = sleep.Since
	return next, nil
}

// words tell of the error as a history does.
func (e OpError) words() string { return string(e.Op) + " failed: " + e.Message }

// resumeFailed gives the failure of a resume that the step from one record to
// the next is; nil where it is none.
func resumeFailed(from, to Record) *OpError {
	e := to.LastError
	if from.State != Resuming || to.State != Paused || e == nil || e.Op != OpResume ||
		e.Failures == from.Failures(OpResume) {
		return nil
	}
	return e
}

// OfKind gives the record of a resume that has just failed with what it was.
func (r Record) OfKind(kind Failure) Record {
	if r.LastError != nil {
		e := *r.LastError
		e.Kind = kind
		r.LastError = &e
	}
	return r
}

// Failures counts how often ops of this kind have failed in a row.
func (r Record) Failures(kind OpKind) int {
	if r.LastError == nil || r.LastError.Op != kind {
		return 0
	}
	return r.LastError.Failures
}

// SameOp tells whether the op that o began is still the one in r.
func (r Record) SameOp(o Record) bool {
	return r.State == o.State && r.Op != nil && o.Op != nil && r.Op.ID == o.Op.ID
}

func kindOf(to State) OpKind {
	if to == Paused {
		return OpPause
	}
	return OpResume
}

// move is the one place where a state changes.
func (r Record) move(to State, op *Op, reason string, now time.Time) (Record, error) {
	if err := checkFollows(r.State, to); err != nil {
		return r, err
	}
	from := r.State
	r = r.count(now)
	if to == Killed && now.Sub(r.Killing.At).Abs() < killWithin {
		reason = r.Killing.Reason
	}
	if to == Killed || now.Sub(r.Killing.At) >= killWithin {
		r.Killing = Killing{}
	}
	r.State, r.Op, r.Reason, r.Since = to, op, reason, now
	if !r.CountedTo.After(now) { // else a clock was ahead
		r.CountedTo = time.Time{}
	}
	switch to {
	case Pausing, Resuming, Killed: // nothing else to note
	case Paused:
		r.PausedAt = &now
		if from != Killed {
			r.Totals.Pauses++
		}
	case Running:
		if from != Pausing { // a pause that came to nothing did not end the run
			r.StartedAt = &now
		}
		if from == Paused || from == Resuming {
			r.Totals.Wakes++
		}
	}
	return r, nil
}
