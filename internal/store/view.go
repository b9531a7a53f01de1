package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

// Sandbox is all that the view knows of one sandbox, as it was at one
// revision of the store. It is never changed after it was published, and must
// not be by those who are given it.
//
// LastActive is the latest (receipt − quiet) seen. What was already there at
// the first list counts as active at that moment, and so does a record that
// has become RUNNING: missing data is never idleness.
type Sandbox struct {
	session.Snapshot
	// RunningSince is when the run began, by this process's monotonic clock:
	// when it saw the record become RUNNING, or, where that was before it came,
	// what the stored time says, no later than its coming.
	RunningSince time.Time
	// ChangedAt is the revision of the store at which anything of this last
	// changed. A transition's is the record's own revision.
	ChangedAt int64

	received time.Time // when Activity was received
}

// Presence is one proxy that may be forwarding to the sandbox.
type Presence = session.Presence

// PresenceOf gives the revision of a node's presence, 0 if it has none.
func (sb *Sandbox) PresenceOf(node string) int64 {
	for _, p := range sb.Presence {
		if p.Node == node {
			return p.Revision
		}
	}
	return 0
}

// exists tells whether there is a record; what is stored of a sandbox without
// one is kept in the view but not shown.
func (sb *Sandbox) exists() bool { return sb != nil && sb.Revision != 0 }

// visible is sb, or nil if there is no record.
func (sb *Sandbox) visible() *Sandbox {
	if sb.exists() {
		return sb
	}
	return nil
}

func (sb *Sandbox) vacant() bool {
	return sb.Revision == 0 && sb.ActivityRevision == 0 && len(sb.Presence) == 0 && len(sb.Holds) == 0 && len(sb.Traffic) == 0
}

// BrokenRecord is a stored value that could not be read, or a key that does
// not belong there. It is left alone in etcd.
type BrokenRecord struct {
	Key      string
	Revision int64
	Err      string
}

// maxBroken bounds what Broken shows of somebody else's keys under our prefix.
const maxBroken = 1000

// View is what a process knows of all sessions: fed by one list and one
// watch, so that every change arrives in the store's order, this process's
// own changes too. It may be late, but never inconsistent: what one Txn wrote
// of a sandbox appears at once.
type View struct {
	keys    keys
	contact *contact
	ready   chan struct{} // closed after the first list
	// policies are replaced as a whole, with mu held: requests read them.
	policies atomic.Pointer[Policies]

	feeding sync.Mutex // serialises changes and calls of subscribers; taken before mu
	subs    []*subscriber

	mu      sync.RWMutex // guards the following fields
	all     map[string]*Sandbox
	index   *index
	waiters map[string]*waiter
	nodes   map[string]bool
	broken  map[string]BrokenRecord
	revs    map[string]int64 // mod revision of every key that the view is made of
	applied int64            // revision of the last change that was taken in
	listed  int64            // revision of the first list
}

// waiter is closed at the next change of its sandbox.
type waiter struct {
	changed chan struct{}
	waiting int
}

type subscriber struct {
	fn   func(id string, old, new *Sandbox)
	over atomic.Bool
}

func newView(k keys, c *contact) *View {
	v := &View{
		keys:    k,
		contact: c,
		ready:   make(chan struct{}),
		all:     map[string]*Sandbox{},
		index:   newIndex(),
		waiters: map[string]*waiter{},
		nodes:   map[string]bool{},
		broken:  map[string]BrokenRecord{},
		revs:    map[string]int64{},
	}
	v.policies.Store(&Policies{})
	return v
}

// Get gives the sandbox's present snapshot.
func (v *View) Get(id string) (*Sandbox, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	sb := v.all[id].visible()
	return sb, sb != nil
}

