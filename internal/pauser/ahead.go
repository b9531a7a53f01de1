package pauser

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

// A host ends each run at a time of its own, which traffic does not move. While
// a session runs the leader keeps that time from coming: it is Sandman that
// pauses, and the host alone does it soon after if all of Sandman dies.
const (
	// aheadLead is how long before the end of a run the host is asked for
	// more, or half of what is left where that is less.
	aheadLead = 15 * time.Second
	// aheadSpan is what a run gets beyond the idle timeout.
	aheadSpan = 2 * time.Minute
	// aheadRetry is when a host that did not answer is asked again.
	aheadRetry = 5 * time.Second
)

// ahead is the leader's knowledge of the hosts' end times. It belongs to the
// leader's loop.
type ahead struct {
	checks *deadlines       // when to look at a session's end time again
	seen   map[string]int64 // revision of the record that was looked at, by ID
}

func newAhead() ahead {
	return ahead{checks: newDeadlines(), seen: make(map[string]int64)}
}

// follow notices sessions that began to run. Somebody who changes a session's
// end time through Sandman writes its record, too: every change is a reason to
// look.
func (a ahead) follow(id string, s *session.Snapshot, now time.Time) {
	if s == nil || s.State != session.Running {
		a.checks.remove(id)
		delete(a.seen, id)
		return
	}
	if a.seen[id] != s.Revision {
		a.seen[id] = s.Revision
		a.checks.set(id, now)
	}
}

// keepAhead asks the host for the end of the run, moves it if it is near, and
// tells when to look again.
func (p *Pauser) keepAhead(ctx context.Context, s *session.Snapshot) (again time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	left, err := p.host.Remaining(ctx, s.Record)
	if err == nil && left <= aheadLead {
		left, err = p.extend(ctx, s.Record)
	}
	switch {
	case errors.Is(err, ErrGone):
		return time.Hour // the next request or the sweep will see to it
	case err != nil:
		if ctx.Err() == nil {
			p.cfg.Logger.Debug("keeping the host's timeout ahead failed", zap.String("sandbox", s.SandboxID), zap.Error(err))
		}
		return aheadRetry
	}
	return max(time.Second, left-min(aheadLead, left/2))
}

// extend asks for more time, and how much was given: a host has a longest run.
// One that grants time that has passed already has another clock than it says,
// and must not be asked for ever.
func (p *Pauser) extend(ctx context.Context, rec session.Record) (left time.Duration, err error) {
	span := p.cfg.IdleTimeout(rec) + aheadSpan
	if err := p.host.Extend(ctx, rec, span); err != nil {
		return 0, err
	}
	left, err = p.host.Remaining(ctx, rec)
	if err == nil && left <= 0 {
		left = span / 2
	}
	return left, err
}
