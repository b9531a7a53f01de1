package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

func TestEnter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	e := r.enter("s", rec.Revision)
	if got := r.mod("presence/s/node-a"); got != e.PresenceRevision {
		t.Errorf("presence under %d, want %d", got, e.PresenceRevision)
	}
	if a := r.activity("s"); !a.Open || a.Node != "node-a" || a.Kind != "request" || a.QuietMs != 0 {
		t.Errorf("activity is %+v", a)
	}
	if e.Lease != r.Lease() && e.Lease.ID != r.Lease().ID {
		t.Errorf("under lease %+v, the node's is %+v", e.Lease, r.Lease())
	}
	sb := r.see("s", "presence", func(sb *store.Sandbox) bool { return len(sb.Presence) == 1 })
	if sb.PresenceOf("node-a") != e.PresenceRevision || !sb.Activity.Open {
		t.Errorf("the view has %+v", sb)
	}
}

func TestEnter_isRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	t.Run("enter-blind-put", func(t *testing.T) {
		rec := r.adopt("s", session.Running)
		if _, err := r.Transition(r.ctx, r.pausing(rec)); err != nil {
			t.Fatal(err)
		}
		_, err := r.Enter(r.ctx, "s", rec.Revision, "request")
		wantConflict(t, err)
		if sb, _ := r.View().Get("s"); sb.State != session.Pausing {
			t.Errorf("the view still says %s", sb.State)
		}
	})
	t.Run("a record that is not RUNNING", func(t *testing.T) {
		rec := r.adopt("p", session.Paused)
		_, err := r.Enter(r.ctx, "p", rec.Revision, "request")
		wantConflict(t, err)
	})
	t.Run("no record", func(t *testing.T) {
		if _, err := r.Enter(r.ctx, "absent", 0, "request"); err == nil {
			t.Error("entered nothing")
		}
		_, err := r.Enter(r.ctx, "absent", 7, "request")
		wantConflict(t, err)
	})
	for _, key := range []string{"presence/s/node-a", "presence/p/node-a", "presence/absent/node-a"} {
		if r.mod(key) != 0 {
			t.Errorf("%s was put", key)
		}
	}
}

func TestEnter_withoutALease(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	r.stop()
	_, err := r.Enter(r.ctx, "s", rec.Revision, "request")
	if !errors.Is(err, store.ErrNoLease) {
		t.Errorf("got %v, want ErrNoLease", err)
	}
}

func TestLeave(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	e := r.enter("s", rec.Revision)
	if err := r.Leave(r.ctx, "s", e.PresenceRevision, 0, "websocket"); err != nil {
		t.Fatal(err)
	}
	if r.mod("presence/s/node-a") != 0 {
		t.Error("presence is still there")
	}
	if a := r.activity("s"); a.Open || a.Node != "node-a" {
		t.Errorf("activity is %+v", a)
	}
	before := r.mod("activity/s")
	if err := r.Leave(r.ctx, "s", e.PresenceRevision, 0, "websocket"); err != nil {
		t.Errorf("left again: %v", err)
	}
	if r.mod("activity/s") != before {
		t.Error("leaving again wrote activity")
	}
}

// leave-without-mod: a LEAVE that lands after the next ENTER.
func TestLeave_slowerThanTheNextEnter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	first := r.enter("s", rec.Revision)
	second := r.enter("s", rec.Revision)
	if err := r.Leave(r.ctx, "s", first.PresenceRevision, 0, "request"); err != nil {
		t.Fatal(err)
	}
	if r.mod("presence/s/node-a") != second.PresenceRevision {
		t.Error("the presence of the second visit is gone")
	}
	if a := r.activity("s"); !a.Open {
		t.Error("the second visit was closed")
	}
}

// The other node's key sorts before or behind one's own, or is one's own with
// something behind it.
func TestLeave_whileAnotherIsThere(t *testing.T) {
	t.Parallel()
	for _, other := range []string{"node-0", "node-a0", "node-a-", "node-z", "", "node-a/x"} {
		t.Run("node "+other, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			rec := r.adopt("s", session.Running)
			e := r.enter("s", rec.Revision)
			b := r.beside(other + "~") // an empty name would be drawn
			b.enter("s", rec.Revision)
			if err := r.Leave(r.ctx, "s", e.PresenceRevision, 0, "request"); err != nil {
				t.Fatal(err)
			}
			if a := r.activity("s"); !a.Open {
				t.Error("closed, but another is there")
			}
			sb := r.see("s", "one presence", func(sb *store.Sandbox) bool { return len(sb.Presence) == 1 })
			if err := b.Leave(r.ctx, "s", sb.PresenceOf(b.Node()), 0, "request"); err != nil {
				t.Fatal(err)
			}
			if a := r.activity("s"); a.Open {
				t.Error("open, but nobody is there")
			}
		})
	}
}

