package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// maxHolds bounds the holds of a sandbox: each is a lease in the store.
const maxHolds = 50

// asleep refuses to wake a sandbox.
func asleep(session.Record) error { return api.ErrNotRunning }

// Used implements api.Actor: a visit that ends at once.
func (e *Engine) Used(ctx context.Context, id, kind string) error {
	if err := e.know(ctx, id); err != nil {
		return err
	}
	v := e.visits.Begin(id, kind)
	defer v.End()
	return explain(e.waker.Ensure(ctx, id, v, wake.Cause{Kind: kind, May: asleep}))
}

// Hold implements api.Actor. It visits the sandbox, so that no pause of the
// leader's comes between the wake and the hold.
func (e *Engine) Hold(ctx context.Context, id string, o api.HoldOptions) (h session.Hold, err error) {
	err = e.inReach(ctx, func(ctx context.Context) error {
		var err error
		h, err = e.hold(ctx, id, o)
		return err
	})
	return h, err
}

func (e *Engine) hold(ctx context.Context, id string, o api.HoldOptions) (session.Hold, error) {
	if err := e.know(ctx, id); err != nil {
		return session.Hold{}, err
	}
	v := e.visits.Begin(id, "api")
	defer v.End()
	cause := wake.Cause{Reason: "to be held: " + o.By, Kind: "api"}
	if !o.Wake {
		cause.May = asleep
	}
	for {
		if _, err := e.waker.Resume(ctx, id, v, cause); err != nil {
			return session.Hold{}, explain(err)
		}
		s := e.get(id)
		if s == nil {
			return session.Hold{}, api.ErrNotFound
		}
		if tooMany(s.Holds, o.Name) {
			return session.Hold{}, api.ErrTooManyHolds
		}
		h := session.Hold{Name: o.Name, Reason: o.Reason, By: o.By, ExpiresAt: time.Now().Add(o.For).UTC().Truncate(time.Millisecond)}
		err := e.store.PutHold(ctx, s.Record, h)
		if !errors.Is(err, session.ErrConflict) || ctx.Err() != nil {
			return h, e.afterHold(ctx, id, err, func(s *session.Snapshot) bool { return slices.ContainsFunc(s.Holds, h.Same) })
		}
	}
}

func tooMany(holds []session.Hold, name string) bool {
	return len(holds) >= maxHolds && !slices.ContainsFunc(holds, func(h session.Hold) bool { return h.Name == name })
}

// EndHold implements api.Actor.
func (e *Engine) EndHold(ctx context.Context, id, name string) error {
	return e.inReach(ctx, func(ctx context.Context) error { return e.endHold(ctx, id, name) })
}

func (e *Engine) endHold(ctx context.Context, id, name string) error {
	if err := e.loaded(ctx); err != nil {
		return err
	}
	if e.get(id) == nil {
		return api.ErrNotFound
	}
	err := e.store.DeleteHold(ctx, id, name)
	return e.afterHold(ctx, id, err, func(s *session.Snapshot) bool {
		return !slices.ContainsFunc(s.Holds, func(h session.Hold) bool { return h.Name == name })
	})
}

// afterHold waits until the view shows what was done, or the sandbox is gone.
func (e *Engine) afterHold(ctx context.Context, id string, err error, shows func(*session.Snapshot) bool) error {
	if err != nil {
		return explain(err)
	}
	ctx, cancel := context.WithTimeout(ctx, seenWithin)
	defer cancel()
	_, err = e.view.Until(ctx, id, func(s *session.Snapshot) bool { return s == nil || shows(s) })
	return explain(err)
}
