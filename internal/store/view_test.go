package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

func TestWait(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	type outcome struct {
		sb  *store.Sandbox
		err error
	}
	wait := func(ctx context.Context, past int64) <-chan outcome {
		done := make(chan outcome, 1)
		go func() {
			sb, err := r.View().Wait(ctx, "s", past)
			done <- outcome{sb, err}
		}()
		return done
	}
	created := wait(r.ctx, 0)
	rec := r.adopt("s", session.Running)
	if got := <-created; got.err != nil || got.sb.Revision != rec.Revision {
		t.Fatalf("creation: %+v", got)
	}
	// Activity and neighbours are no news of the record.
	changed := wait(r.ctx, rec.Revision)
	r.enter("s", rec.Revision)
	r.adopt("s2", session.Running)
	r.see("s", "the visit", func(sb *store.Sandbox) bool { return sb.Activity.Open })
	select {
	case got := <-changed:
		t.Fatalf("woke for activity: %+v", got.sb)
	default:
	}
	pausing, err := r.Transition(r.ctx, r.pausing(rec))
	if err != nil {
		t.Fatal(err)
	}
	if got := <-changed; got.err != nil || got.sb.State != session.Pausing {
		t.Fatalf("change: %+v", got)
	}
	if sb, err := r.View().Wait(r.ctx, "s", rec.Revision); err != nil || sb.Revision != pausing.Revision {
		t.Fatalf("what has changed already: %+v, %v", sb, err)
	}
	removed := wait(r.ctx, pausing.Revision)
	if err := r.Remove(r.ctx, "s", pausing.Revision); err != nil {
		t.Fatal(err)
	}
	if got := <-removed; got.err != nil || got.sb != nil {
		t.Fatalf("removal: %+v", got)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	given := wait(ctx, 0)
	cancel()
	if got := <-given; !errors.Is(got.err, context.Canceled) {
		t.Fatalf("giving up: %+v", got)
	}
}

func TestUntil(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	done := make(chan *session.Snapshot, 1)
	go func() {
		sb, err := r.View().Until(r.ctx, "s", func(sb *session.Snapshot) bool { return sb != nil && len(sb.Presence) == 1 })
		if err != nil {
			t.Error(err)
		}
		done <- sb
	}()
	rec := r.adopt("s", session.Running)
	e := r.enter("s", rec.Revision)
	if sb := <-done; sb == nil || sb.Presence[0].Revision != e.PresenceRevision || sb.Revision != rec.Revision {
		t.Errorf("got %+v", sb)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	if _, err := r.View().Until(ctx, "s", func(*session.Snapshot) bool { return false }); !errors.Is(err, context.Canceled) {
		t.Errorf("giving up: %v", err)
	}
}

func TestWait_wakesAllWaiters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if sb, err := r.View().Wait(r.ctx, "s", rec.Revision); err != nil || sb.State != session.Pausing {
				t.Errorf("%+v, %v", sb, err)
			}
		})
	}
	if _, err := r.Transition(r.ctx, r.pausing(rec)); err != nil {
		t.Fatal(err)
	}
	all.Wait()
}

