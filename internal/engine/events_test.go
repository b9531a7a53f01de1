package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
)

// reader is one who is told of changes.
type reader struct {
	t *testing.T
	api.Events
	last int64                  // ID of the last event
	seen map[string]api.Sandbox // as it was told
	more []api.Event
}

func (n *node) watch(f api.EventFilter, after ...int64) *reader {
	n.w.t.Helper()
	var from int64
	for _, from = range after {
	}
	events, err := n.Watch(n.w.t.Context(), f, from, len(after) > 0)
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.w.t.Cleanup(events.Close)
	return &reader{t: n.w.t, Events: events, last: events.At(), seen: map[string]api.Sandbox{}}
}

// next gives the next event.
func (r *reader) next() api.Event {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	for len(r.more) == 0 {
		var err error
		if r.more, err = r.Next(ctx); err != nil {
			r.t.Fatal(err)
		}
	}
	e := r.more[0]
	r.more = r.more[1:]
	r.last = e.ID
	r.seen[e.SandboxID] = e.Sandbox
	return e
}

// until reads on until an event is as is wanted.
func (r *reader) until(what string, want func(api.Event) bool) api.Event {
	r.t.Helper()
	for range 1000 {
		if e := r.next(); want(e) {
			return e
		}
	}
	r.t.Fatalf("not told that %s", what)
	return api.Event{}
}

func (r *reader) untilState(id string, want session.State) api.Event {
	r.t.Helper()
	return r.until(id+" is "+string(want), func(e api.Event) bool { return e.SandboxID == id && e.Sandbox.State == want })
}

// silent fails the test where anything is told.
func (r *reader) silent(d time.Duration) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), d)
	defer cancel()
	if events, err := r.Next(ctx); len(r.more) > 0 || !errors.Is(err, context.DeadlineExceeded) {
		r.t.Errorf("told %+v, %+v, %v", r.more, events, err)
	}
}

func TestWatch_tellsWhatBecomesOfASandboxThroughAnyProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start(nil), w.start(nil)
	all, fromB := a.watch(api.EventFilter{}), b.watch(api.EventFilter{})
	id := a.create()
	one := b.watch(api.EventFilter{Sandbox: id}) // of one that may not be known here yet
	for _, r := range []*reader{all, fromB} {
		r.untilState(id, session.Running)
	}
	a.pause(id, false)
	for _, r := range []*reader{all, fromB, one} {
		e := r.untilState(id, session.Paused)
		if e.Sandbox.Revision == 0 || e.ID < 1 || e.Sandbox.PauseAt != nil || e.Sandbox.Holds == nil {
			t.Errorf("%+v", e)
		}
	}
	if err := a.Kill(t.Context(), id, "test"); err != nil {
		t.Fatal(err)
	}
	fromB.untilState(id, session.Killed)
}

func TestWatch_aFilterLetsNothingElseThrough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	hers, his := n.create(), n.create()
	own := func(id, owner string) {
		t.Helper()
		p := api.Patch{Owner: api.Optional[string]{Set: true, Value: owner}}
		if _, err := n.Update(t.Context(), id, p, 0); err != nil {
			t.Fatal(err)
		}
	}
	own(hers, "alice")
	own(his, "bob")
	alice, bob := n.watch(api.EventFilter{Bound: "alice", Claimed: true}), n.watch(api.EventFilter{Bound: "bob", Claimed: true})
	asBob := n.watch(api.EventFilter{Bound: "alice", Owner: "bob"})
	from := alice.At()
	own(hers, "bob") // it goes to him
	alice.until("it is gone", func(e api.Event) bool { return e.Kind == api.EventGone && e.SandboxID == hers })
	bob.untilState(hers, session.Running)
	asBob.silent(100 * time.Millisecond)
	for id := range alice.seen {
		if id == his {
			t.Error("alice was told of bob's")
		}
	}
	// who comes again is told the same
	again := n.watch(api.EventFilter{Bound: "alice", Claimed: true}, from)
	again.until("it is gone", func(e api.Event) bool { return e.Kind == api.EventGone && e.SandboxID == hers })
	again.silent(100 * time.Millisecond)
}

