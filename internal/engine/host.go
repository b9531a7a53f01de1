package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// Host is a place where sandboxes run.
type Host interface {
	// Name is what records call the host. It must stay the same as long as
	// there are records of it, and be no other host's.
	Name() string
	// API reaches the host's E2B API.
	API() *e2b.Client
	// Route tells where a sandbox's port is reached. ErrAsleep and ErrGone
	// come from hosts that know it without being asked over the network.
	Route(t e2b.Target) (Route, error)
	// Admit checks what the sandbox itself demands of its visitors, before it
	// is woken for them. False means that w was answered. A host that checks by
	// itself when a request comes admits everybody.
	Admit(w http.ResponseWriter, r *http.Request, t e2b.Target) bool
	// Watch calls paused after each pause that the host notices, by whomever.
	Watch(paused func(id string)) (stop func())
	// Freezer says how a local host pauses, "" for others.
	Freezer() string
}

// Route is how a request reaches a sandbox.
type Route struct {
	Addr string // host:port to dial
	TLS  bool
	Host string // what to send as Host; "": the visitor's own
}

// Errors of Host.Route.
var (
	ErrAsleep = errors.New("the sandbox is paused at its host")
	ErrGone   = errors.New("the host knows no such sandbox")
)

// checkNames refuses two hosts of one name: the second one's sandboxes would be
// taken for gone, since the first knows none of them.
func checkNames(all []Host) error {
	seen := make(map[string]bool, len(all))
	for _, h := range all {
		if seen[h.Name()] {
			return fmt.Errorf("two hosts of sandboxes are named %q", h.Name())
		}
		seen[h.Name()] = true
	}
	return nil
}

// hosts is the configured hosts as waking and pausing see them.
type hosts struct {
	list                 []Host
	ownerKey, projectKey string
	health               *health
	former               func(*session.Record) Host // of what a former engine serves, else nil
}

func (h hosts) of(rec *session.Record) (Host, error) {
	if host := h.former(rec); host != nil {
		return host, nil
	}
	for _, host := range h.list {
		if host.Name() == rec.Host {
			return host, nil
		}
	}
	return nil, fmt.Errorf("host %q is not configured here", rec.Host)
}

// record makes a record of what the host tells.
func (h hosts) record(host string, s e2b.ListedSandbox, reason string) session.Record {
	state := session.Running
	if s.State == e2b.StatePaused {
		state = session.Paused
	}
	rec := session.New(s.SandboxID, host, state, reason, time.Now())
	rec.Template = s.TemplateID
	return rec.WithMetadata(s.Metadata, h.ownerKey, h.projectKey)
}

// find asks one host after the other. It is a clear no only if all say no.
func (h hosts) find(ctx context.Context, id string) (session.Record, error) {
	var failed error
	for _, host := range h.list {
		got, err := h.get(ctx, host, id)
		switch {
		case err == nil:
			return h.record(host.Name(), got.ListedSandbox, "known at host "+host.Name()), nil
		case !e2b.IsNotFound(err):
			failed = fmt.Errorf("asking host %q: %w", host.Name(), hostError(err))
		}
	}
	if failed != nil {
		return session.Record{}, failed
	}
	return session.Record{}, ErrGone
}

func (h hosts) get(ctx context.Context, host Host, id string) (e2b.SandboxDetail, error) {
	came := h.health.call(host.Name())
	got, err := host.API().Get(ctx, id)
	came(err)
	return got, err
}

func (h hosts) state(ctx context.Context, rec session.Record) (session.State, error) {
	host, err := h.of(&rec)
	if err != nil {
		return "", err
	}
	got, err := h.get(ctx, host, rec.SandboxID)
	switch {
	case e2b.IsNotFound(err):
		return "", ErrGone
	case err != nil:
		return "", err
	case got.State == e2b.StatePaused:
		return session.Paused, nil
	}
	return session.Running, nil
}

// wakeHost is wake.Host.
type wakeHost struct{ hosts }