// leave-keeps-old-activity and its kin: what is fresher stays, whoever leaves.
func TestLeave_keepsTheFresherActivity(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	for round := range 2 {
		e := r.enter("s", rec.Revision)
		release := func() {}
		if round == 1 { // the view doesn't know of it: Leave has to read again
			release = r.stallView()
		}
		rev := r.put("activity/s", `{"open":true,"quietMs":50,"kind":"message","node":"node-b"}`)
		if round == 0 {
			r.see("s", "the message", func(sb *store.Sandbox) bool { return sb.ActivityRevision == rev })
		}
		if err := r.Leave(r.ctx, "s", e.PresenceRevision, time.Hour, "request"); err != nil {
			t.Fatal(err)
		}
		a := r.activity("s")
		if a.Kind != "message" || a.Node != "node-b" || a.Open || a.Quiet() < 50*time.Millisecond || a.Quiet() > 10*time.Second {
			t.Fatalf("round %d: activity is %+v", round, a)
		}
		release()
	}
	e := r.enter("s", rec.Revision)
	r.put("activity/s", `{"open":true,"quietMs":7200000,"kind":"message","node":"node-b"}`)
	if err := r.Leave(r.ctx, "s", e.PresenceRevision, time.Minute, "request"); err != nil {
		t.Fatal(err)
	}
	if a := r.activity("s"); a.Kind != "request" || a.Quiet() < time.Minute || a.Quiet() > 2*time.Minute {
		t.Errorf("an older end of another node has won: %+v", a)
	}
}

// A Leave of a presence that went with its lease must not touch the activity:
// whether that visit counts is the leader's to say.
func TestLeave_afterALapse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	e := r.enter("s", rec.Revision)
	r.delete("presence/s/node-a")
	before := r.mod("activity/s")
	if err := r.Leave(r.ctx, "s", e.PresenceRevision, time.Hour, "request"); err != nil {
		t.Fatal(err)
	}
	if err := r.Leave(r.ctx, "s", 0, time.Hour, "request"); err != nil {
		t.Fatal(err)
	}
	if r.mod("activity/s") != before {
		t.Errorf("activity became %+v", r.activity("s"))
	}
}

func TestLapsed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	e := r.enter("s", rec.Revision)
	open := r.mod("activity/s")
	wantConflict(t, r.Lapsed(r.ctx, "s", open)) // lapsed-without-presence: somebody is there
	r.delete("presence/s/node-a")
	wantConflict(t, r.Lapsed(r.ctx, "s", open-1)) // lapsed-without-activity
	if err := r.Lapsed(r.ctx, "s", open); err != nil {
		t.Fatal(err)
	}
	if a := r.activity("s"); a.Open || a.QuietMs != 0 {
		t.Errorf("activity is %+v", a)
	}
	if err := r.Lapsed(r.ctx, "s", 0); err == nil {
		t.Error("closed what was never there")
	}
	_ = e
}

func TestFlush(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const n = 300 // more than a Txn takes
	bumps := make([]store.Bump, n)
	for i := range bumps {
		id := fmt.Sprintf("s/%03d", i)
		r.enter(id, r.adopt(id, session.Running).Revision)
		bumps[i] = store.Bump{ID: id, Quiet: time.Duration(i) * time.Second, Kind: "message"}
	}
	bumps = append(bumps, store.Bump{ID: "s/000", Quiet: time.Hour}) // an older one of the same
	if err := r.Flush(r.ctx, bumps); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		a := r.activity(fmt.Sprintf("s%%2F%03d", i))
		if a.Quiet() != time.Duration(i)*time.Second || !a.Open || a.Kind != "message" || a.Node != "node-a" {
			t.Fatalf("activity %d is %+v", i, a)
		}
	}
	if err := r.Flush(r.ctx, nil); err != nil {
		t.Errorf("flushing nothing: %v", err)
	}
}

// A bump that was under way while its visit was left must not open it again,
// nor make activity of a visit that another node has.
func TestFlush_dropsTheBumpsOfVisitsThatWereLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	left, held := r.adopt("left", session.Running), r.adopt("held", session.Running)
	e := r.enter("left", left.Revision)
	r.enter("held", held.Revision)
	r.beside("node-b").enter("left", left.Revision)
	if err := r.Leave(r.ctx, "left", e.PresenceRevision, 0, "request"); err != nil {
		t.Fatal(err)
	}
	before := r.mod("activity/left")
	if err := r.Flush(r.ctx, []store.Bump{{ID: "left", Kind: "late"}, {ID: "held", Kind: "message"}, {ID: "absent"}}); err != nil {
		t.Fatal(err)
	}
	if r.mod("activity/left") != before || r.mod("activity/absent") != 0 {
		t.Error("a visit that was left was opened again")
	}
	if a := r.activity("held"); a.Kind != "message" {
		t.Errorf("the other bump was lost: %+v", a)
	}
}

