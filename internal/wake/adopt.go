package wake

import (
	"context"
	"errors"
	"time"

	"github.com/patrickmn/go-cache"

	"github.com/sandman-proxy/sandman/internal/session"
)

// adopt asks the hosts for a sandbox that the store does not know, and stores
// what they say. ErrUnknown where all of them deny it.
func (w *wait) adopt() error {
	return w.ask(ErrUnknown, func(ctx context.Context, found session.Record) error {
		return w.store.Adopt(ctx, found)
	})
}

// revive looks whether the host of a killed sandbox knows it after all.
func (w *wait) revive(s *session.Snapshot) error {
	return w.ask(ErrKilled, func(ctx context.Context, found session.Record) error {
		next, err := s.Settle(found.State, "known at the host again", time.Now())
		if err != nil {
			return err
		}
		return w.store.Settle(ctx, next)
	})
}

// ask finds the sandbox at the hosts, once for all who ask, and keeps a clear
// no for a while.
func (w *wait) ask(no error, found func(context.Context, session.Record) error) error {
	if _, known := w.unknown.Get(w.id); known {
		return no
	}
	err := w.join("ask ", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, w.cfg.CallTimeout)
		defer cancel()
		rec, err := w.host.Find(ctx, w.id)
		if err != nil {
			return err
		}
		return found(ctx, rec)
	})
	switch {
	case err == nil, errors.Is(err, session.ErrConflict):
		return nil
	case errors.Is(err, ErrGone):
		w.forget(w.id)
		return no
	case errors.Is(err, ErrHeld):
		return w.notYet(w.store.Get(w.id))
	case w.ctx.Err() != nil:
		return w.ctx.Err()
	}
	w.lastErr = err
	if _, permanent := errors.AsType[*PermanentError](err); permanent {
		return &NotYetError{RetryAfter: maxBackoff, Cause: err} // no waiting mends it
	}
	return pause(w.ctx, askRetry)
}

const (
	askRetry   = 500 * time.Millisecond
	maxUnknown = 10_000
)

// forget remembers that no host knows the ID. Scanners must not fill the
// memory: above a limit the oldest answers go.
func (w *Waker) forget(id string) {
	if w.unknown.ItemCount() >= maxUnknown {
		w.unknown.DeleteExpired()
		if w.unknown.ItemCount() >= maxUnknown {
			w.unknown.Flush()
		}
	}
	w.unknown.Set(id, struct{}{}, cache.DefaultExpiration)
}

// Adopt makes the store know a sandbox that a host knows, and returns without
// waking it: ErrUnknown, ErrKilled as for Ensure.
func (w *Waker) Adopt(ctx context.Context, id string) error {
	wait := w.newWait(ctx, id, nil, Cause{})
	for {
		s := w.store.Get(id)
		if err := wait.checkHold(s); err != nil {
			return err
		}
		var err error
		switch {
		case s == nil:
			err = wait.adopt()
		case s.State == session.Killed:
			err = wait.revive(s)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Known makes the next request ask the hosts again: the sandbox has just been
// created.
func (w *Waker) Known(id string) { w.unknown.Delete(id) }
