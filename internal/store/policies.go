package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
)

// Policies are those of all owners and projects, by name, at one moment. They
// must not be changed.
type Policies struct {
	Owners, Projects map[string]*session.Policy
}

// Of gives the policies that hold for a sandbox, nil where there is none.
func (p *Policies) Of(r session.Record) (project, owner *session.Policy) {
	return p.Projects[r.Project], p.Owners[r.Owner]
}

// of is the half of one scope.
func (p *Policies) of(scope session.Scope) *map[string]*session.Policy {
	if scope == session.ScopeOwner {
		return &p.Owners
	}
	return &p.Projects
}

// Get gives one of them.
func (p *Policies) Get(scope session.Scope, name string) (session.Policy, bool) {
	found, ok := (*p.of(scope))[name]
	if !ok {
		return session.Policy{}, false
	}
	return *found, true
}

// Policies gives the policies as the view has them. It is one atomic load.
func (v *View) Policies() *Policies { return v.policies.Load() }

// setPolicy takes a value that can't be read for a policy that says nothing. It
// is there: SLEEP compares its revision.
func (d *draft) setPolicy(scope session.Scope, name string, u update) error {
	if !scope.Valid() {
		return fmt.Errorf("a policy is of owners or projects, not of %q", scope)
	}
	c := policyChange{scope: scope, name: name}
	var err error
	if !u.deleted {
		var p session.Policy
		if err = json.Unmarshal(u.value, &p); err != nil {
			p, err = session.Policy{}, fmt.Errorf("decoding policy: %w", err)
		}
		p.Revision = u.rev
		c.policy = &p
	}
	d.touch(c, u.rev)
	return err
}

// policyChange is what a batch says of one policy, nil: it is gone.
type policyChange struct {
	scope  session.Scope
	name   string
	policy *session.Policy
}

// touch makes a policy's change one of all sandboxes that it holds for. Those
// that come with the same batch change anyway.
func (d *draft) touch(c policyChange, rev int64) {
	d.policies = append(d.policies, c)
	for _, id := range d.view.index.of(c.scope, c.name) {
		d.sandbox(id, rev)
	}
}

// unsyncedPublishPolicies makes the batch's policies the view's. v.mu must be held.
func (v *View) unsyncedPublishPolicies(changes []policyChange) {
	if len(changes) == 0 {
		return
	}
	next := *v.policies.Load()
	next.Owners, next.Projects = copied(next.Owners), copied(next.Projects)
	for _, c := range changes {
		all := *next.of(c.scope)
		if c.policy == nil {
			delete(all, c.name)
		} else {
			all[c.name] = c.policy
		}
	}
	v.policies.Store(&next)
	for _, c := range changes {
		v.unsyncedWake(v.keys.policy(c.scope, c.name)) // see awaitPolicy
	}
}

func copied(m map[string]*session.Policy) map[string]*session.Policy {
	if m == nil {
		return map[string]*session.Policy{}
	}
	return maps.Clone(m)
}

// PutPolicy stores a policy, and gives it with its revision once the view has
// it. With a revision of its own it replaces the policy of that revision, or
// none if it is negative.
//
//	If    mod(policy) = p.Revision (negative: there is none), unless that is 0
//	Then  put policies/{scope}/{name}
func (s *Store) PutPolicy(ctx context.Context, scope session.Scope, name string, p session.Policy) (session.Policy, error) {
	rev, err := s.changePolicy(ctx, "setting", scope, name, p.Revision, func(key string) clientv3.Op {
		return clientv3.OpPut(key, encode(p))
	})
	p.Revision = rev
	return p, err
}

// DeletePolicy deletes a policy, of the given revision if that is not 0. One
// that is not there is no error.
func (s *Store) DeletePolicy(ctx context.Context, scope session.Scope, name string, rev int64) error {
	_, err := s.changePolicy(ctx, "deleting", scope, name, rev, func(key string) clientv3.Op { return clientv3.OpDelete(key) })
	return err
}

func (s *Store) changePolicy(ctx context.Context, doing string, scope session.Scope, name string, rev int64, op func(key string) clientv3.Op) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	failed := func(err error) error { return fmt.Errorf("%s policy of %s %q: %w", doing, scope, name, explain(err)) }
	key := s.keys.policy(scope, name)
	var when []clientv3.Cmp
	if rev != 0 {
		when = append(when, unchanged(key, max(0, rev)))
	}
	resp, err := s.client.Txn(ctx).If(when...).Then(op(key)).Else(clientv3.OpGet(key, clientv3.WithKeysOnly())).Commit()
	if err != nil {
		return 0, failed(err)
	}
	if !resp.Succeeded {
		for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
			_ = s.view.awaitPolicy(ctx, key, kv.ModRevision) // out of time is no other outcome
		}
		return 0, failed(ErrConflict)
	}
	if d := resp.Responses[0].GetResponseDeleteRange(); d != nil && d.Deleted == 0 {
		return resp.Header.Revision, nil // nothing will come through the watch
	}
	if err := s.view.awaitPolicy(ctx, key, resp.Header.Revision); err != nil {
		return 0, failed(err)
	}
	return resp.Header.Revision, nil
}

// awaitPolicy waits until the view has what was written of a policy. It waits as
// for a sandbox, by the policy's key, which is no sandbox's ID.
func (v *View) awaitPolicy(ctx context.Context, key string, rev int64) error {
	return v.await(ctx, key, func(*Sandbox) bool { return v.applied >= rev })
}

// underPolicies compares that the policies are those which a verdict was
// reached under, and reads them where they are not.
func (s *Store) underPolicies(r session.Record, p *Policies) (when []clientv3.Cmp, look []clientv3.Op) {
	project, owner := p.Of(r)
	for _, c := range []struct {
		scope  session.Scope
		name   string
		policy *session.Policy
	}{{session.ScopeProject, r.Project, project}, {session.ScopeOwner, r.Owner, owner}} {
		if c.name == "" {
			continue
		}
		var rev int64
		if c.policy != nil {
			rev = c.policy.Revision
		}
		key := s.keys.policy(c.scope, c.name)
		when, look = append(when, unchanged(key, rev)), append(look, clientv3.OpGet(key, clientv3.WithKeysOnly()))
	}
	return when, look
}
