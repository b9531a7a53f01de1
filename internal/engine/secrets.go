package engine

import (
	"context"
	"sync"

	"github.com/sandman-proxy/sandman/internal/api"
)

// secrets keeps what was read of the store's secrets, which never change.
type secrets struct {
	mu    sync.Mutex // guards the following field
	badge []byte
}

// BadgeKey implements api.Reader.
func (e *Engine) BadgeKey(ctx context.Context) ([]byte, error) {
	e.secrets.mu.Lock()
	key := e.secrets.badge
	e.secrets.mu.Unlock()
	if key != nil {
		return key, nil
	}
	key, err := e.store.Secret(ctx, "badge") // not under the lock: the store may be away
	if err != nil {
		return nil, &api.UnavailableError{Reason: "the key of badge tokens can't be read: " + err.Error()}
	}
	e.secrets.mu.Lock()
	defer e.secrets.mu.Unlock()
	e.secrets.badge = key
	return key, nil
}
