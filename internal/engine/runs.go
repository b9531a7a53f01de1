package engine

import (
	"context"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

// runsAhead is how many runs may wait for the store.
const runsAhead = 64

// ran takes a run in; it does not block.
func (e *Engine) ran(r session.Run) {
	select {
	case e.runs <- r:
	default:
		e.log.Warn("a run of the leader is not kept: the store is too slow", zap.String("run", r.ID))
	}
}

// keepRuns stores runs until ctx ends, and what has come by then.
func (e *Engine) keepRuns(ctx context.Context) {
	for {
		select {
		case r := <-e.runs:
			e.keepRun(ctx, r)
			continue
		case <-ctx.Done():
		}
		select {
		case r := <-e.runs:
			e.keepRun(ctx, r)
		default:
			return
		}
	}
}

func (e *Engine) keepRun(ctx context.Context, r session.Run) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), seenWithin)
	defer cancel()
	if err := e.store.AddRun(ctx, r); err != nil {
		e.log.Warn("a run of the leader is not kept", zap.Error(err))
	}
}

// LeaderRuns implements api.Reader.
func (e *Engine) LeaderRuns(ctx context.Context) ([]session.Run, error) {
	all, err := e.store.Runs(ctx)
	if err != nil {
		return nil, e.unread(err)
	}
	return all, nil
}
