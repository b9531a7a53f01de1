package caddymodule

import (
	"errors"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// What visitors are told, who have shown no token: never an error's own text,
// which names hosts and their addresses. That is for the log, and for the API.

// failures are a visitor's words for what went wrong at a host.
var failures = map[session.Failure]string{
	session.FailUnreachable:  "its host can't be reached",
	session.FailTimeout:      "its host has not answered in time",
	session.FailRefused:      "its host refused to resume it",
	session.FailBroken:       "its host failed to resume it",
	session.FailGone:         "its host does not know it",
	session.FailUnconfigured: "its host is not configured here",
}

// failureWords are those for a resume that a record says has failed.
func failureWords(kind session.Failure) string {
	if words, known := failures[kind]; known {
		return words
	}
	return "it could not be resumed"
}

// toldOf are a visitor's words for why a sandbox is not to be had yet.
func toldOf(why error) string {
	if why == nil {
		why = wake.ErrHeld
	}
	if failed, ok := errors.AsType[*wake.HostError](why); ok {
		return failureWords(failed.Kind)
	}
	for _, known := range []error{wake.ErrHeld, wake.ErrContradicts, wake.ErrShuttingDown, errReplaced, errExiting} {
		if errors.Is(why, known) {
			return known.Error()
		}
	}
	if errors.Is(why, store.ErrBroken) {
		return "what is stored of it can't be read"
	}
	return "the session store does not answer"
}

// sentence makes words stand alone.
func sentence(words string) string { return strings.ToUpper(words[:1]) + words[1:] + "." }

// problem is what the visitor is answered for err. Of what a visitor is not told
// the log knows.
func (f *flight) problem(err error) problem {
	p := problemOf(f.target, err)
	if p.Status == http.StatusBadGateway {
		f.gate.logger.Warn("a sandbox does not answer",
			zap.String("sandbox", f.target.SandboxID), zap.Int("port", int(f.target.Port)), zap.Error(err))
	}
	return p
}
