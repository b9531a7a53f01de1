package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
)

// In all of these, next is the record that shall stand, and next.Revision the
// revision of the one that it was made from. They return next with its new
// revision.

// Sleep begins a pause, for the leader whose term it is. activityRev is the
// revision of a closed activity, 0 if there is none; under are the policies
// that the idle timeout was made of.
//
//	If    mod(record) = next.Revision, mod(activity) = activityRev (closed),
//	      mod(policies) as in under, no presence, no holds,
//	      create(term.Key) = term.CreateRevision
//	Then  put record, history, usage
func (s *Store) Sleep(ctx context.Context, next session.Record, activityRev int64, under *Policies, term Term) (session.Record, error) {
	st, err := s.stepOn("sleeping", next.SandboxID, next.Revision)
	if err != nil {
		return next, err
	}
	if term.CreateRevision <= 0 {
		// create = 0 would hold while nobody leads
		return next, st.failed(errors.New("the term is none"))
	}
	if st.when, err = s.whenEmpty(st, activityRev); err != nil {
		return next, err
	}
	policies, look := s.underPolicies(next, under)
	st.also = look
	st.when = append(st.when,
		empty(s.keys.folder(kindHold, st.id)),
		clientv3.Compare(clientv3.CreateRevision(term.Key), "=", term.CreateRevision))
	st.when = append(st.when, policies...)
	return s.replace(ctx, st, next)
}

// Call begins the host's call of a pause by hand, once the sandbox is
// drained. Holds don't stop a person.
//
//	If    mod(record) = next.Revision, mod(activity) = activityRev (closed),
//	      no presence
//	Then  put record, history, usage
func (s *Store) Call(ctx context.Context, next session.Record, activityRev int64) (session.Record, error) {
	st, err := s.stepOn("calling for the pause of", next.SandboxID, next.Revision)
	if err != nil {
		return next, err
	}
	if st.when, err = s.whenEmpty(st, activityRev); err != nil {
		return next, err
	}
	return s.replace(ctx, st, next)
}

// whenEmpty adds the compares that nobody is there, nor has been since
// activityRev, nor has vanished. What stands under a revision never changes,
// so whether it says closed is looked up in the view.
func (s *Store) whenEmpty(st step, activityRev int64) ([]clientv3.Cmp, error) {
	if a := s.storedActivity(st.id); a.rev == activityRev && a.Open {
		return nil, st.failed(fmt.Errorf("its last visit is open: %w", ErrConflict))
	}
	return append(st.when,
		unchanged(s.keys.activity(st.id), activityRev),
		empty(s.keys.folder(kindPresence, st.id))), nil
}

// Transition takes a step that depends on nothing but the record: draining
// and cutting, WAKE, and the ends of an op other than RUNNING.
//
//	If    mod(record) = next.Revision
//	Then  put record, history, usage
func (s *Store) Transition(ctx context.Context, next session.Record) (session.Record, error) {
	st, err := s.stepOn("writing "+string(next.State)+" of", next.SandboxID, next.Revision)
	if err != nil {
		return next, err
	}
	return s.replace(ctx, st, next)
}

// Woken ends a resume in RUNNING, with the presence of the request that
// waited for it: a resume is activity.
//
//	If    mod(record) = next.Revision
//	Then  put record, history, usage, presence/{id}/{node} on the node's lease,
//	      activity{open}
func (s *Store) Woken(ctx context.Context, next session.Record, kind string) (session.Record, Entered, error) {
	st, err := s.stepOn("waking", next.SandboxID, next.Revision)
	if err != nil {
		return next, Entered{}, err
	}
	st.do = []clientv3.Op{s.opActivity(st.id, s.used(0, kind, true))}
	if st, err = s.withRecord(ctx, st, next); err != nil {
		return next, Entered{}, err
	}
	entered, err := s.commitPresent(ctx, st)
	if err != nil {
		return next, Entered{}, err
	}
	next.Revision = entered.PresenceRevision
	s.trimmer.grown(st.id)
	return next, entered, nil
}

