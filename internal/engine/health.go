package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/e2b"
)

// health is how the hosts' APIs answer this process: the last word of each, from
// all calls that are made anyway. So a process that does not lead knows, too.
type health struct {
	log *zap.Logger

	mu    sync.Mutex // guards the following field
	words map[string]word
}

// word is what came of the last call to a host.
type word struct {
	at      time.Time
	failure string // "": it answered as a host does
}

func newHealth(log *zap.Logger) *health {
	return &health{log: log, words: make(map[string]word)}
}

// call notes that a call to the host begins. The caller gives what came of it
// to the function returned, once.
func (h *health) call(host string) (came func(error)) {
	began := time.Now()
	return func(err error) { h.note(host, began, err) }
}

// note takes down what came of a call. A call that its caller gave up says
// nothing of the host, and one that failed after it had hung for long says
// nothing that a younger call's answer has not overtaken.
func (h *health) note(host string, began time.Time, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	w := word{at: time.Now()}
	if err != nil && !aboutSandbox(err) {
		w.failure = err.Error()
	}
	h.mu.Lock()
	before := h.words[host]
	if w.failure != "" && before.failure == "" && before.at.After(began) {
		h.mu.Unlock()
		return
	}
	h.words[host] = w
	h.mu.Unlock()
	switch {
	case w.failure != "" && before.failure == "":
		h.log.Error("a host does not answer as it should", zap.String("host", host), zap.Error(err))
	case w.failure == "" && before.failure != "":
		h.log.Info("a host answers again", zap.String("host", host))
	}
}

// aboutSandbox tells an API's word on one sandbox, such as "not found" or
// "already paused", from one on the caller or the host, and from what was said
// by something that is no such API.
func aboutSandbox(err error) bool {
	var answer *e2b.Error
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return false
	}
	return answer.Code >= 400 && answer.Code < 500
}

func (h *health) last(host string) word {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.words[host]
}

// create and kill are calls for somebody who waits for the answer. A host that
// gives none is nothing wrong inside Sandman.
func (h hosts) create(ctx context.Context, host Host, n e2b.NewSandbox) (e2b.Sandbox, error) {
	came := h.health.call(host.Name())
	made, err := host.API().Create(ctx, n)
	came(err)
	return made, unanswered(host, err)
}

func (h hosts) kill(ctx context.Context, host Host, id string) error {
	came := h.health.call(host.Name())
	err := host.API().Kill(ctx, id)
	came(err)
	return unanswered(host, err)
}

// unanswered tells that a host could not be asked from what it answered.
func unanswered(host Host, err error) error {
	var failed *url.Error
	if !errors.As(err, &failed) || errors.Is(err, context.Canceled) {
		return err
	}
	return &api.UnavailableError{Reason: fmt.Sprintf("host %q can't be reached: %v", host.Name(), err)}
}

const (
	// probeEvery is how often a host that fails is asked whether it is back.
	probeEvery = 10 * time.Second
	probeTry   = 10 * time.Second
)

// probe asks each host that fails, or that nobody here has asked anything for
// longer than quiet, until ctx ends.
func (h hosts) probe(ctx context.Context, quiet time.Duration) {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		var asking sync.WaitGroup
		for _, host := range h.list {
			if w := h.health.last(host.Name()); w.failure != "" || time.Since(w.at) > quiet {
				asking.Go(func() { h.ping(ctx, host) })
			}
		}
		asking.Wait()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (h hosts) ping(ctx context.Context, host Host) {
	ctx, cancel := context.WithTimeout(ctx, probeTry)
	defer cancel()
	came := h.health.call(host.Name())
	came(host.API().Ping(ctx))
}
