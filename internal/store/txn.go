package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sandman-proxy/sandman/internal/session"
)

// step is one step of the protocol: a Txn on the keys of one sandbox.
type step struct {
	doing string // for errors: "entering"
	id    string
	when  []clientv3.Cmp // all must hold
	do    []clientv3.Op
	also  []clientv3.Op // what a failed Txn reads beside the sandbox's own keys
}

// sight is what a failed Txn saw of its sandbox, in the same instant.
type sight struct {
	revision int64            // of the store
	revs     map[string]int64 // mod revisions of the sandbox's keys
	activity session.Activity
}

// commit takes a step, or waits for the view to show why it can't be taken.
// It gives the revision of the keys that were put.
func (s *Store) commit(ctx context.Context, st step) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	rev, seen, err := s.try(ctx, st)
	if seen != nil {
		return 0, s.conflict(ctx, st, seen)
	}
	return rev, err
}

// try sends the Txn of a step. A sight means that a compare failed.
func (s *Store) try(ctx context.Context, st step) (rev int64, seen *sight, err error) {
	resp, err := s.client.Txn(ctx).If(st.when...).Then(st.do...).Else(append(s.look(st.id), st.also...)...).Commit()
	if errors.Is(err, rpctypes.ErrNoSpace) {
		s.contact.full(true)
	}
	if err != nil {
		return 0, nil, st.failed(explain(err))
	}
	if !resp.Succeeded {
		return 0, sightOf(resp), nil
	}
	return resp.Header.Revision, nil, nil
}

func (st step) failed(err error) error {
	return fmt.Errorf("%s sandbox %q: %w", st.doing, st.id, err)
}

// look reads all keys that a step on the sandbox may compare.
func (s *Store) look(id string) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpGet(s.keys.record(id), clientv3.WithKeysOnly()),
		clientv3.OpGet(s.keys.activity(id)),
		clientv3.OpGet(s.keys.folder(kindPresence, id), clientv3.WithPrefix(), clientv3.WithKeysOnly()),
		clientv3.OpGet(s.keys.folder(kindHold, id), clientv3.WithPrefix(), clientv3.WithKeysOnly()),
	}
}

func sightOf(resp *clientv3.TxnResponse) *sight {
	seen := &sight{revision: resp.Header.Revision, revs: map[string]int64{}}
	for i, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			seen.revs[string(kv.Key)] = kv.ModRevision
			if i == 1 && json.Unmarshal(kv.Value, &seen.activity) != nil {
				seen.activity = session.Activity{Open: true} // as the view takes it
			}
		}
	}
	return seen
}

// conflict waits until the view has what the Txn saw, and gives the error.
func (s *Store) conflict(ctx context.Context, st step, seen *sight) error {
	// Out of time is no other outcome: nothing was written.
	_ = s.view.catchUp(ctx, st.id, seen)
	if s.view.isBroken(s.keys.record(st.id)) {
		return st.failed(ErrBroken)
	}
	return st.failed(ErrConflict)
}

// catchUp waits until the view knows every put that was seen, and has no key
// that was seen to be gone.
func (v *View) catchUp(ctx context.Context, id string, seen *sight) error {
	return v.await(ctx, id, func(sb *Sandbox) bool {
		for _, rev := range seen.revs {
			if v.applied < rev {
				return false
			}
		}
		return !slices.ContainsFunc(v.keysOf(id, sb), func(key string) bool {
			_, there := seen.revs[key]
			rev, known := v.revs[key]
			return known && rev <= seen.revision && !there
		})
	})
}

// keysOf lists the keys that a snapshot is made of, or might be.
func (v *View) keysOf(id string, sb *Sandbox) []string {
	all := []string{v.keys.record(id), v.keys.activity(id)}
	if sb == nil {
		return all
	}
	for _, p := range sb.Presence {
		all = append(all, v.keys.presence(id, p.Node))
	}
	for _, h := range sb.Holds {
		all = append(all, v.keys.hold(id, h.Name))
	}
	return all
}

// explain adds what the operator can do to etcd's own error.
func explain(err error) error {
	if errors.Is(err, rpctypes.ErrNoSpace) {
		return fmt.Errorf("%w (%w)", ErrNoSpace, err)
	}
	if isAway(err) {
		return fmt.Errorf("%w (%w)", ErrAway, err)
	}
	return err
}

// isAway tells errors that say nothing of what was asked: there is no leader, the
// member is about to stop, the connection broke.
func isAway(err error) bool {
	code := status.Code(err)
	if etcd, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		code = etcd.Code()
	} else if _, ok := status.FromError(err); !ok {
		return false // none of a call's
	}
	return slices.Contains([]codes.Code{codes.Unavailable, codes.Unknown, codes.Internal, codes.ResourceExhausted, codes.Canceled}, code)
}

// stepOn begins a step that compares the record with the given revision.
func (s *Store) stepOn(doing, id string, rev int64) (step, error) {
	st := step{doing: doing, id: id}
	if rev <= 0 {
		// mod = 0 would hold where there is no record at all
		return st, st.failed(errors.New("the record has no revision: it was never stored"))
	}
	st.when = []clientv3.Cmp{unchanged(s.keys.record(id), rev)}
	return st, nil
}

func (s *Store) opActivity(id string, a session.Activity) clientv3.Op {
	return clientv3.OpPut(s.keys.activity(id), encode(a))
}

func (s *Store) opPresence(id string, l Lease) clientv3.Op {
	return clientv3.OpPut(s.keys.presence(id, s.cfg.Node), "", clientv3.WithLease(clientv3.LeaseID(l.ID)))
}

// used is the activity of this node that ended quiet ago.
func (s *Store) used(quiet time.Duration, kind string, open bool) session.Activity {
	quiet = max(0, quiet)
	return session.Activity{
		LastActivity: time.Now().Add(-quiet).UTC(),
		QuietMs:      quiet.Milliseconds(),
		Open:         open,
		Kind:         kind,
		Node:         s.cfg.Node,
	}
}

// encode is json.Marshal for activities, holds and transitions, in which
// nothing can fail.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "null"
	}
	return string(b)
}
