package caddymodule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/stream"
)

// attempts is one request, sent as often as it takes to reach a sandbox that
// is awake.
type attempts struct {
	*Transport
	*flight
	ctx     context.Context // the request's, unless a forced pause ends it before
	request *http.Request
	body    *stream.Replay // nil: the request has none
	sent    chan struct{}  // closed when the whole body has been read
}

// run sends the request until it has an answer that is the sandbox's.
func (a *attempts) run() (*http.Response, error) {
	for {
		res, rev, err := a.send()
		switch {
		case a.probes:
			return a.probed(res, err)
		case errors.Is(err, errAsleep):
			err = a.wake(rev)
		case errors.Is(err, errClosed):
			res, err = a.closedPort()
		case err != nil:
			err = a.broken(rev, err)
		}
		if res != nil || err != nil {
			return res, err
		}
	}
}

var (
	errAsleep = errors.New("the host says that the sandbox does not run")
	errClosed = errors.New("nothing listens on the port")
)

// send is one attempt, under revision rev of the record. Its errors are errAsleep
// and errClosed where the host said so, else the connection's.
func (a *attempts) send() (res *http.Response, rev int64, err error) {
	route, rev, err := a.engine.Route(a.target)
	if errors.Is(err, engine.ErrAsleep) || errors.Is(err, engine.ErrGone) {
		return nil, rev, errAsleep
	}
	if err != nil {
		return nil, rev, err
	}
	r, err := a.attempt(route)
	if err != nil {
		return nil, rev, err
	}
	res, err = a.HTTP.Transport.RoundTrip(r)
	if err == nil {
		res, err = a.classify(res)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		err = errClosed
	}
	return res, rev, err
}

// attempt gives the request as it is sent this time.
func (a *attempts) attempt(route engine.Route) (*http.Request, error) {
	r := a.request.WithContext(a.ctx)
	u := *r.URL
	u.Scheme, u.Host = "http", route.Addr
	if route.TLS {
		u.Scheme = "https"
	}
	r.URL = &u
	if route.Host != "" {
		r.Host = route.Host
	}
	if a.body != nil {
		body, ok := a.body.Attempt()
		if !ok {
			return nil, errTooLarge
		}
		r.Body = body
		r.GetBody = nil
	}
	return r, nil
}

// sentWait is how long an answer waits for the end of the request's body.
const sentWait = 100 * time.Millisecond

// awaitSent gives the end of the request's body, which often lies read already
// but not seen, a moment to arrive. An HTTP/1 server throws away what is left of
// a body when the answer begins, and the upstream would see its request cut off.
func (a *attempts) awaitSent() {
	if a.sent == nil || a.request.ProtoMajor != 1 {
		return
	}
	timer := time.NewTimer(sentWait)
	defer timer.Stop()
	select {
	case <-a.sent:
	case <-timer.C: // the answer really begins before the request has ended
	case <-a.ctx.Done():
	}
}

// maxAnswer bounds what is read of a 502 to see whose word it is.
const maxAnswer = 64 << 10

// classify tells the host's own 502 from one of the app.
func (a *attempts) classify(res *http.Response) (*http.Response, error) {
	if res.StatusCode != http.StatusBadGateway || res.ContentLength > maxAnswer {
		return res, nil
	}
	head, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		_ = res.Body.Close()
		return nil, err
	}
	switch e2b.ClassifyAnswer(a.target.SandboxID, res.StatusCode, res.Header, head) {
	case e2b.AnswerSandboxNotFound:
		_ = res.Body.Close()
		return nil, errAsleep
	case e2b.AnswerPortClosed:
		_ = res.Body.Close()
		return nil, errClosed
	case e2b.AnswerOther: // the app's own
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), res.Body), res.Body}
	return res, nil
}

// wake makes the sandbox run although the record said that it does.
func (a *attempts) wake(rev int64) error {
	cause := a.cause()
	cause.Suspect = rev
	return a.ensure(a.ctx, cause)
}

// portRetry is how often a port is tried that nobody listens on yet.
const portRetry = 50 * time.Millisecond

// closedPort waits for the port of a sandbox that has just been woken: awake is
// not ready. In one that has been awake for longer it is the app's own affair.
func (a *attempts) closedPort() (*http.Response, error) {
	if !a.engine.JustWoken(a.target.SandboxID, holdOf(a.target)) {
		w := &answer{header: make(http.Header)}
		e2b.WritePortClosed(w, a.request, a.target.SandboxID, a.target.Port)
		return w.response(a.request), nil
	}
	select {
	case <-time.After(portRetry):
		return nil, nil
	case <-a.ctx.Done():
		return nil, a.ctx.Err()
	}
}

// broken decides about a request whose connection broke without an answer. It
// is sent again only if the sandbox has left RUNNING meanwhile, and if the
// method bears it: it may have been carried out.
func (a *attempts) broken(rev int64, err error) error {
	if a.ctx.Err() != nil || a.engine.Revision(a.target.SandboxID) == rev {
		return err
	}
	if !repeatable(a.request) {
		return fmt.Errorf("the connection broke when the sandbox was paused, and the request may have been carried out: %w", err)
	}
	return a.wake(0)
}

func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return r.Header.Get("Idempotency-Key") != ""
}

// probed answers what neither counts nor wakes.
func (a *attempts) probed(res *http.Response, err error) (*http.Response, error) {
	if res != nil || err == nil {
		return res, err
	}
	w := &answer{header: make(http.Header)}
	switch {
	case a.noise != "" && a.engine.State(a.target.SandboxID) != session.Running:
		return nil, a.isNoise() // a pause has overtaken it
	case a.noise != "" && errors.Is(err, errClosed):
		e2b.WritePortClosed(w, a.request, a.target.SandboxID, a.target.Port)
	case a.noise == "" && (errors.Is(err, errAsleep) || errors.Is(err, errClosed)):
		e2b.WriteSandboxNotFound(w, a.request, a.target.SandboxID)
	default:
		return nil, err
	}
	return w.response(a.request), nil
}
