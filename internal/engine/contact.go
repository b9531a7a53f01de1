package engine

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/pauser"
)

const (
	// whyWait is how long it may take to find out why there is no contact.
	whyWait = time.Second

	// tellEvery is how often it is looked whether there is contact. A start, or
	// a store that is started again, takes less.
	tellEvery = 5 * time.Second

	// noticeEvery is how often it is looked whether readers are to be told that
	// contact was lost, or made.
	noticeEvery = 250 * time.Millisecond
)

const storeFull = "the session store takes no writes: nothing is paused until it does again"

// storeAway is said in the same words by whoever pauses.
var storeAway = pauser.ErrAway.Error()

// standstill says why nothing is paused, and what is known here may be old; ""
// while the store is in reach.
func (e *Engine) standstill() string {
	_, ok := e.view.Contact()
	switch {
	case ok:
		return ""
	case e.view.Full():
		return storeFull
	}
	return storeAway
}

// unread is the answer where the store could not be read.
func (e *Engine) unread(err error) error {
	reason := e.standstill()
	if reason == "" {
		reason = err.Error()
	}
	return &api.UnavailableError{Reason: reason}
}

// tellReaders tells all readers of everything when contact is lost, and when it
// is there again if anybody was told meanwhile, until ctx ends: no record shows
// it.
func (e *Engine) tellReaders(ctx context.Context) {
	ticker := time.NewTicker(noticeEvery)
	defer ticker.Stop()
	told := e.standstill()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := e.standstill()
		if now != "" && now != told || now == "" && e.toldAway.Swap(false) {
			e.watchers.touch()
		}
		told = now
	}
}

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
			e.log.Error(storeAway, zap.Error(err))
		}
	}
}