// Settle ends an op, or corrects a record, with the host's word. A sandbox
// that is running after all counts as used now; whether its visit is open
// stays as it is.
//
//	If    mod(record) = next.Revision; if it becomes RUNNING, mod(activity) = as read
//	Then  put record, history, usage; if it becomes RUNNING, activity
func (s *Store) Settle(ctx context.Context, next session.Record) (session.Record, error) {
	if next.State != session.Running {
		return s.Transition(ctx, next)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	st, err := s.stepOn("settling", next.SandboxID, next.Revision)
	if err != nil {
		return next, err
	}
	if st, err = s.withRecord(ctx, st, next); err != nil {
		return next, err
	}
	for stored := s.storedActivity(st.id); ; {
		again := st
		again.when = append(st.when[:1:1], unchanged(s.keys.activity(st.id), stored.rev))
		again.do = append(slices.Clip(st.do), s.opActivity(st.id, s.used(0, "settled", stored.Open)))
		rev, seen, err := s.try(ctx, again)
		switch {
		case err != nil:
			return next, err
		case seen == nil:
			next.Revision = rev
			s.trimmer.grown(st.id)
			return next, nil
		case seen.revs[s.keys.record(st.id)] != next.Revision:
			return next, s.conflict(ctx, st, seen)
		}
		stored = stored.reread(s, st.id, seen)
	}
}

// Adopt puts the record of a sandbox that the host knows and the store
// doesn't. (Undoing KILLED is Settle.)
//
//	If    no record
//	Then  put record, history, usage; if RUNNING, activity {open: somebody is there}
func (s *Store) Adopt(ctx context.Context, rec session.Record) (session.Record, error) {
	st := step{doing: "adopting", id: rec.SandboxID}
	st.when = []clientv3.Cmp{unchanged(s.keys.record(st.id), 0)}
	ops, err := s.opsRecord(session.Record{}, rec)
	if err != nil {
		return rec, st.failed(err)
	}
	st.do = ops
	if rec.State == session.Running {
		nobody := []clientv3.Cmp{empty(s.keys.folder(kindPresence, st.id))}
		st.do = append(st.do, s.opActivityBy(nobody, st.id, s.used(0, "adopted", false)))
	}
	rev, err := s.commit(ctx, st)
	if err != nil {
		return rec, err
	}
	rec.Revision = rev
	return rec, nil
}

// Configure writes changed settings. State and op stay, so it is no line of
// the history; usage ends with it where owner or project change.
//
//	If    mod(record) = next.Revision
//	Then  put record, usage
func (s *Store) Configure(ctx context.Context, next session.Record) (session.Record, error) {
	st, err := s.stepOn("configuring", next.SandboxID, next.Revision)
	if err != nil {
		return next, err
	}
	from, err := s.replaced(ctx, st, next.Revision)
	if err != nil {
		return next, err
	}
	put, err := s.opRecord(next)
	if err != nil {
		return next, st.failed(err)
	}
	st.do = append(s.opsUsage(from, next), put)
	rev, err := s.commit(ctx, st)
	if err != nil {
		return next, err
	}
	next.Revision = rev
	return next, nil
}

// Remove forgets a sandbox: its record, activity and history. What is bound
// to leases goes with them. Its usage stays, and is what it was up to KILLED.
//
//	If    mod(record) = rev
//	Then  delete record, activity, history
func (s *Store) Remove(ctx context.Context, id string, rev int64) error {
	st, err := s.stepOn("removing", id, rev)
	if err != nil {
		return err
	}
	st.do = []clientv3.Op{
		clientv3.OpDelete(s.keys.record(id)),
		clientv3.OpDelete(s.keys.activity(id)),
		clientv3.OpDelete(s.keys.folder(kindHistory, id), clientv3.WithPrefix()),
	}
	_, err = s.commit(ctx, st)
	return err
}

// replace takes a step that puts the record with its line of history.
func (s *Store) replace(ctx context.Context, st step, next session.Record) (session.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	st, err := s.withRecord(ctx, st, next)
	if err != nil {
		return next, err
	}
	rev, err := s.commit(ctx, st)
	if err != nil {
		return next, err
	}
	next.Revision = rev
	s.trimmer.grown(st.id)
	return next, nil
}

// withRecord adds to a step that next replaces the record of its revision.
func (s *Store) withRecord(ctx context.Context, st step, next session.Record) (step, error) {
	from, err := s.replaced(ctx, st, next.Revision)
	if err != nil {
		return st, err
	}
	ops, err := s.opsRecord(from, next)
	if err != nil {
		return st, st.failed(err)
	}
	st.do = append(st.do, ops...)
	return st, nil
}

// replaced gives the record of the given revision, for the history. The view
// has it unless it is behind, as it may be right after this process's own
// write.
func (s *Store) replaced(ctx context.Context, st step, rev int64) (session.Record, error) {
	if sb, ok := s.view.Get(st.id); ok && sb.Revision == rev {
		return sb.Record, nil
	}
	key := s.keys.record(st.id)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Txn(ctx).If(unchanged(key, rev)).Then(clientv3.OpGet(key)).Else(s.look(st.id)...).Commit()
	if err != nil {
		return session.Record{}, st.failed(explain(err))
	}
	if !resp.Succeeded {
		return session.Record{}, s.conflict(ctx, st, sightOf(resp))
	}
	var r session.Record
	if err := json.Unmarshal(resp.Responses[0].GetResponseRange().Kvs[0].Value, &r); err != nil {
		return r, st.failed(fmt.Errorf("%w: %w", ErrBroken, err))
	}
	return r, nil
}

// opsRecord puts a record, its line of history and the usage that ends with it,
// under the revision of the record that it replaces: no two transitions have
// the same.
func (s *Store) opsRecord(from, next session.Record) ([]clientv3.Op, error) {
	put, err := s.opRecord(next)
	if err != nil {
		return nil, err
	}
	line := session.Between(from, next, s.cfg.Node)
	history := clientv3.OpPut(s.keys.history(next.SandboxID, next.Revision), encode(line))
	return append(s.opsUsage(from, next), put, history), nil
}

func (s *Store) opRecord(r session.Record) (clientv3.Op, error) {
	if err := checkRecord(r); err != nil {
		return clientv3.Op{}, err
	}
	value, err := json.Marshal(r)
	if err != nil {
		return clientv3.Op{}, fmt.Errorf("encoding record: %w", err)
	}
	return clientv3.OpPut(s.keys.record(r.SandboxID), string(value)), nil
}
