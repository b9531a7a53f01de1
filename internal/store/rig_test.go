package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

// rig is one process's store, running, and a client of the test's own beside
// it that can do what other processes do.
type rig struct {
	*store.Store
	t      *testing.T
	ctx    context.Context
	etcd   *clientv3.Client
	prefix string
	stop   func() // ends Run and waits for it
}

// shortTTL is the shortest lease that etcd grants as asked: for tests that
// wait for its end. On a busy machine it may be lost; the others have the
// usual one.
const shortTTL = 2 * time.Second

// rigs counts them, for tests that are repeated.
var rigs atomic.Int64

func newRig(t *testing.T) *rig {
	t.Helper()
	return newNode(t, client(), fmt.Sprintf("/%s/%d/", url.PathEscape(t.Name()), rigs.Add(1)), "node-a")
}

func newNode(t *testing.T, etcd *clientv3.Client, prefix, node string) *rig {
	t.Helper()
	return newMortal(t, etcd, prefix, node, store.DefaultLeaseTTL)
}

func newMortal(t *testing.T, etcd *clientv3.Client, prefix, node string, ttl time.Duration) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	r := &rig{t: t, ctx: ctx, etcd: etcd, prefix: prefix}
	r.Store = store.New(etcd, store.Config{Prefix: prefix, Node: node, LeaseTTL: ttl})
	r.stop = start(t, r.Store)
	if err := r.View().Ready(ctx); err != nil {
		t.Fatal(err)
	}
	r.awaitLease()
	return r
}

// beside gives a second node of the same Sandman.
func (r *rig) beside(node string) *rig {
	r.t.Helper()
	return newNode(r.t, r.etcd, r.prefix, node)
}

func start(t *testing.T, s *store.Store) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// eventually polls what has no event of its own.
func (r *rig) eventually(what string, done func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-r.ctx.Done():
			r.t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func (r *rig) awaitLease() store.Lease {
	r.t.Helper()
	r.eventually("a lease", func() bool { return r.Lease().Alive(time.Now(), 0) })
	r.eventually("the node in its view", func() bool { return r.View().NodeAlive(r.Node()) })
	return r.Lease()
}

// see waits until the view's snapshot is as wanted.
func (r *rig) see(id, what string, want func(sb *store.Sandbox) bool) *store.Sandbox {
	r.t.Helper()
	var sb *store.Sandbox
	r.eventually(what, func() bool {
		var ok bool
		sb, ok = r.View().Get(id)
		return ok && want(sb)
	})
	return sb
}

func (r *rig) key(parts ...string) string { return r.prefix + strings.Join(parts, "/") }

func (r *rig) put(key, value string, opts ...clientv3.OpOption) int64 {
	r.t.Helper()
	resp, err := r.etcd.Put(r.ctx, r.key(key), value, opts...)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.Header.Revision
}

func (r *rig) delete(key string) {
	r.t.Helper()
	if _, err := r.etcd.Delete(r.ctx, r.key(key)); err != nil {
		r.t.Fatal(err)
	}
}

// mod reads a key's mod revision from etcd, 0 if it isn't there.
func (r *rig) mod(key string) int64 {
	r.t.Helper()
	resp, err := r.etcd.Get(r.ctx, r.key(key))
	if err != nil {
		r.t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return 0
	}
	return resp.Kvs[0].ModRevision
}

// activity reads what is stored, not what the view has.
func (r *rig) activity(id string) session.Activity {
	r.t.Helper()
	resp, err := r.etcd.Get(r.ctx, r.key("activity", id))
	if err != nil {
		r.t.Fatal(err)
	}
	var a session.Activity
	if len(resp.Kvs) == 0 {
		r.t.Fatalf("no activity of %s is stored", id)
	}
	if err := json.Unmarshal(resp.Kvs[0].Value, &a); err != nil {
		r.t.Fatal(err)
	}
	return a
}

// adopt stores a sandbox and waits until the view has it.
func (r *rig) adopt(id string, state session.State) session.Record {
	r.t.Helper()
	rec, err := r.Adopt(r.ctx, session.New(id, "local", state, "adopted", time.Now()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.see(id, "the adopted record", func(sb *store.Sandbox) bool { return sb.Revision >= rec.Revision })
	return rec
}

func (r *rig) enter(id string, rev int64) store.Entered {
	r.t.Helper()
	e, err := r.Enter(r.ctx, id, rev, "request")
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// pausing gives the record as the leader's SLEEP puts it.
func (r *rig) pausing(rec session.Record) session.Record {
	r.t.Helper()
	return must(rec.Sleep(r.op(session.OpPause, session.PhaseCalling), "idle", time.Now()))(r.t)
}

func (r *rig) op(kind session.OpKind, phase session.Phase) session.Op {
	return session.Op{ID: "op-" + string(kind), Kind: kind, Phase: phase, Node: r.Node(), StartedAt: time.Now(), Deadline: time.Now().Add(time.Minute)}
}

func (r *rig) resuming(rec session.Record) session.Record {
	r.t.Helper()
	return must(rec.Wake(r.op(session.OpResume, ""), "request: GET /", time.Now()))(r.t)
}

func must(rec session.Record, err error) func(t *testing.T) session.Record {
	return func(t *testing.T) session.Record {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return rec
	}
}

// wantConflict checks that a step was refused by a compare, and that the view
// is no older than what the compare saw.
func wantConflict(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, store.ErrConflict) {
		t.Fatalf("got error %v, want ErrConflict", err)
	}
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// stallView keeps the view from taking in anything more until release is
// called: as a slow watch does.
func (r *rig) stallView() (release func()) {
	r.t.Helper()
	stalled, gate := make(chan struct{}), make(chan struct{})
	id := fmt.Sprintf("stall-%d", rigs.Add(1))
	cancel := r.View().Subscribe(func(of string, _, _ *store.Sandbox) {
		if of == id {
			close(stalled)
			<-gate
		}
	})
	if _, err := r.Adopt(r.ctx, session.New(id, "local", session.Paused, "", time.Now())); err != nil {
		r.t.Fatal(err)
	}
	<-stalled
	release = sync.OnceFunc(func() { cancel(); close(gate) })
	r.t.Cleanup(release)
	return release
}
