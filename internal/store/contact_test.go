package store_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

func (r *rig) awaitContact(want bool) (epoch uint64) {
	r.t.Helper()
	r.eventually("contact", func() bool {
		var ok bool
		epoch, ok = r.View().Contact()
		return ok == want
	})
	return epoch
}

// awaitContactAgain waits for a loss after the epoch, and its end.
func (r *rig) awaitContactAgain(after uint64) {
	r.t.Helper()
	r.eventually("contact again", func() bool {
		epoch, ok := r.View().Contact()
		return ok && epoch > after
	})
}

func TestLease_untilCountsFromTheSending(t *testing.T) {
	t.Parallel()
	r := newMortal(t, client(), "/sending/", "node-a", shortTTL)
	for range 3 {
		l := r.Lease()
		r.eventually("the next keep-alive", func() bool { return r.Lease().Until.After(l.Until) })
		if left := time.Until(r.Lease().Until); left > shortTTL {
			t.Errorf("%s are left of a lease of %s", left, shortTTL)
		}
	}
	now := time.Now()
	l := store.Lease{ID: 1, Until: now.Add(time.Second)}
	for margin, want := range map[time.Duration]bool{0: true, time.Second / 2: true, time.Second: false, 2 * time.Second: false} {
		if l.Alive(now, margin) != want {
			t.Errorf("Alive with margin %s is %t", margin, !want)
		}
	}
	if (store.Lease{Until: now.Add(time.Hour)}).Alive(now, 0) {
		t.Error("no lease is alive")
	}
}

func TestLease_lost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	e := r.enter("s", rec.Revision)
	epoch := r.awaitContact(true)
	if _, err := r.etcd.Revoke(r.ctx, clientv3.LeaseID(e.Lease.ID)); err != nil {
		t.Fatal(err)
	}
	r.see("s", "presence to go with it", func(sb *store.Sandbox) bool { return len(sb.Presence) == 0 })
	r.eventually("a new lease", func() bool { l := r.Lease(); return l.ID != 0 && l.ID != e.Lease.ID })
	r.eventually("the node again", func() bool { return r.View().NodeAlive("node-a") })
	r.awaitContactAgain(epoch)
	again := r.enter("s", rec.Revision)
	if again.Lease.ID != r.Lease().ID {
		t.Error("entered under another lease")
	}
}

// A Txn that finds the lease gone says so, and the keeper doesn't wait for its
// next keep-alive.
func TestLease_lossIsFoundByEnter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	l := r.Lease()
	if _, err := r.etcd.Revoke(r.ctx, clientv3.LeaseID(l.ID)); err != nil {
		t.Fatal(err)
	}
	_, err := r.Enter(r.ctx, "s", rec.Revision, "request")
	if err != nil && !errors.Is(err, store.ErrNoLease) {
		t.Errorf("got %v, want ErrNoLease", err)
	}
	r.eventually("a new lease", func() bool { return r.Lease().ID != 0 && r.Lease().ID != l.ID })
	r.enter("s", rec.Revision)
}

func TestRun_revokesItsLease(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	e := r.enter("s", rec.Revision)
	r.stop()
	if r.mod("presence/s/node-a") != 0 || r.mod("nodes/node-a") != 0 {
		t.Error("presence or node are left")
	}
	if ttl, err := r.etcd.TimeToLive(r.ctx, clientv3.LeaseID(e.Lease.ID)); err != nil || ttl.TTL > 0 {
		t.Errorf("the lease has %d s left, %v", ttl.TTL, err)
	}
	if r.Lease().ID != 0 {
		t.Error("it still tells of a lease")
	}
}

func TestRun_nodeNamesAreNewAtEachStart(t *testing.T) {
	t.Parallel()
	a, b := store.New(client(), store.Config{}), store.New(client(), store.Config{})
	if a.Node() == b.Node() || a.Node() == "" {
		t.Errorf("two stores are %q and %q", a.Node(), b.Node())
	}
}

