package caddymodule

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/stream"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// DefaultPageAfter is how long a navigation is held before a page tells that the
// sandbox wakes.
const DefaultPageAfter = 2 * time.Second

func (f *flight) asker() wake.Asker {
	if f.reopens {
		return wake.PageSocket
	}
	return wake.AskerOf(f.arrived)
}

// cause is why the request wakes the sandbox, and whether it may. Most wake
// none.
func (f *flight) cause() wake.Cause {
	r, asker := f.arrived, f.asker()
	return wake.Cause{
		Reason: "request: " + r.Method + " " + shortened(r.URL.Path), Kind: "request", Hold: holdOf(f.target),
		Reconnect: asker.Reconnects(), May: f.gate.policy.For(asker),
	}
}

// wake holds the request until its sandbox runs, or as long as is good for who
// sent it.
func (f *flight) wake(ctx context.Context) error {
	switch {
	case f.showsPage() && f.mayShow():
		return f.wakeBehind(ctx)
	case f.stillOpen(ctx):
		return &wake.RefusedError{
			Asker: wake.PageSocket, Code: engine.ReasonStillOpen,
			Reason: "a stream of the same page is still open, and its next message does",
		}
	}
	return f.ensure(ctx, f.cause())
}

// pongWithin is how long a page has to show that its first stream is alive.
const pongWithin = 2 * time.Second

// stillOpen tells whether a page's handshake only seems to be a reconnect: the
// stream that it has had before is parked here, and its client answers. Editors
// open a second one beside a stream that has fallen silent. A stream whose client
// does not answer is closed: the laptop has slept, or changed its network.
func (f *flight) stillOpen(ctx context.Context) bool {
	s := f.engine.Session(f.target.SandboxID)
	if f.asker() != wake.PageSocket || s == nil || s.State != session.Paused && s.State != session.Pausing ||
		f.gate.policy.Of(f.engine.Effective(s.Record)) != wake.WakeIntent {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, pongWithin)
	defer cancel()
	page := f.page()
	page.Key = f.counting.noise.Stream(f.arrived, "").Key()
	parked := f.engine.Streams().Parked(f.target.SandboxID, page)
	alive := make(chan bool, len(parked))
	for _, p := range parked {
		go func() { alive <- answers(ctx, p) }()
	}
	for range parked {
		if <-alive {
			return true
		}
	}
	return false
}

// answers tells whether a parked stream's client is still there.
func answers(ctx context.Context, s engine.Stream) bool {
	pinger, ok := s.(interface {
		Ping(ctx context.Context) error
	})
	if !ok {
		return false
	}
	err := pinger.Ping(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		s.CloseWith(stream.StatusServiceRestart, "the page has opened another stream")
	}
	return err == nil
}

// showsPage tells whether a person sees what is answered, and may be shown a
// page that opens the address again by itself: a form's data would be lost.
func (f *flight) showsPage() bool {
	return f.arrived.Method == http.MethodGet && f.asker().ShowsPages()
}

// mayShow tells whether the page could tell when the sandbox runs. One that runs
// is entered, which takes no time worth a page, and without the store nothing
// is told.
func (f *flight) mayShow() bool {
	return f.engine.State(f.target.SandboxID) != session.Running && f.engine.InContact()
}

// wakeBehind has the sandbox woken behind the request, which gets a page if
// that takes a while: errWaking.
func (f *flight) wakeBehind(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, time.Duration(f.gate.PageAfter))
	defer cancel()
	defer context.AfterFunc(open.leaving, cancel)()
	for {
		w, joined := f.engine.wish(ctx, f.target.SandboxID, f.cause())
		err := w.wait(soon)
		var refused *wake.RefusedError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case open.leaving.Err() != nil:
			return errExiting
		case soon.Err() != nil:
			return errWaking
		case joined && errors.As(err, &refused):
			continue // somebody else was, and this one may be let in
		case err != nil:
			return err
		}
		return f.ensure(ctx, f.cause())
	}
}

// refuse answers a request that does not get to its sandbox. A person is told
// what the matter is, and how it goes on.
func (f *flight) refuse(w http.ResponseWriter, r *http.Request, why error) error {
	f.note(why)
	if !f.showsPage() || !errors.Is(why, errWaking) && !errors.As(why, new(*wake.RefusedError)) && !errors.As(why, new(*wake.NotYetError)) {
		return refuse(w, r, f.target, why)
	}
	p := f.engine.outlook(f.target.SandboxID, f.gate.policy, why)
	p.Back = r.URL.RequestURI()
	after := problemOf(f.target, why).retryAfter
	neverStored(w.Header(), max(after, p.Refresh))
	p.write(w)
	return nil
}

// note tells who wants to know why a sandbox sleeps on.
func (f *flight) note(why error) {
	var refused *wake.RefusedError
	if !errors.As(why, &refused) {
		return
	}
	f.engine.Streams().Refused(f.target.SandboxID, session.Refusal{
		Asker: refused.Asker.String(), What: f.arrived.Method + " " + shortened(f.arrived.URL.Path), Reason: refused.Code,
	})
}
