package wake

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// breakers keep one circuit breaker per host, so that a host that is down is
// not asked by every visitor.
type breakers struct {
	byHost sync.Map // name -> *gobreaker.CircuitBreaker[struct{}]
}

const (
	breakerFailures = 5 // in a row
	breakerOpen     = 5 * time.Second
)

// PermanentError marks an answer of a host that is about one sandbox and says
// nothing of the host's health, such as a 4xx.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }
func (e *PermanentError) Unwrap() error { return e.Err }

func (b *breakers) do(host string, call func() error) error {
	v, ok := b.byHost.Load(host)
	if !ok {
		v, _ = b.byHost.LoadOrStore(host, newBreaker(host))
	}
	_, err := v.(*gobreaker.CircuitBreaker[struct{}]).Execute(func() (struct{}, error) {
		return struct{}{}, call()
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return fmt.Errorf("host %q does not answer: %w", host, err)
	}
	return err
}

func newBreaker(host string) *gobreaker.CircuitBreaker[struct{}] {
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        host,
		MaxRequests: 5,
		Timeout:     breakerOpen,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerFailures },
		IsSuccessful: func(err error) bool {
			var permanent *PermanentError
			return err == nil || errors.Is(err, ErrGone) || errors.As(err, &permanent)
		},
	})
}
