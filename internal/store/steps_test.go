package store_test

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

// asleepable is a sandbox on which every compare of SLEEP holds.
type asleepable struct {
	*rig
	rec      session.Record
	activity int64
	term     store.Term
}

func newAsleepable(t *testing.T) *asleepable {
	r := newRig(t)
	a := &asleepable{rig: r}
	a.rec = r.adopt("s", session.Running)
	a.activity = r.mod("activity/s")
	rev := r.put("leader/1", "node-a")
	a.term = store.Term{Key: r.key("leader/1"), CreateRevision: rev}
	return a
}

func (a *asleepable) sleep() (session.Record, error) {
	return a.Sleep(a.ctx, a.pausing(a.rec), a.activity, a.View().Policies(), a.term)
}

func TestSleep_whenAllComparesHold(t *testing.T) {
	t.Parallel()
	a := newAsleepable(t)
	got, err := a.sleep()
	if err != nil {
		t.Fatal(err)
	}
	if got.Revision != a.mod("sandboxes/s") || got.State != session.Pausing {
		t.Errorf("got %s under revision %d, stored is %d", got.State, got.Revision, a.mod("sandboxes/s"))
	}
	sb, err := a.View().Wait(a.ctx, "s", a.rec.Revision)
	if err != nil || sb.State != session.Pausing || sb.Op == nil || sb.Op.ID != "op-pause" {
		t.Errorf("the view has %+v, %v", sb, err)
	}
}

// Each case breaks exactly one compare. The names are those of the model's
// mutations.
func TestSleep_isRefused(t *testing.T) {
	t.Parallel()
	for name, breakOne := range map[string]func(a *asleepable){
		"sleep-without-record": func(a *asleepable) {
			next := a.rec
			next.WakePolicy = "manual"
			if _, err := a.Configure(a.ctx, next); err != nil {
				a.t.Fatal(err)
			}
		},
		"sleep-without-activity": func(a *asleepable) {
			a.put("activity/s", `{"open":false}`)
		},
		"sleep-on-open-visit": func(a *asleepable) {
			a.activity = a.put("activity/s", `{"open":true}`)
			a.see("s", "the open visit", func(sb *store.Sandbox) bool { return sb.Activity.Open })
		},
		"sleep-without-presence": func(a *asleepable) { a.put("presence/s/node-b", "") },
		"sleep-without-holds":    func(a *asleepable) { a.put("holds/s/build", `{}`) },
		"sleep-without-leader-key": func(a *asleepable) {
			a.delete("leader/1")
			a.put("leader/1", "node-b") // the same key, another term
		},
		"sleep-without-leader-key (gone)": func(a *asleepable) { a.delete("leader/1") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAsleepable(t)
			breakOne(a)
			before := a.mod("sandboxes/s")
			_, err := a.sleep()
			wantConflict(t, err)
			if a.mod("sandboxes/s") != before {
				t.Error("the record was written")
			}
		})
	}
}

func TestSleep_needsATerm(t *testing.T) {
	t.Parallel()
	a := newAsleepable(t)
	a.term.CreateRevision = 0 // "nobody leads" would hold for an absent key
	a.delete("leader/1")
	if _, err := a.sleep(); err == nil {
		t.Error("slept without a term")
	}
}

func TestSleep_withoutAnyActivity(t *testing.T) {
	t.Parallel()
	a := newAsleepable(t)
	a.delete("activity/s")
	a.activity = 0
	if _, err := a.sleep(); err != nil {
		t.Error(err)
	}
}