// The store is away and comes back with its data; what happened meanwhile is
// told as one change each.
func TestView_afterTheServerWasAway(t *testing.T) {
	t.Parallel()
	server := newRemote(t)
	r := newMortal(t, server.dial(), "/away/", "node-a", shortTTL)
	kept, gone := r.adopt("kept", session.Running), r.adopt("gone", session.Running)
	r.enter("kept", kept.Revision)
	var j journal
	defer r.View().Subscribe(j.note)()
	epoch := r.awaitContact(true)
	before, _ := r.View().Get("kept")
	lease := r.Lease()

	server.stop()
	if lost := r.awaitContact(false); lost <= epoch {
		t.Errorf("the epoch is %d, was %d", lost, epoch)
	}
	if _, ok := r.View().Get("kept"); !ok {
		t.Error("without the store the view is empty")
	}
	ctx, cancel := context.WithTimeout(r.ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := r.Enter(ctx, "kept", kept.Revision, "request"); err == nil || errors.Is(err, store.ErrConflict) {
		t.Errorf("entering without the store: %v", err)
	}
	r.eventually("the end of the lease", func() bool { return !r.Lease().Alive(time.Now(), 0) })

	server.start()
	r.awaitContact(true)
	// Somebody else's change, then a compaction: the watch can't just go on.
	other := server.dial()
	if _, err := other.Delete(r.ctx, r.key("sandboxes/gone")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.View().Wait(r.ctx, "gone", gone.Revision); err != nil {
		t.Fatal(err)
	}
	r.eventually("a new lease", func() bool { return r.Lease().ID != 0 && r.Lease().ID != lease.ID })
	r.see("kept", "the old presence to go", func(sb *store.Sandbox) bool { return len(sb.Presence) == 0 })
	after, _ := r.View().Get("kept")
	if after.LastActive.Before(before.LastActive) || after.Revision != before.Revision {
		t.Errorf("kept became %+v, was %+v", after, before)
	}
	r.eventually("a visit under a new lease", func() bool {
		_, err := r.Enter(r.ctx, "kept", kept.Revision, "request")
		return err == nil
	})
	r.eventually("the removal to be told", func() bool {
		calls := j.all()
		return len(calls) > 0 && slices.Contains(calls, "gone RUNNING>-")
	})
}

// While the connection is down the store goes on, and compacts what the watch
// would need: the view lists anew and finds what was deleted, changed and made.
func TestView_afterACompaction(t *testing.T) {
	t.Parallel()
	server := newRemote(t)
	w := newWire(t, server.address())
	r := newNode(t, dial(t, w.address()), "/compacted/", "node-a")
	b := newNode(t, server.dial(), "/compacted/", "node-b")
	changed, gone := r.adopt("changed", session.Running), r.adopt("gone", session.Running)
	r.adopt("same", session.Paused)
	e := b.enter("changed", changed.Revision)
	r.see("changed", "the visit", func(sb *store.Sandbox) bool { return sb.PresenceOf("node-b") == e.PresenceRevision })
	r.put("toys/ball", "")
	r.eventually("a broken key", func() bool { return len(r.View().Broken()) == 1 })
	var j journal
	defer r.View().Subscribe(j.note)()
	told := len(j.all())
	epoch := r.awaitContact(true)
	same, _ := r.View().Get("same")

	w.setTarget("")
	r.awaitContact(false)
	b.see("gone", "the record", func(*store.Sandbox) bool { return true })
	if err := b.Leave(b.ctx, "changed", e.PresenceRevision, 0, "request"); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(b.ctx, "gone", gone.Revision); err != nil {
		t.Fatal(err)
	}
	b.delete("toys/ball")
	made := b.adopt("made", session.Paused)
	paused, err := b.Transition(b.ctx, must(changed.Settle(session.Paused, "host", time.Now()))(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.etcd.Compact(b.ctx, paused.Revision); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan *store.Sandbox, 1)
	go func() {
		sb, _ := r.View().Wait(r.ctx, "gone", gone.Revision)
		waiting <- sb
	}()
	w.setTarget(server.address())

	if sb := <-waiting; sb != nil {
		t.Errorf("the waiter was given %+v", sb)
	}
	r.see("made", "what was made", func(sb *store.Sandbox) bool { return sb.Revision == made.Revision })
	sb := r.see("changed", "what was changed", func(sb *store.Sandbox) bool { return sb.State == session.Paused })
	if len(sb.Presence) != 0 || sb.Activity.Open {
		t.Errorf("the deleted presence is still there: %+v", sb)
	}
	if now, _ := r.View().Get("same"); now != same {
		t.Error("what is the same was published anew")
	}
	if broken := r.View().Broken(); len(broken) != 0 {
		t.Errorf("still broken: %+v", broken)
	}
	if after := r.awaitContact(true); after <= epoch {
		t.Errorf("the epoch is %d, was %d", after, epoch)
	}
	want := map[string]bool{"made ->PAUSED": true, "changed RUNNING>PAUSED": true, "gone RUNNING>-": true}
	for _, call := range j.all()[told:] {
		delete(want, call)
	}
	if len(want) != 0 {
		t.Errorf("subscribers were not told of %v, but of %v", want, j.all()[told:])
	}
}

// Without a compaction the watch goes on where it was, and what was missed
// comes at once: still revision by revision.
func TestView_afterTheConnectionWasDown(t *testing.T) {
	t.Parallel()
	server := newRemote(t)
	w := newWire(t, server.address())
	r := newNode(t, dial(t, w.address()), "/resumed/", "node-a")
	b := newNode(t, server.dial(), "/resumed/", "node-b")
	rec := b.adopt("s", session.Running)
	r.see("s", "the record", func(*store.Sandbox) bool { return true })
	var j journal
	defer r.View().Subscribe(j.note)()

	w.setTarget("")
	var err error
	for range 3 {
		if rec, err = b.Transition(b.ctx, b.pausing(rec)); err != nil {
			t.Fatal(err)
		}
		if rec, err = b.Settle(b.ctx, must(rec.Settle(session.Running, "in use", time.Now()))(t)); err != nil {
			t.Fatal(err)
		}
	}
	e := b.enter("s", rec.Revision)
	w.setTarget(server.address())

	sb := r.see("s", "the visit", func(sb *store.Sandbox) bool { return len(sb.Presence) == 1 })
	if sb.PresenceOf("node-b") != e.PresenceRevision || sb.Revision != rec.Revision || sb.ActivityRevision != e.PresenceRevision {
		t.Errorf("the view has %+v, want the record under %d and the rest under %d", sb, rec.Revision, e.PresenceRevision)
	}
	want := []string{"s ->RUNNING"}
	for range 3 {
		want = append(want, "s RUNNING>PAUSING", "s PAUSING>RUNNING")
	}
	want = append(want, "s RUNNING>RUNNING")
	r.eventually("all calls", func() bool { return len(j.all()) >= len(want) })
	if got := j.all(); !slices.Equal(got, want) {
		t.Errorf("subscribers were told %v, want %v", got, want)
	}
}

// An outage that is shorter than a keep-alive's patience is no loss; one that
// proxies might have taken for an outage (4 s) always is, also if nothing
// failed meanwhile.
func TestContact_aCutIsNoticedInTime(t *testing.T) {
	t.Parallel()
	server := newRemote(t)
	w := newWire(t, server.address())
	s := store.New(dial(t, w.address()), store.Config{Prefix: "/cut/", Node: "node-a"}) // the usual TTL
	start(t, s)
	r := &rig{t: t, ctx: t.Context(), Store: s}
	r.awaitLease()
	epoch := r.awaitContact(true)
	lease := s.Lease()

	w.setCut(true)
	cut := time.Now()
	var last time.Time // that a look was begun which still had contact
	r.eventually("the loss", func() bool {
		at := time.Now()
		_, ok := r.View().Contact()
		if ok {
			last = at
		}
		return !ok
	})
	if believed := last.Sub(cut); believed > 3500*time.Millisecond {
		t.Errorf("it was believed to be in reach for %s", believed)
	}
	w.setCut(false)
	if after := r.awaitContact(true); after <= epoch {
		t.Errorf("the epoch is %d, was %d", after, epoch)
	}
	if s.Lease().ID != lease.ID {
		t.Error("a cut within the TTL has cost the lease")
	}
}

func TestRun_withoutAStoreAtTheStart(t *testing.T) {
	t.Parallel()
	server := newRemote(t)
	server.stop()
	began := time.Now()
	etcd := server.dial()
	if took := time.Since(began); took > time.Second {
		t.Errorf("dialling took %s", took)
	}
	s := store.New(etcd, store.Config{Prefix: "/late/", LeaseTTL: shortTTL})
	start(t, s)
	r := &rig{t: t, ctx: t.Context(), Store: s, etcd: etcd, prefix: "/late/"}
	if _, ok := s.View().Contact(); ok {
		t.Error("in contact")
	}
	server.start()
	r.awaitLease()
	r.awaitContact(true)
	r.adopt("s", session.Running)
}

func TestRun_endsWithoutAStore(t *testing.T) {
	t.Parallel()
	server := newRemote(t)
	r := newNode(t, server.dial(), "/gone/", "node-a")
	server.stop()
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}
