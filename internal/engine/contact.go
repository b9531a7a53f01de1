package engine

import (
	"context"
	"time"

	"go.uber.org/zap"
)

const (
	// whyWait is how long it may take to find out why there is no contact.
	whyWait = time.Second

	// tellEvery is how often it is looked whether there is contact. A start, or
	// a store that is started again, takes less.
	tellEvery = 5 * time.Second
)

// noContact finds out what an operator can put right: the way to the store, or
// what it does not let this process do. Nil: it is in reach, and contact is
// about to be made.
func (e *Engine) noContact(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, whyWait)
	defer cancel()
	if e.cfg.Reach != nil {
		if err := e.cfg.Reach(ctx); err != nil {
			return err
		}
	}
	_, err := e.store.Leader(ctx)
	return err
}

// tellContact logs why there is no contact with the store, once for each
// reason, until ctx ends.
func (e *Engine) tellContact(ctx context.Context) {
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	var told string
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if _, ok := e.view.Contact(); ok || e.view.Full() {
			told = ""
			continue
		}
		if err := e.noContact(ctx); err != nil && ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			e.log.Error("the session store can't be reached: nothing is paused until it is back", zap.Error(err))
		}
	}
}