func TestView_beforeTheFirstList(t *testing.T) {
	t.Parallel()
	s := store.New(client(), store.Config{Prefix: t.Name()}) // never run
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.View().Ready(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Ready: %v", err)
	}
	if sb, err := s.View().Wait(ctx, "s", 5); err == nil {
		t.Errorf("Wait took an empty view for a removal: %v", sb)
	}
	if _, ok := s.View().Contact(); ok {
		t.Error("in contact")
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 20 {
		rec := session.New(fmt.Sprintf("s%02d", i), []string{"local", "e2b"}[i%2], session.Paused, "", time.Now())
		rec.Owner, rec.Project = fmt.Sprint("o", i%3), fmt.Sprint("p", i%5)
		if _, err := r.Adopt(r.ctx, rec); err != nil {
			t.Fatal(err)
		}
	}
	r.see("s19", "the last", func(*store.Sandbox) bool { return true })
	sb, _ := r.View().Get("s04")
	if _, err := r.Transition(r.ctx, r.resuming(sb.Record)); err != nil {
		t.Fatal(err)
	}
	r.see("s04", "resuming", func(sb *store.Sandbox) bool { return sb.State == session.Resuming })
	for _, c := range []struct {
		q    store.Query
		want []string
		next string
	}{
		{store.Query{State: session.Resuming}, []string{"s04"}, ""},
		{store.Query{State: session.Running}, nil, ""},
		{store.Query{Owner: "o1", Host: "e2b"}, []string{"s01", "s07", "s13", "s19"}, ""},
		{store.Query{Project: "p4", State: session.Paused}, []string{"s09", "s14", "s19"}, ""},
		{store.Query{Owner: "nobody"}, nil, ""},
		{store.Query{Limit: 2}, []string{"s00", "s01"}, "s01"},
		{store.Query{Limit: 2, After: "s17"}, []string{"s18", "s19"}, ""},
		{store.Query{Limit: 2, After: "s17x"}, []string{"s18", "s19"}, ""},
		{store.Query{After: "s19"}, nil, ""},
		{store.Query{Owner: "o1", Host: "e2b", Limit: 3}, []string{"s01", "s07", "s13"}, "s13"},
	} {
		items, next := r.View().List(c.q)
		var got []string
		for _, sb := range items {
			got = append(got, sb.SandboxID)
		}
		if !slices.Equal(got, c.want) || next != c.next {
			t.Errorf("%+v: %v and next %q, want %v and %q", c.q, got, next, c.want, c.next)
		}
	}
	// an index follows settings, too
	sb, _ = r.View().Get("s07")
	next := sb.Record
	next.Owner = ""
	if _, err := r.Configure(r.ctx, next); err != nil {
		t.Fatal(err)
	}
	r.see("s07", "no owner", func(sb *store.Sandbox) bool { return sb.Owner == "" })
	if items, _ := r.View().List(store.Query{Owner: "o1"}); len(items) != 6 {
		t.Errorf("%d of owner o1, want 6", len(items))
	}
}

// What is there from the first page to the last is on exactly one of them,
// whatever comes, goes and changes meanwhile.
func TestList_pagesUnderChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 60 {
		r.adopt(fmt.Sprintf("stay%03d", i), session.Paused)
		if i%2 == 0 {
			r.adopt(fmt.Sprintf("stay%03d-go", i), session.Paused)
		}
	}
	seen := map[string]int{}
	q := store.Query{State: session.Paused, Limit: 7}
	for round := 0; ; round++ {
		items, next := r.View().List(q)
		for _, sb := range items {
			seen[sb.SandboxID]++
		}
		if next == "" {
			break
		}
		q.After = next
		gone := fmt.Sprintf("stay%03d-go", 6*round)
		if sb, ok := r.View().Get(gone); ok {
			if err := r.Remove(r.ctx, gone, sb.Revision); err != nil {
				t.Fatal(err)
			}
			if _, err := r.View().Wait(r.ctx, gone, sb.Revision); err != nil {
				t.Fatal(err)
			}
		}
		r.adopt(fmt.Sprintf("stay%03d-new", 60-round), session.Paused)
	}
	for i := range 60 {
		if id := fmt.Sprintf("stay%03d", i); seen[id] != 1 {
			t.Errorf("%s was listed %d times", id, seen[id])
		}
	}
	for id, n := range seen {
		if n > 1 {
			t.Errorf("%s was listed %d times", id, n)
		}
	}
}

// journal is what a subscriber was told.
type journal struct {
	mu    sync.Mutex
	calls []string
}

func (j *journal) note(id string, old, new *store.Sandbox) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.calls = append(j.calls, fmt.Sprintf("%s %s>%s", id, stateOf(old), stateOf(new)))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.calls)
}

func stateOf(sb *store.Sandbox) session.State {
	if sb == nil {
		return "-"
	}
	return sb.State
}

func TestSubscribe(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Paused)
	var j journal
	cancel := r.View().Subscribe(func(id string, old, new *store.Sandbox) {
		if got, _ := r.View().Get(id); got != new {
			t.Errorf("told of %s before it can be seen", id)
		}
		j.note(id, old, new)
	})
	rec, err := r.Transition(r.ctx, r.resuming(rec))
	if err != nil {
		t.Fatal(err)
	}
	rec, _, err = r.Woken(r.ctx, must(rec.Settle(session.Running, "connected", time.Now()))(t), "request")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(r.ctx, "s", rec.Revision); err != nil {
		t.Fatal(err)
	}
	r.put("presence/ghost/node-b", "") // of no sandbox
	r.put("history/s/1", "{}")
	r.adopt("t", session.Paused)
	want := []string{"s ->PAUSED", "s PAUSED>RESUMING", "s RESUMING>RUNNING", "s RUNNING>-", "t ->PAUSED"}
	r.eventually("all calls", func() bool { return len(j.all()) >= len(want) })
	if got := j.all(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	cancel()
	r.adopt("u", session.Paused)
	if got := j.all(); len(got) != len(want) {
		t.Errorf("called after cancel: %v", got)
	}
}

// Each change follows on the one before it, without a gap or a repetition,
// also for who comes in the middle of it.
func TestSubscribe_duringChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const n = 200
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range n {
			r.put("sandboxes/s", encode(session.Record{SandboxID: "s", State: session.Paused, Reason: fmt.Sprint(i)}))
		}
	}()
	var subscribers sync.WaitGroup
	for range 20 {
		subscribers.Go(func() {
			last, end := (*store.Sandbox)(nil), make(chan struct{})
			cancel := r.View().Subscribe(func(id string, old, new *store.Sandbox) {
				if old != last {
					t.Errorf("told of a change from %v after %v", old, last)
				}
				if last = new; new.Reason == fmt.Sprint(n-1) {
					close(end)
				}
			})
			defer cancel()
			<-end
		})
	}
	<-done
	subscribers.Wait()
}

