package engine

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/sandman-proxy/sandman/internal/activity"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// Visit gives a new visit of a sandbox, which counts for nothing until Ensure
// has succeeded. The caller must End it.
func (e *Engine) Visit(id, kind string) *activity.Visit { return e.visits.Begin(id, kind) }

// Ensure returns nil once the sandbox runs and the visit counts. Its errors are
// those of the package wake, and of ctx.
func (e *Engine) Ensure(ctx context.Context, id string, v *activity.Visit, cause wake.Cause) error {
	if cause.Suspect != 0 {
		e.visits.Doubt(id)
	}
	if err := e.waker.Ensure(ctx, id, v, e.effective(cause)); err != nil {
		return err
	}
	return e.rouse(ctx, id, cause)
}

// Admit asks the hosts whether the request may reach the sandbox at all. False
// means that w was answered.
func (e *Engine) Admit(w http.ResponseWriter, r *http.Request, t e2b.Target) bool {
	for _, h := range e.cfg.Hosts {
		if !h.Admit(w, r, t) {
			return false
		}
	}
	return true
}

// State gives the state of a session as this process knows it, "" if it does
// not. Where another store has taken over, its word counts.
func (e *Engine) State(id string) session.State {
	if heir := e.heir.Load(); heir != nil {
		if state := heir.State(id); state != "" {
			return state
		}
	}
	if s := e.get(id); s != nil {
		return s.State
	}
	return ""
}

// Session gives a session as this process knows it, nil if it does not. It must
// not be changed.
func (e *Engine) Session(id string) *session.Snapshot { return e.get(id) }

// AwaitChange returns when the record has another revision than this one (0: it
// is not there), or ctx is done.
func (e *Engine) AwaitChange(ctx context.Context, id string, revision int64) {
	_, _ = e.view.Until(ctx, id, func(s *session.Snapshot) bool {
		if s == nil {
			return revision != 0
		}
		return s.Revision != revision
	})
}

// AwaitState returns when the session is in one of the states, or ctx is done.
func (e *Engine) AwaitState(ctx context.Context, id string, states ...session.State) {
	_, _ = e.view.Until(ctx, id, func(s *session.Snapshot) bool { return s != nil && slices.Contains(states, s.State) })
}

// InContact tells whether the store answers: what is known is up to date.
func (e *Engine) InContact() bool {
	_, ok := e.view.Contact()
	return ok
}

// Runs tells whether a sandbox runs, without waking it. One that only its host
// knows is adopted first.
func (e *Engine) Runs(ctx context.Context, id string) bool {
	if e.get(id) == nil && e.waker.Adopt(ctx, id) != nil {
		return false
	}
	return e.State(id) == session.Running
}

// Revision gives the revision of the record, 0 if there is none.
func (e *Engine) Revision(id string) int64 {
	if s := e.get(id); s != nil {
		return s.Revision
	}
	return 0
}

// Route tells where a port of a sandbox is reached, and the revision of the
// record that says so, 0 if there is none: under which a request is forwarded.
func (e *Engine) Route(t e2b.Target) (r Route, revision int64, err error) {
	s := e.get(t.SandboxID)
	if s == nil {
		return Route{}, 0, ErrGone
	}
	host, err := e.hosts.of(&s.Record)
	if err != nil {
		return Route{}, s.Revision, err
	}
	r, err = host.Route(t)
	return r, s.Revision, err
}

// JustWoken tells whether the sandbox was woken within the given time, 0: the
// default hold. Its ports may not be open yet.
func (e *Engine) JustWoken(id string, within time.Duration) bool {
	if within == 0 {
		within = max(e.cfg.Hold, wake.DefaultHold)
	}
	s, ok := e.view.Get(id)
	return ok && s.State == session.Running && s.Totals.Wakes > 0 && time.Since(s.RunningSince) < within
}
