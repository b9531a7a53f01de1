package engine

import (
	"context"
	"errors"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/store"
)

// maxAnswers bounds the answers that are kept for one caller, a day each: 14 a
// minute, all day. Each is a lease in the store.
const maxAnswers = 20_000

// Claim implements api.Answers.
func (e *Engine) Claim(ctx context.Context, key api.AnswerKey, value []byte, lasts time.Duration) (former []byte, err error) {
	err = e.inReach(ctx, func(ctx context.Context) error {
		var err error
		former, err = e.store.ClaimAnswer(ctx, store.AnswerKey(key), value, lasts, maxAnswers)
		switch {
		case errors.Is(err, store.ErrTooManyAnswers):
			return api.ErrTooManyAnswers
		case err != nil:
			return &api.UnavailableError{Reason: err.Error()}
		}
		return nil
	})
	return former, err
}

// Keep implements api.Answers.
func (e *Engine) Keep(ctx context.Context, key api.AnswerKey, value []byte, lasts time.Duration) error {
	return e.store.KeepAnswer(ctx, store.AnswerKey(key), value, lasts)
}

// Release implements api.Answers.
func (e *Engine) Release(ctx context.Context, key api.AnswerKey) error {
	return e.store.DropAnswer(ctx, store.AnswerKey(key))
}