func (h wakeHost) Connect(ctx context.Context, rec session.Record, timeout time.Duration) error {
	host, err := h.of(&rec)
	if err != nil {
		return &wake.PermanentError{Err: &wake.HostError{Kind: session.FailUnconfigured, Err: err}}
	}
	came := h.health.call(host.Name())
	_, _, err = host.API().Connect(ctx, rec.SandboxID, timeout)
	came(err)
	switch {
	case err == nil:
		return nil
	case e2b.IsNotFound(err):
		return wake.ErrGone
	}
	failed := hostError(err)
	if failed.Kind == session.FailRefused {
		return &wake.PermanentError{Err: failed}
	}
	return failed
}

// hostError says of what kind a call's error is.
func hostError(err error) *wake.HostError {
	kind := session.FailBroken // also an answer that can't be read
	var answer *e2b.Error
	var transport *url.Error
	switch {
	case errors.As(err, &answer) && answer.Code >= 400 && answer.Code < 500:
		kind = session.FailRefused
	case errors.Is(err, context.DeadlineExceeded):
		kind = session.FailTimeout
	case errors.As(err, &transport):
		kind = session.FailUnreachable
	}
	return &wake.HostError{Kind: kind, Err: err}
}

func (h wakeHost) Find(ctx context.Context, id string) (session.Record, error) {
	rec, err := h.find(ctx, id)
	if errors.Is(err, ErrGone) {
		return rec, wake.ErrGone
	}
	return rec, err
}

// pauseHost is pauser.Host.
type pauseHost struct{ hosts }

func (h pauseHost) Pause(ctx context.Context, rec session.Record) error {
	host, err := h.of(&rec)
	if err != nil {
		return err
	}
	came := h.health.call(host.Name())
	err = host.API().Pause(ctx, rec.SandboxID)
	came(err)
	if e2b.IsNotFound(err) {
		return pauser.ErrGone
	}
	return err
}

func (h pauseHost) State(ctx context.Context, rec session.Record) (session.State, error) {
	state, err := h.state(ctx, rec)
	if errors.Is(err, ErrGone) {
		return state, pauser.ErrGone
	}
	return state, err
}

func (h pauseHost) Remaining(ctx context.Context, rec session.Record) (time.Duration, error) {
	host, err := h.of(&rec)
	if err != nil {
		return 0, err
	}
	got, err := h.get(ctx, host, rec.SandboxID)
	switch {
	case e2b.IsNotFound(err):
		return 0, pauser.ErrGone
	case err != nil:
		return 0, err
	case got.State != e2b.StateRunning:
		return 0, pauser.ErrGone
	}
	return got.EndAt.Sub(got.AsOf), nil // both by the host's clock
}

func (h pauseHost) Extend(ctx context.Context, rec session.Record, d time.Duration) error {
	host, err := h.of(&rec)
	if err != nil {
		return err
	}
	came := h.health.call(host.Name())
	err = host.API().SetTimeout(ctx, rec.SandboxID, d)
	came(err)
	if e2b.IsNotFound(err) || e2b.IsConflict(err) { // it does not run any more
		return pauser.ErrGone
	}
	return err
}

// Lists asks all hosts at the same time: one that hangs is not the others' fault.
func (h pauseHost) Lists(ctx context.Context) map[string]pauser.List {
	lists := make([]pauser.List, len(h.list))
	var asking sync.WaitGroup
	for i, host := range h.list {
		asking.Go(func() { lists[i] = h.listOf(ctx, host) })
	}
	asking.Wait()
	byName := make(map[string]pauser.List, len(h.list))
	for i, host := range h.list {
		byName[host.Name()] = lists[i]
	}
	return byName
}

func (h pauseHost) listOf(ctx context.Context, host Host) pauser.List {
	came := h.health.call(host.Name())
	listed, err := host.API().List(ctx)
	came(err)
	l := pauser.List{Err: err, Sandboxes: make(map[string]session.Record, len(listed))}
	for _, s := range listed {
		l.Sandboxes[s.SandboxID] = h.record(host.Name(), s, "known at host "+host.Name())
	}
	return l
}