func TestWatch_oneSandboxBeginsWithHowItIs(t *testing.T) {
	t.Parallel()
	n := newWorld(t).start(nil)
	id, other := n.sleeping(), n.sleeping()
	r := n.watch(api.EventFilter{Sandbox: id})
	if e := r.next(); e.SandboxID != id || e.Sandbox.State != session.Paused {
		t.Errorf("%+v", e)
	}
	r.silent(100 * time.Millisecond)
	if _, _, err := n.Resume(t.Context(), other, "test"); err != nil {
		t.Fatal(err)
	}
	r.silent(100 * time.Millisecond)
	n.watch(api.EventFilter{Bound: "alice", Sandbox: id}).silent(100 * time.Millisecond)
	n.watch(api.EventFilter{}).silent(100 * time.Millisecond) // what there is, a list tells
}

// TestWatch_resumesAtAnyProxy: whatever changes while nobody reads is told after
// it, once, and nothing of what was told before.
func TestWatch_resumesAtAnyProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start(nil), w.start(nil)
	still, changed, gone := a.sleeping(), a.sleeping(), a.sleeping()
	b.await(gone, session.Paused)
	r := a.watch(api.EventFilter{}, a.watch(api.EventFilter{}).At())
	last := r.last
	if _, _, err := a.Resume(t.Context(), changed, "test"); err != nil {
		t.Fatal(err)
	}
	if err := a.Kill(t.Context(), gone, "test"); err != nil {
		t.Fatal(err)
	}
	b.await(changed, session.Running)
	b.await(gone, session.Killed)
	again := b.watch(api.EventFilter{}, last)
	again.untilState(changed, session.Running)
	if again.seen[gone].State == "" {
		again.untilState(gone, session.Killed)
	}
	for _, id := range []string{still} {
		if _, told := again.seen[id]; told {
			t.Errorf("%s was told of, and has not changed", id)
		}
	}
}

func TestWatch_whatIsTooOldIsReset(t *testing.T) {
	t.Parallel()
	n := newWorld(t).start(nil)
	id := n.sleeping()
	at := n.watch(api.EventFilter{}).At()
	for _, after := range []int64{0, at + 1000} {
		r := n.watch(api.EventFilter{}, after)
		if e := r.next(); e.Kind != api.EventReset || e.ID < at {
			t.Errorf("after %d: %+v", after, e)
		}
		r.silent(50 * time.Millisecond)
	}
	// the default has changed, which no record shows
	r := n.watch(api.EventFilter{})
	n.SetDefaults(time.Minute, session.Limits{})
	r.until("its timeout is another", func(e api.Event) bool {
		return e.SandboxID == id && time.Duration(e.Sandbox.IdleTimeout) == time.Minute
	})
	if e := n.watch(api.EventFilter{}, at).next(); e.Kind != api.EventReset {
		t.Errorf("%+v", e)
	}
}

// TestWatch_useAloneIsToldOnceASecond has a sandbox used all the time.
func TestWatch_useAloneIsToldOnceASecond(t *testing.T) {
	t.Parallel()
	n := newWorld(t).start(nil) // writes activity ten times a second
	id := n.create()
	r := n.watch(api.EventFilter{Sandbox: id})
	v := n.request(id)
	defer v.end()
	r.until("it is in use", func(e api.Event) bool { return len(e.Sandbox.AwakeBecause) > 0 })
	const span = 3 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			v.Bump()
			time.Sleep(10 * time.Millisecond)
		}
	}()
	told := 0
	for {
		events, err := r.Next(ctx)
		if err != nil {
			break
		}
		told += len(events)
	}
	if told < 1 || told > 4 {
		t.Errorf("told %d times in %s", told, span)
	}
}