// Whatever fails for another reason than a compare says so, and says why.
func TestSteps_withoutTheStore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	_, enter := r.Enter(ctx, "s", rec.Revision, "request")
	_, sleep := r.Transition(ctx, r.pausing(rec))
	_, settle := r.Settle(ctx, must(rec.Settle(session.Paused, "host", time.Now()))(t))
	_, history := r.History(ctx, "s", store.HistoryQuery{})
	for name, err := range map[string]error{
		"enter": enter, "transition": sleep, "settle": settle, "history": history,
		"leave":  r.Leave(ctx, "s", 1, 0, ""),
		"lapsed": r.Lapsed(ctx, "s", 1),
		"flush":  r.Flush(ctx, []store.Bump{{ID: "s"}}),
		"remove": r.Remove(ctx, "s", rec.Revision),
		"hold":   r.DeleteHold(ctx, "s", "h"),
	} {
		if !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	var err error
	want := []session.State{session.Running}
	for range 5 {
		if rec, err = r.Transition(r.ctx, r.pausing(rec)); err != nil {
			t.Fatal(err)
		}
		rec.Owner = "somebody" // a settings write in between is no line
		if rec, err = r.Configure(r.ctx, rec); err != nil {
			t.Fatal(err)
		}
		if rec, err = r.Transition(r.ctx, must(rec.Settle(session.Paused, "paused", time.Now()))(t)); err != nil {
			t.Fatal(err)
		}
		if rec, err = r.Transition(r.ctx, r.resuming(rec)); err != nil {
			t.Fatal(err)
		}
		if rec, err = r.Settle(r.ctx, must(rec.Settle(session.Running, "connected", time.Now()))(t)); err != nil {
			t.Fatal(err)
		}
		want = append(want, session.Pausing, session.Paused, session.Resuming, session.Running)
	}

	all, err := r.History(r.ctx, "s", store.HistoryQuery{})
	if err != nil || len(all) != len(want) {
		t.Fatalf("%d lines, want %d; %v", len(all), len(want), err)
	}
	for i, line := range all {
		at := len(want) - 1 - i
		if line.To != want[at] || (at > 0 && line.From != want[at-1]) || line.Node != "node-a" {
			t.Errorf("line %d is %+v, want %s to %s", i, line, want[max(0, at-1)], want[at])
		}
	}
	if all[0].Revision != rec.Revision || all[0].Op != "op-resume" || all[0].Reason != "connected" {
		t.Errorf("the newest line is %+v", all[0])
	}
	for _, size := range []int{1, 2, 7, len(want)} {
		var paged []store.HistoryLine
		for before := int64(0); ; before = paged[len(paged)-1].Revision {
			page, err := r.History(r.ctx, "s", store.HistoryQuery{Before: before, Limit: size})
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			paged = append(paged, page...)
		}
		if encode(paged) != encode(all) {
			t.Errorf("in pages of %d: %d lines, want the same %d", size, len(paged), len(all))
		}
	}
}

func TestTrimHistory(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	line := func(age time.Duration) string {
		return encode(session.Transition{At: time.Now().Add(-age), To: session.Paused})
	}
	for i := range 150 {
		age := time.Hour
		if i < 70 {
			age = 31 * 24 * time.Hour
		}
		r.put(fmt.Sprintf("history/s/%020d", i+1), line(age))
	}
	r.put("history/s2/00000000000000000001", line(time.Hour))

	removed, err := r.TrimHistory(r.ctx, "s", time.Now())
	if err != nil || removed != 71 { // the 70 old ones and the adoption before them
		t.Errorf("removed %d, %v", removed, err)
	}
	for i := range 40 {
		r.put(fmt.Sprintf("history/s/%020d", 1000+i), line(time.Hour))
	}
	if removed, err = r.TrimHistory(r.ctx, "s", time.Now()); err != nil || removed != 20 {
		t.Errorf("removed %d, want all but 100; %v", removed, err)
	}
	if removed, err = r.TrimHistory(r.ctx, "s", time.Now()); err != nil || removed != 0 {
		t.Errorf("removed %d more, %v", removed, err)
	}
	if r.mod("history/s2/00000000000000000001") == 0 {
		t.Error("the neighbour's history is gone")
	}
	_ = rec
}

func TestRun_trimsTheHistoryItAddsTo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 200 {
		r.put(fmt.Sprintf("history/s/%020d", i+1), encode(session.Transition{At: time.Now()}))
	}
	rec := r.adopt("s", session.Running)
	var err error
	for range 15 {
		if rec, err = r.Transition(r.ctx, r.pausing(rec)); err != nil {
			t.Fatal(err)
		}
		if rec, err = r.Settle(r.ctx, must(rec.Settle(session.Running, "in use", time.Now()))(t)); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("some 100 lines", func() bool {
		resp, err := r.etcd.Get(r.ctx, r.key("history/s/"), clientv3.WithPrefix(), clientv3.WithCountOnly())
		return err == nil && resp.Count < 130
	})
}
