package wake

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/sandman-proxy/sandman/internal/session"
)

// breakers keep one circuit breaker per host, so that a host that is down is
// not asked by every visitor.
type breakers struct {
	byHost sync.Map // name -> *breaker
}

// breaker remembers why it opened: "open" alone would help nobody.
type breaker struct {
	*gobreaker.CircuitBreaker[struct{}]
	failed atomic.Pointer[error] // the last failure
}

const (
	breakerFailures = 5 // in a row
	breakerOpen     = 5 * time.Second
)

// PermanentError marks what is about one sandbox: an answer of its host that
// says nothing of the host's health, such as a 4xx, or a record that can't be
// read.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }
func (e *PermanentError) Unwrap() error { return e.Err }

// HostError is what came of asking a host, with the kind of it.
type HostError struct {
	Kind session.Failure
	Err  error
}

func (e *HostError) Error() string { return e.Err.Error() }
func (e *HostError) Unwrap() error { return e.Err }

// failureOf tells what went wrong at the host, "" if that is not what did.
func failureOf(err error) session.Failure {
	if e, ok := errors.AsType[*HostError](err); ok {
		return e.Kind
	}
	return ""
}

func (b *breakers) do(host string, call func() error) error {
	v, ok := b.byHost.Load(host)
	if !ok {
		v, _ = b.byHost.LoadOrStore(host, &breaker{CircuitBreaker: newBreaker(host)})
	}
	br := v.(*breaker)
	_, err := br.Execute(func() (struct{}, error) {
		err := call()
		if !isAnswer(err) {
			br.failed.Store(&err)
		}
		return struct{}{}, err
	})
	if !errors.Is(err, gobreaker.ErrOpenState) && !errors.Is(err, gobreaker.ErrTooManyRequests) {
		return err
	}
	if failed := br.failed.Load(); failed != nil {
		return fmt.Errorf("host %q is not asked for a moment, because it fails: %w", host, *failed)
	}
	return fmt.Errorf("host %q is not asked for a moment: %w", host, err)
}

// isAnswer tells that a host has answered as one does, be that a refusal.
func isAnswer(err error) bool {
	var permanent *PermanentError
	return err == nil || errors.Is(err, ErrGone) || errors.As(err, &permanent)
}

func newBreaker(host string) *gobreaker.CircuitBreaker[struct{}] {
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         host,
		MaxRequests:  5,
		Timeout:      breakerOpen,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerFailures },
		IsSuccessful: isAnswer,
	})
}