func TestSleep_neighboursDoNotCount(t *testing.T) {
	t.Parallel()
	a := newAsleepable(t)
	// without escaping, or with the range cut short, these stand in s's ranges
	for _, id := range []string{"s/x", "s0", "s-", "S", "s%2Fx"} {
		rec := a.adopt(id, session.Running)
		a.enter(id, rec.Revision)
		hold := session.Hold{Name: "h", ExpiresAt: time.Now().Add(time.Minute)}
		if err := a.PutHold(a.ctx, rec, hold); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.sleep(); err != nil {
		t.Error(err)
	}
}

// A refused step has waited for the view: whoever then looks sees why.
func TestConflict_viewHasCaughtUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(a *asleepable)
		step   func(a *asleepable) error
		seen   func(sb *store.Sandbox) bool
	}{
		"with what was put": {
			func(a *asleepable) { a.put("presence/s/node-b", "") },
			func(a *asleepable) error { _, err := a.sleep(); return err },
			func(sb *store.Sandbox) bool { return sb.PresenceOf("node-b") != 0 },
		},
		"with what was deleted": {
			func(a *asleepable) { a.delete("holds/s/h") },
			func(a *asleepable) error { _, err := a.Enter(a.ctx, "s", a.rec.Revision-1, "request"); return err },
			func(sb *store.Sandbox) bool { return len(sb.Holds) == 0 },
		},
		"with a record that was removed": {
			func(a *asleepable) { a.delete("sandboxes/s") },
			func(a *asleepable) error { _, err := a.Transition(a.ctx, a.pausing(a.rec)); return err },
			func(sb *store.Sandbox) bool { return sb == nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAsleepable(t)
			a.put("holds/s/h", "{}")
			a.see("s", "the hold", func(sb *store.Sandbox) bool { return len(sb.Holds) == 1 })
			release := a.stallView()
			c.change(a)
			time.AfterFunc(100*time.Millisecond, release)
			wantConflict(t, c.step(a))
			if sb, _ := a.View().Get("s"); !c.seen(sb) {
				t.Errorf("the view has %+v", sb)
			}
		})
	}
}

// Out of time, the refusal is still one: nothing was written.
func TestConflict_viewStaysBehind(t *testing.T) {
	t.Parallel()
	a := newAsleepable(t)
	defer a.stallView()()
	a.put("presence/s/node-b", "")
	ctx, cancel := context.WithTimeout(a.ctx, 200*time.Millisecond)
	defer cancel()
	_, err := a.Sleep(ctx, a.pausing(a.rec), a.activity, a.View().Policies(), a.term)
	wantConflict(t, err)
}

func TestCall(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		breakOne func(a *asleepable)
		conflict bool
	}{
		"all compares hold":       {func(*asleepable) {}, false},
		"holds don't stop it":     {func(a *asleepable) { a.put("holds/s/build", "{}") }, false},
		"call-without-record":     {func(a *asleepable) { a.put("sandboxes/s", encode(a.rec)) }, true},
		"call-without-activity":   {func(a *asleepable) { a.put("activity/s", "{}") }, true},
		"call-without-presence":   {func(a *asleepable) { a.put("presence/s/node-b", "") }, true},
		"call-on-open-visit":      {func(a *asleepable) { a.openVisit() }, true},
		"without stored activity": {func(a *asleepable) { a.delete("activity/s"); a.activity = 0 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAsleepable(t)
			draining := must(a.rec.Sleep(a.op(session.OpPause, session.PhaseDraining), "by hand", time.Now()))(t)
			draining, err := a.Transition(a.ctx, draining)
			if err != nil {
				t.Fatal(err)
			}
			c.breakOne(a)
			_, err = a.Call(a.ctx, must(draining.Advance(session.PhaseCalling))(t), a.activity)
			if c.conflict {
				wantConflict(t, err)
			} else if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func (a *asleepable) openVisit() {
	a.activity = a.put("activity/s", `{"open":true}`)
	a.see("s", "the open visit", func(sb *store.Sandbox) bool { return sb.Activity.Open })
}

func TestTransition(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Paused)
	won, err := r.Transition(r.ctx, r.resuming(rec))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("wake-blind-put", func(t *testing.T) {
		_, err := r.Transition(r.ctx, r.resuming(rec))
		wantConflict(t, err)
		if sb, _ := r.View().Get("s"); sb.Revision != won.Revision {
			t.Errorf("the view is at %d, want %d", sb.Revision, won.Revision)
		}
	})
	t.Run("the next step goes on from the returned revision", func(t *testing.T) {
		failed := must(won.Fail("host: 500", time.Second, time.Now()))(t)
		failed, err := r.Transition(r.ctx, failed)
		if err != nil || failed.State != session.Paused {
			t.Fatalf("%s, %v", failed.State, err)
		}
		won = failed
	})
	t.Run("a record that was never stored", func(t *testing.T) {
		absent := r.resuming(session.New("absent", "local", session.Paused, "", time.Now()))
		if _, err := r.Transition(r.ctx, absent); err == nil || r.mod("sandboxes/absent") != 0 {
			t.Errorf("wrote it: %v", err)
		}
	})
	t.Run("a record without sense", func(t *testing.T) {
		bad := won
		bad.State = session.Resuming // without an op
		if _, err := r.Transition(r.ctx, bad); err == nil {
			t.Error("wrote it")
		}
	})
}

func TestWoken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Paused)
	rec, err := r.Transition(r.ctx, r.resuming(rec))
	if err != nil {
		t.Fatal(err)
	}
	running := must(rec.Settle(session.Running, "connected", time.Now()))(t)

	stale := running
	stale.Revision--
	_, _, err = r.Woken(r.ctx, stale, "request") // woken-blind-put
	wantConflict(t, err)
	if r.mod("presence/s/node-a") != 0 || r.mod("activity/s") != 0 {
		t.Error("a refused step has put something")
	}

	got, entered, err := r.Woken(r.ctx, running, "request")
	if err != nil {
		t.Fatal(err)
	}
	if a := r.activity("s"); !a.Open || a.Kind != "request" {
		t.Errorf("activity is %+v", a)
	}
	if p := r.mod("presence/s/node-a"); p != entered.PresenceRevision || p != got.Revision || entered.Lease.ID != r.Lease().ID {
		t.Errorf("presence under %d, got %+v and record %d", p, entered, got.Revision)
	}
	// one Txn, one snapshot: nobody sees it running without its presence
	sb, err := r.View().Wait(r.ctx, "s", rec.Revision)
	if err != nil || sb.State != session.Running || sb.PresenceOf("node-a") == 0 || !sb.Activity.Open {
		t.Errorf("the view has %+v, %v", sb, err)
	}
}

