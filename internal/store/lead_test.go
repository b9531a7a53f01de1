package store_test

import (
	"context"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

// reign records when a node leads.
type reign struct {
	began chan store.Term
	ended chan time.Time // when the context ended
	stop  func()         // ends Lead and waits for it
}

func lead(t *testing.T, s *store.Store) *reign {
	t.Helper()
	l := &reign{began: make(chan store.Term, 10), ended: make(chan time.Time, 10)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- s.Lead(ctx, func(ctx context.Context, term store.Term) {
			l.began <- term
			<-ctx.Done()
			l.ended <- time.Now()
		})
	}()
	var once sync.Once
	l.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Lead: %v", err)
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("never: %s", what)
		panic("unreachable")
	}
}

func TestLead_inTurn(t *testing.T) {
	t.Parallel()
	a := newRig(t)
	b := a.beside("node-b")
	la := lead(t, a.Store)
	first := await(t, "a leads", la.began)
	lb := lead(t, b.Store)
	a.eventually("b's candidacy", func() bool {
		resp, err := a.etcd.Get(a.ctx, a.key("leader/"), clientv3.WithPrefix())
		return err == nil && len(resp.Kvs) == 2
	})
	select {
	case <-lb.began:
		t.Fatal("two lead")
	default:
	}
	// Sleeping is for the one who leads.
	rec := a.adopt("s", session.Running)
	b.see("s", "the record", func(*store.Sandbox) bool { return true })

	handed := time.Now()
	la.stop()
	second := await(t, "b leads", lb.began)
	if took := time.Since(handed); took > time.Second {
		t.Errorf("a handed over in %s: it did not resign", took)
	}
	if second.CreateRevision <= first.CreateRevision || second.Key == first.Key {
		t.Errorf("b's term %+v after a's %+v", second, first)
	}
	_, err := a.Sleep(a.ctx, a.pausing(rec), a.mod("activity/s"), a.View().Policies(), first)
	wantConflict(t, err)
	if _, err := b.Sleep(b.ctx, b.pausing(rec), b.mod("activity/s"), b.View().Policies(), second); err != nil {
		t.Error(err)
	}
}

func TestLead_leaseLost(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(r *rig, lease clientv3.LeaseID, term store.Term){
		"revoked": func(r *rig, lease clientv3.LeaseID, _ store.Term) { _, _ = r.etcd.Revoke(r.ctx, lease) },
		"its key deleted": func(r *rig, _ clientv3.LeaseID, term store.Term) {
			_, _ = r.etcd.Delete(r.ctx, term.Key)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			l := lead(t, r.Store)
			term := await(t, "the first term", l.began)
			resp, err := r.etcd.Get(r.ctx, term.Key)
			if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "node-a" {
				t.Fatalf("the leader key is %v, %v", resp, err)
			}
			take(r, clientv3.LeaseID(resp.Kvs[0].Lease), term)
			await(t, "the end of it", l.ended)
			again := await(t, "a second term", l.began)
			if again.CreateRevision <= term.CreateRevision {
				t.Errorf("the second term is %+v, the first was %+v", again, term)
			}
		})
	}
}

// A leader that is cut off knows that it leads no more before another one can
// lead.
func TestLead_endsBeforeTheLeaseDoes(t *testing.T) {
	t.Parallel()
	server := newRemote(t)
	w := newWire(t, server.address())
	a := newMortal(t, dial(t, w.address()), "/lead/", "node-a", shortTTL)
	b := newMortal(t, server.dial(), "/lead/", "node-b", shortTTL)
	la := lead(t, a.Store)
	await(t, "a leads", la.began)
	lb := lead(t, b.Store)

	w.setCut(true)
	cut := time.Now()
	ended := await(t, "the end of a's term", la.ended)
	await(t, "b leads", lb.began)
	began := time.Now()
	if left := shortTTL - ended.Sub(cut); left < 0 {
		t.Errorf("a's term went on %s beyond its lease", -left)
	}
	if !ended.Before(began) {
		t.Errorf("a led for %s with b", ended.Sub(began))
	}
	// Cut off, it must still be able to stop.
	stopping := time.Now()
	la.stop()
	if took := time.Since(stopping); took > 10*time.Second {
		t.Errorf("stopping took %s", took)
	}
}

// fn may end a term of its own accord.
func TestLead_again(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	var terms []store.Term
	err := r.Lead(ctx, func(_ context.Context, term store.Term) {
		if terms = append(terms, term); len(terms) == 3 {
			cancel()
		}
	})
	if err != nil || len(terms) != 3 {
		t.Fatalf("%d terms, %v", len(terms), err)
	}
	if terms[0].CreateRevision >= terms[1].CreateRevision || terms[1].CreateRevision >= terms[2].CreateRevision {
		t.Errorf("terms %+v", terms)
	}
	if resp, err := r.etcd.Get(r.ctx, r.key("leader/"), clientv3.WithPrefix()); err != nil || len(resp.Kvs) != 0 {
		t.Errorf("left behind: %v, %v", resp, err)
	}
}
