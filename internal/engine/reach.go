package engine

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
)

// What is asked of a store that does not answer ends within 5 s: contact is
// known to be lost after 3.5 s, see internal/store/contact.go.
const (
	actWithin  = 4 * time.Second // a store that is started again takes less
	lostFor    = time.Second
	reachEvery = 100 * time.Millisecond
)

// inReach does what needs the store. However long it takes at the hosts, it goes
// on while there is contact; where there is none it ends as unavailable. It may
// be done yet: a write that was sent lands where it does.
func (e *Engine) inReach(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go e.cancelOutOfReach(ctx, cancel)
	err := do(ctx)
	if away, ok := errors.AsType[*api.UnavailableError](context.Cause(ctx)); ok && err != nil {
		return away
	}
	if _, ok := errors.AsType[*api.UnavailableError](err); ok && e.standstill() != "" {
		return e.away() // said plainly
	}
	return err
}

func (e *Engine) away() error {
	return &api.UnavailableError{Reason: cmp.Or(e.standstill(), storeAway)}
}

// cancelOutOfReach ends what is done under ctx when there has been no contact
// with the store for lostFor, not before actWithin.
func (e *Engine) cancelOutOfReach(ctx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(reachEvery)
	defer ticker.Stop()
	began, lost := time.Now(), time.Time{}
	for {
		switch _, ok := e.view.Contact(); {
		case ok:
			lost = time.Time{}
		case lost.IsZero():
			lost = time.Now()
		case time.Since(lost) >= lostFor && time.Since(began) >= actWithin:
			cancel(e.away())
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// untilInReach waits for contact with the store.
func (e *Engine) untilInReach(ctx context.Context) error {
	return e.inReach(ctx, func(ctx context.Context) error {
		ticker := time.NewTicker(reachEvery)
		defer ticker.Stop()
		for {
			if _, ok := e.view.Contact(); ok {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-ticker.C:
			}
		}
	})
}