func TestSettle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stored string // activity
		open   bool
	}{
		"keeps an open visit open":     {`{"open":true,"quietMs":5000}`, true},
		"keeps a closed visit closed":  {`{"open":false,"quietMs":5000}`, false},
		"without activity it's closed": {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			rec := r.adopt("s", session.Paused)
			defer r.stallView()() // Settle has to read again
			if c.stored != "" {
				r.put("activity/s", c.stored)
			}
			got, err := r.Settle(r.ctx, must(rec.Settle(session.Running, "the host says so", time.Now()))(t))
			if err != nil {
				t.Fatal(err)
			}
			if a := r.activity("s"); a.Open != c.open || a.QuietMs != 0 || got.Revision != r.mod("activity/s") {
				t.Errorf("activity is %+v under %d, record under %d", a, r.mod("activity/s"), got.Revision)
			}
		})
	}
	t.Run("sweep-without-record", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		rec := r.adopt("s", session.Paused)
		late := must(rec.Settle(session.Running, "an old answer", time.Now()))(t)
		if _, err := r.Transition(r.ctx, r.resuming(rec)); err != nil {
			t.Fatal(err)
		}
		_, err := r.Settle(r.ctx, late)
		wantConflict(t, err)
		if r.mod("activity/s") != 0 {
			t.Error("a refused step has put activity")
		}
	})
	t.Run("to PAUSED and KILLED puts no activity", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		rec := r.adopt("s", session.Running)
		before := r.mod("activity/s")
		rec, err := r.Settle(r.ctx, must(rec.Settle(session.Paused, "host", time.Now()))(t))
		if err != nil {
			t.Fatal(err)
		}
		rec, err = r.Settle(r.ctx, must(rec.Settle(session.Killed, "404", time.Now()))(t))
		if err != nil || r.mod("activity/s") != before {
			t.Fatalf("activity under %d, was %d; %v", r.mod("activity/s"), before, err)
		}
		if _, err = r.Settle(r.ctx, must(rec.Settle(session.Running, "it lives", time.Now()))(t)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := session.New("s", "local", session.Running, "adopted", time.Now())
	got, err := r.Adopt(r.ctx, rec)
	if err != nil || got.Revision != r.mod("sandboxes/s") || r.mod("activity/s") != got.Revision {
		t.Fatalf("%+v, %v", got, err)
	}
	_, err = r.Adopt(r.ctx, rec)
	wantConflict(t, err)
	if _, ok := r.View().Get("s"); !ok {
		t.Error("after the conflict the view has no record")
	}
	r.adopt("p", session.Paused)
	if r.mod("activity/p") != 0 {
		t.Error("a paused sandbox was given activity")
	}
}

func TestConfigure_isNoTransition(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	next := rec
	next.IdleTimeout = session.Duration(time.Hour)
	got, err := r.Configure(r.ctx, next)
	if err != nil {
		t.Fatal(err)
	}
	if lines, err := r.History(r.ctx, "s", store.HistoryQuery{}); err != nil || len(lines) != 1 {
		t.Errorf("history is %+v, %v", lines, err)
	}
	_, err = r.Configure(r.ctx, next)
	wantConflict(t, err)
	if sb, _ := r.View().Get("s"); sb.Revision != got.Revision || time.Duration(sb.IdleTimeout) != time.Hour {
		t.Errorf("the view has %+v", sb.Record)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	r.adopt("s2", session.Running)
	wantConflict(t, r.Remove(r.ctx, "s", rec.Revision-1))
	if err := r.Remove(r.ctx, "s", rec.Revision); err != nil {
		t.Fatal(err)
	}
	sb, err := r.View().Wait(r.ctx, "s", rec.Revision)
	if sb != nil || err != nil {
		t.Errorf("the view has %+v, %v", sb, err)
	}
	resp, err := r.etcd.Get(r.ctx, r.prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(resp.Kvs); n != 4 { // s2's record, activity and history; the node
		t.Errorf("%d keys are left: %v", n, resp.Kvs)
	}
}

func TestPutHold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	hold := session.Hold{Name: "a build/1", Reason: "make", By: "ops", ExpiresAt: time.Now().Add(time.Hour)}
	if err := r.PutHold(r.ctx, rec, hold); err != nil {
		t.Fatal(err)
	}
	sb := r.see("s", "the hold", func(sb *store.Sandbox) bool { return len(sb.Holds) == 1 })
	if got := sb.Holds[0]; got.Name != hold.Name || got.Reason != "make" || !got.ExpiresAt.Equal(hold.ExpiresAt) {
		t.Errorf("the hold is %+v", got)
	}
	first := r.holdLease("s")

	t.Run("renewed by another put, on a new lease", func(t *testing.T) {
		if err := r.PutHold(r.ctx, rec, hold); err != nil {
			t.Fatal(err)
		}
		if r.holdLease("s") == first {
			t.Error("it is on the same lease")
		}
		if ttl, err := r.etcd.TimeToLive(r.ctx, first); err != nil || ttl.TTL > 0 {
			t.Errorf("the old lease has %d s left, %v", ttl.TTL, err)
		}
	})
	t.Run("hold-blind-put", func(t *testing.T) {
		pausing, err := r.Transition(r.ctx, r.pausing(rec))
		if err != nil {
			t.Fatal(err)
		}
		wantConflict(t, r.PutHold(r.ctx, rec, hold))     // an old record
		wantConflict(t, r.PutHold(r.ctx, pausing, hold)) // not RUNNING
	})
	t.Run("deleted, with its lease", func(t *testing.T) {
		lease := r.holdLease("s")
		if err := r.DeleteHold(r.ctx, "s", hold.Name); err != nil {
			t.Fatal(err)
		}
		if ttl, err := r.etcd.TimeToLive(r.ctx, lease); err != nil || ttl.TTL > 0 {
			t.Errorf("the lease has %d s left, %v", ttl.TTL, err)
		}
		r.see("s", "no hold", func(sb *store.Sandbox) bool { return len(sb.Holds) == 0 })
		if err := r.DeleteHold(r.ctx, "s", hold.Name); err != nil {
			t.Errorf("deleting it again: %v", err)
		}
	})
	t.Run("of the past", func(t *testing.T) {
		hold.ExpiresAt = time.Now().Add(-time.Second)
		if err := r.PutHold(r.ctx, rec, hold); err == nil {
			t.Error("was put")
		}
	})
}

func TestPutHold_endsByItself(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := r.adopt("s", session.Running)
	if err := r.PutHold(r.ctx, rec, session.Hold{Name: "h", ExpiresAt: time.Now().Add(2 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	r.see("s", "the hold", func(sb *store.Sandbox) bool { return len(sb.Holds) == 1 })
	r.see("s", "its end", func(sb *store.Sandbox) bool { return len(sb.Holds) == 0 })
}

func (r *rig) holdLease(id string) clientv3.LeaseID {
	r.t.Helper()
	resp, err := r.etcd.Get(r.ctx, r.key("holds", id)+"/", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 1 {
		r.t.Fatalf("holds of %s: %v, %v", id, resp, err)
	}
	return clientv3.LeaseID(resp.Kvs[0].Lease)
}
