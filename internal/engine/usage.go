package engine

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
)

// Usage implements api.SavingsReader.
func (e *Engine) Usage(ctx context.Context, from, to session.Day) ([]api.Used, error) {
	if err := e.loaded(ctx); err != nil {
		return nil, err
	}
	used, err := e.store.Usage(ctx, from, to, time.Now())
	if err != nil {
		return nil, e.unread(err)
	}
	out := make([]api.Used, len(used))
	for i, u := range used {
		out[i] = api.Used(u)
	}
	return out, nil
}

// foldUsage is what the leader does to keep the usage small, a step with each
// sweep.
func (e *Engine) foldUsage(ctx context.Context) {
	folder := e.store.NewFolder()
	every := time.NewTicker(e.cfg.CheckEvery)
	defer every.Stop()
	for ctx.Err() == nil {
		if _, err := folder.Step(ctx, time.Now()); err != nil && ctx.Err() == nil {
			e.log.Warn("usage is left unfolded for now", zap.Error(err))
		}
		select {
		case <-every.C:
		case <-ctx.Done():
		}
	}
}