func TestLastActive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	began := time.Now()
	rev := r.put("activity/s", `{"open":true,"quietMs":3600000}`)
	sb := r.see("s", "an hour-old activity", func(sb *store.Sandbox) bool { return sb.ActivityRevision == rev })
	if sb.LastActive.Before(began.Add(-time.Minute)) {
		t.Errorf("an old stream has moved it back to %s ago", time.Since(sb.LastActive))
	}
	rev = r.put("activity/s", `{"open":true,"quietMs":-3600000}`)
	sb = r.see("s", "an activity of the future", func(sb *store.Sandbox) bool { return sb.ActivityRevision == rev })
	if sb.LastActive.After(time.Now()) {
		t.Error("it lies in the future")
	}
	before := sb.LastActive
	rev = r.put("activity/s", `{"open":true}`)
	sb = r.see("s", "a fresh activity", func(sb *store.Sandbox) bool { return sb.ActivityRevision == rev })
	if !sb.LastActive.After(before) {
		t.Error("a fresh activity has not moved it")
	}
	// A process that comes later counts from its own first list.
	rev = r.put("activity/s", `{"open":false,"quietMs":3600000}`)
	began = time.Now()
	b := r.beside("node-b")
	if sb, _ := b.View().Get("s"); sb.LastActive.Before(began) || sb.ActivityRevision != rev {
		t.Errorf("it begins %s before the list", began.Sub(sb.LastActive))
	}
	_ = rec
}

func TestView_listsInPages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const n = 2500
	for from := 0; from < n; from += 50 {
		var ops []clientv3.Op
		for i := from; i < from+50; i++ {
			id := fmt.Sprintf("s%04d", i)
			ops = append(ops,
				clientv3.OpPut(r.key("sandboxes", id), encode(session.Record{SandboxID: id, State: session.Paused})),
				clientv3.OpPut(r.key("activity", id), `{"open":true}`))
		}
		if _, err := r.etcd.Txn(r.ctx).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	items, _ := r.beside("node-b").View().List(store.Query{})
	if len(items) != n {
		t.Fatalf("%d sandboxes, want %d", len(items), n)
	}
	for i, sb := range items {
		if sb.SandboxID != fmt.Sprintf("s%04d", i) || !sb.Activity.Open {
			t.Fatalf("number %d is %+v", i, sb)
		}
	}
}

func TestNodes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := r.beside("node/b")
	r.eventually("both nodes", func() bool { return slices.Equal(r.View().Nodes(), []string{"node-a", "node/b"}) })
	b.stop() // says goodbye
	r.eventually("one node", func() bool { return !r.View().NodeAlive("node/b") })
}

// Whoever comes later knows the start of a run by a wall clock only, which may
// be set wrong by years: it can make a run older, never one that began just now
// out of one that began long ago by the monotonic clock.
func TestView_runningSince(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	now := time.Now()
	for id, started := range map[string]time.Time{"hour-ago": now.Add(-time.Hour), "in-an-hour": now.Add(time.Hour), "year-1": {}} {
		rec := session.New(id, "h", session.Running, "created", now)
		rec.StartedAt = &started
		if _, err := r.Adopt(r.ctx, rec); err != nil {
			t.Fatal(err)
		}
		sb := r.see(id, "its adoption", func(*store.Sandbox) bool { return true })
		if age := time.Since(sb.RunningSince); age < 0 || (id == "in-an-hour") != (age < 30*time.Minute) {
			t.Errorf("%s runs for %s", id, age)
		}
	}
	// a change of settings is no new run, a wake is one whatever the clock says
	before := r.see("hour-ago", "it", func(*store.Sandbox) bool { return true })
	next := before.Record
	next.Owner = "somebody"
	rec, err := r.Configure(r.ctx, next)
	if err != nil {
		t.Fatal(err)
	}
	sb := r.see("hour-ago", "its owner", func(sb *store.Sandbox) bool { return sb.Owner != "" })
	if !sb.RunningSince.Equal(before.RunningSince) {
		t.Error("a change of settings began a new run")
	}
	busy, err := r.Transition(r.ctx, r.resuming(rec))
	if err != nil {
		t.Fatal(err)
	}
	woken, err := busy.Settle(session.Running, "woken", now.Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Woken(r.ctx, woken, "wake"); err != nil {
		t.Fatal(err)
	}
	sb = r.see("hour-ago", "its wake", func(sb *store.Sandbox) bool { return sb.Totals.Wakes > 0 })
	if age := time.Since(sb.RunningSince); age > time.Minute {
		t.Errorf("just woken, it runs for %s", age)
	}
}
