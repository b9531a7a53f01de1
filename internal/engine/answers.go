package engine

import (
	"context"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
)

// Claim implements api.Answers.
func (e *Engine) Claim(ctx context.Context, key string, value []byte, lasts time.Duration) ([]byte, error) {
	former, err := e.store.ClaimAnswer(ctx, key, value, lasts)
	if err != nil {
		return nil, &api.UnavailableError{Reason: err.Error()}
	}
	return former, nil
}

// Keep implements api.Answers.
func (e *Engine) Keep(ctx context.Context, key string, value []byte, lasts time.Duration) error {
	return e.store.KeepAnswer(ctx, key, value, lasts)
}

// Release implements api.Answers.
func (e *Engine) Release(ctx context.Context, key string) error {
	return e.store.DropAnswer(ctx, key)
}