// Wait waits until the record's revision is another one than past (0: it is
// not there), and gives the snapshot, nil if the record was removed. The
// error is that of ctx.
func (v *View) Wait(ctx context.Context, id string, past int64) (*Sandbox, error) {
	if err := v.Ready(ctx); err != nil {
		return nil, err
	}
	var found *Sandbox
	err := v.await(ctx, id, func(sb *Sandbox) bool {
		found = sb.visible()
		return sb.revision() != past
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for sandbox %q to change: %w", id, err)
	}
	return found, nil
}

// Until waits until cond holds for the sandbox (nil: there is no record), at
// once or at one of its changes, and gives that snapshot. cond must be quick:
// the view stands still meanwhile. The error is that of ctx.
func (v *View) Until(ctx context.Context, id string, cond func(*session.Snapshot) bool) (*session.Snapshot, error) {
	if err := v.Ready(ctx); err != nil {
		return nil, err
	}
	var found *session.Snapshot
	err := v.await(ctx, id, func(sb *Sandbox) bool {
		found = sb.visible().snapshot()
		return cond(found)
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for sandbox %q to change: %w", id, err)
	}
	return found, nil
}

// snapshot is the part of sb that others know.
func (sb *Sandbox) snapshot() *session.Snapshot {
	if sb == nil {
		return nil
	}
	return &sb.Snapshot
}

func (sb *Sandbox) revision() int64 {
	if sb == nil {
		return 0
	}
	return sb.Revision
}

// await looks at the sandbox (nil: nothing is stored) at each of its changes
// until done says so. done is called with v.mu held.
func (v *View) await(ctx context.Context, id string, done func(sb *Sandbox) bool) error {
	for {
		v.mu.Lock()
		if done(v.all[id]) {
			v.mu.Unlock()
			return nil
		}
		w := v.unsyncedWaiter(id)
		v.mu.Unlock()
		select {
		case <-w.changed:
		case <-ctx.Done():
			v.abandon(id, w)
			return ctx.Err()
		}
	}
}

// v.mu must be held.
func (v *View) unsyncedWaiter(id string) *waiter {
	w := v.waiters[id]
	if w == nil {
		w = &waiter{changed: make(chan struct{})}
		v.waiters[id] = w
	}
	w.waiting++
	return w
}

// abandon removes a waiter that nobody waits for any more.
func (v *View) abandon(id string, w *waiter) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w.waiting--
	if w.waiting == 0 && v.waiters[id] == w {
		delete(v.waiters, id)
	}
}

// v.mu must be held.
func (v *View) unsyncedWake(id string) {
	if w := v.waiters[id]; w != nil {
		close(w.changed)
		delete(v.waiters, id)
	}
}

// Subscribe calls fn for each sandbox that is there (old is nil), and from
// then on at each change of one (new is nil once it is gone), or of a policy
// that holds for it, after the change can be seen in the view: one call at a time, in the store's order. Changes
// that were missed while the store was away come as one. fn must not block, nor
// call Subscribe. After cancel no further call is begun; cancel may be called
// from fn.
func (v *View) Subscribe(fn func(id string, old, new *Sandbox)) (cancel func()) {
	sub := &subscriber{fn: fn}
	v.feeding.Lock()
	defer v.feeding.Unlock()
	v.subs = append(v.subs, sub)
	present, _ := v.List(Query{})
	for _, sb := range present {
		sub.call(sb.SandboxID, nil, sb)
	}
	return func() { sub.over.Store(true) }
}

func (s *subscriber) call(id string, old, new *Sandbox) {
	if !s.over.Load() {
		s.fn(id, old, new)
	}
}

// tell calls the subscribers; v.feeding must be held.
func (v *View) tell(c change) {
	v.subs = slices.DeleteFunc(v.subs, func(s *subscriber) bool { return s.over.Load() })
	before, after := c.old.visible(), c.new.visible()
	if before == nil && after == nil {
		return
	}
	for _, s := range v.subs {
		s.call(c.id, before, after)
	}
}

// NodeAlive tells whether the node's key stands, which goes with its lease.
func (v *View) NodeAlive(node string) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.nodes[node]
}

// Nodes lists the living nodes, sorted.
func (v *View) Nodes() []string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	nodes := make([]string, 0, len(v.nodes))
	for n := range v.nodes {
		nodes = append(nodes, n)
	}
	slices.Sort(nodes)
	return nodes
}

// Ready waits for the first list. Before it the view is empty. The error is
// that of ctx.
func (v *View) Ready(ctx context.Context) error {
	select {
	case <-v.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the first list from the store: %w", ctx.Err())
	}
}

// Revision is the store's revision of the last change that was taken in. Every
// change up to it that concerns the view can be seen there.
func (v *View) Revision() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.applied
}

// Told is the revision up to which the subscribers have been told of every
// change, too. It must not be called from one of them.
func (v *View) Told() int64 {
	v.feeding.Lock()
	defer v.feeding.Unlock()
	return v.Revision()
}

// Listed is the revision of the first list, once that is there: what changed
// before it is not known one by one.
func (v *View) Listed() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.listed
}

// Contact tells whether the store is in reach and takes writes now. The epoch is raised at
// each loss: whoever finds the same epoch and ok at two times knows that
// nothing was lost between them, for longer than some 3.5 s at most.
func (v *View) Contact() (epoch uint64, ok bool) { return v.contact.state(time.Now()) }

// Full tells whether the store is over its quota, and takes no writes.
func (v *View) Full() bool { return v.contact.isFull() }

// Broken lists stored values that could not be read, by key, at most 1000.
func (v *View) Broken() []BrokenRecord {
	v.mu.RLock()
	defer v.mu.RUnlock()
	list := make([]BrokenRecord, 0, len(v.broken))
	for _, b := range v.broken {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b BrokenRecord) int { return cmp.Compare(a.Key, b.Key) })
	return list
}

func (v *View) isBroken(key string) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	_, is := v.broken[key]
	return is
}
