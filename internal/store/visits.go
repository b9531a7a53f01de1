package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/sandman-proxy/sandman/internal/session"
)

// Entered is the presence that a visit has in the store: good as long as the
// lease it was put under is alive and nobody of this node Leaves.
type Entered struct {
	Lease            Lease
	PresenceRevision int64 // what Leave compares
}

// Enter begins a visit: this node may forward to the sandbox. rev is the
// revision of a RUNNING record.
//
//	If    mod(record) = rev
//	Then  put presence/{id}/{node} on the node's lease, activity{open}
//
// After an error that is neither ErrConflict nor ErrNoLease the presence may
// be there, or may still come: whoever does not enter again has to Leave it
// once the view shows it.
func (s *Store) Enter(ctx context.Context, id string, rev int64, kind string) (Entered, error) {
	st, err := s.stepOn("entering", id, rev)
	if err != nil {
		return Entered{}, err
	}
	if sb, ok := s.view.Get(id); ok && sb.Revision == rev && sb.State != session.Running {
		return Entered{}, st.failed(fmt.Errorf("it is %s: %w", sb.State, ErrConflict))
	}
	st.do = []clientv3.Op{s.opActivity(id, s.used(0, kind, true))}
	return s.commitPresent(ctx, st)
}

// commitPresent takes a step that puts this node's presence as well.
func (s *Store) commitPresent(ctx context.Context, st step) (Entered, error) {
	l := s.Lease()
	if !l.Alive(time.Now(), 0) {
		return Entered{}, st.failed(ErrNoLease)
	}
	st.do = append(st.do, s.opPresence(st.id, l))
	rev, err := s.commit(ctx, st)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		s.keeper.gone(l.ID)
		return Entered{}, fmt.Errorf("%w (%w)", ErrNoLease, err)
	}
	if err != nil {
		return Entered{}, err
	}
	return Entered{Lease: l, PresenceRevision: rev}, nil
}

// Leave ends a visit whose last counted byte was quiet ago. presenceRev is the
// revision under which this node put its presence last.
//
//	If    mod(presence/{id}/{node}) = presenceRev, mod(activity) = as read
//	Then  delete presence/{id}/{node},
//	      If    no other presence
//	      Then  put activity{closed}
//	      Else  put activity{open}
//
// The first compare keeps a slow Leave from deleting the presence of the next
// Enter; the second one keeps an old end from hiding a fresher one of another
// node: what is put is the fresher of the two. A presence that is not the
// one named any more is nothing to leave: nil. After an error the caller
// repeats it.
func (s *Store) Leave(ctx context.Context, id string, presenceRev int64, quiet time.Duration, kind string) error {
	if presenceRev <= 0 {
		return nil // none was put; mod = 0 would hold, and close a visit that isn't there
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	own, began := s.keys.presence(id, s.cfg.Node), time.Now()
	stored := s.storedActivity(id)
	for {
		mine := s.used(quiet+time.Since(began), kind, false)
		_, seen, err := s.try(ctx, step{
			doing: "leaving",
			id:    id,
			when:  []clientv3.Cmp{unchanged(own, presenceRev), unchanged(s.keys.activity(id), stored.rev)},
			do:    []clientv3.Op{clientv3.OpDelete(own), s.opActivityBy(s.noOther(id), id, stored.fresher(mine))},
		})
		if err != nil {
			return err
		}
		if seen == nil || seen.revs[own] != presenceRev {
			return nil
		}
		stored = stored.reread(s, id, seen)
	}
}

// noOther holds if no other node has presence. The compares of a Txn, the
// nested ones too, see the store as it was before the Txn: this node's own
// presence still stands there, so it has to be left out.
func (s *Store) noOther(id string) []clientv3.Cmp {
	folder, own := s.keys.folder(kindPresence, id), s.keys.presence(id, s.cfg.Node)
	return []clientv3.Cmp{
		clientv3.Compare(clientv3.CreateRevision(folder).WithRange(own), "=", 0),
		clientv3.Compare(clientv3.CreateRevision(own+"\x00").WithRange(clientv3.GetPrefixRangeEnd(folder)), "=", 0),
	}
}

// opActivityBy puts the activity closed if nobody is there, and open if
// somebody is.
func (s *Store) opActivityBy(nobody []clientv3.Cmp, id string, a session.Activity) clientv3.Op {
	closed, open := a, a
	closed.Open, open.Open = false, true
	return clientv3.OpTxn(nobody, []clientv3.Op{s.opActivity(id, closed)}, []clientv3.Op{s.opActivity(id, open)})
}

// stored is the activity that a step is about to replace.
type stored struct {
	session.Activity
	rev      int64 // 0: none
	received time.Time
}

// storedActivity is what the view has.
func (s *Store) storedActivity(id string) stored {
	s.view.mu.RLock()
	defer s.view.mu.RUnlock()
	sb := s.view.all[id]
	if sb == nil {
		return stored{}
	}
	return stored{Activity: sb.Activity, rev: sb.ActivityRevision, received: sb.received}
}

func (st stored) reread(s *Store, id string, seen *sight) stored {
	return stored{Activity: seen.activity, rev: seen.revs[s.keys.activity(id)], received: time.Now()}
}

// fresher gives the one of the two that ended later. The age since receipt is
// the least that the stored one can have: in doubt it is taken to be fresh.
func (st stored) fresher(mine session.Activity) session.Activity {
	quiet := max(0, st.Quiet()) + time.Since(st.received)
	if st.rev == 0 || quiet >= mine.Quiet() {
		return mine
	}
	a := st.Activity
	a.QuietMs = quiet.Milliseconds()
	return a
}

// Lapsed closes a visit whose proxy vanished: the idle time begins now.
//
//	If    mod(activity) = activityRev, no presence
//	Then  put activity{closed}
func (s *Store) Lapsed(ctx context.Context, id string, activityRev int64) error {
	st := step{doing: "closing the visit of", id: id}
	if activityRev <= 0 {
		return st.failed(errors.New("there is no activity to close"))
	}
	st.when = []clientv3.Cmp{unchanged(s.keys.activity(id), activityRev), empty(s.keys.folder(kindPresence, id))}
	st.do = []clientv3.Op{s.opActivity(id, s.used(0, "lapsed", false))}
	_, err := s.commit(ctx, st)
	return err
}

// Bump says that one of this node's visits was in use, Quiet ago.
type Bump struct {
	ID    string
	Quiet time.Duration
	Kind  string
}

const (
	// etcd takes 128 operations in a Txn, and counts one for the Txns that
	// are nested in it.
	bumpsPerTxn = 127
	// flushing at once: etcd writes several Txns with one fsync
	parallelFlushes = 4
)

// Flush writes what this node's visits did since the last one. Each bump
// stands for itself: one whose visit was left meanwhile is dropped, for it
// would open the visit again.
//
//	for each:  If    create(presence/{id}/{node}) > 0
//	           Then  put activity{open}
//
// After an error some may be written. Bumps may be written again: the reader
// takes the freshest.
func (s *Store) Flush(ctx context.Context, bumps []Bump) error {
	ops := s.opBumps(bumps)
	var g errgroup.Group
	g.SetLimit(parallelFlushes)
	for len(ops) > 0 {
		n := min(len(ops), bumpsPerTxn)
		batch := ops[:n]
		ops = ops[n:]
		g.Go(func() error { return s.flush(ctx, batch) })
	}
	return g.Wait()
}

func (s *Store) flush(ctx context.Context, batch []clientv3.Op) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err := s.client.Txn(ctx).Then(batch...).Commit(); err != nil {
		return fmt.Errorf("writing the activity of %d sandboxes: %w", len(batch), explain(err))
	}
	return nil
}

// opBumps makes one operation for each sandbox, with its freshest bump: a key
// may be put but once in a Txn.
func (s *Store) opBumps(bumps []Bump) []clientv3.Op {
	freshest := make(map[string]Bump, len(bumps))
	for _, b := range bumps {
		if known, ok := freshest[b.ID]; !ok || b.Quiet < known.Quiet {
			freshest[b.ID] = b
		}
	}
	ops := make([]clientv3.Op, 0, len(freshest))
	for id, b := range freshest {
		present := clientv3.Compare(clientv3.CreateRevision(s.keys.presence(id, s.cfg.Node)), ">", 0)
		put := s.opActivity(id, s.used(b.Quiet, b.Kind, true))
		ops = append(ops, clientv3.OpTxn([]clientv3.Cmp{present}, []clientv3.Op{put}, nil))
	}
	return ops
}
