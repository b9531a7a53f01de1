package engine

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// rules are what decides over a sandbox's settings beside its record.
func (e *Engine) rules(r session.Record) session.Rules { return e.rulesUnder(r, e.view.Policies()) }

func (e *Engine) rulesUnder(r session.Record, p *store.Policies) session.Rules {
	project, owner := p.Of(r)
	d := e.defaults.Load()
	return session.Rules{IdleTimeout: d.idle, Limits: d.limits, Project: project, Owner: owner}
}

// defaults are what the configuration says.
type defaults struct {
	idle   time.Duration
	limits session.Limits
}

// SetDefaults changes the default idle timeout, and the limits of all, of what
// this engine serves: of a retired one, to those of the engine that has taken
// over and pauses.
func (e *Engine) SetDefaults(idle time.Duration, limits session.Limits) {
	d := defaults{idle, limits}
	if *e.defaults.Swap(&d) != d {
		e.pauser.Reschedule()
		e.watchers.touch()
	}
}

// Effective gives the record with the idle timeout and the wake policy that
// hold for it, whoever has said so.
func (e *Engine) Effective(r session.Record) session.Record {
	s := e.rules(r).Settings(r)
	r.IdleTimeout, r.WakePolicy = session.Duration(s.IdleTimeout), s.WakePolicy
	return r
}

// effective makes whoever asks what may wake a sandbox see the policy that holds
// for it.
func (e *Engine) effective(c wake.Cause) wake.Cause {
	if may := c.May; may != nil {
		c.May = func(r session.Record) error { return may(e.Effective(r)) }
	}
	return c
}

// Sleep implements pauser.Term. The idle timeout may have become another one
// since the verdict, or become so before the Txn: it is looked at again under
// the policies that the Txn compares.
func (t term) Sleep(ctx context.Context, next session.Record, activityRevision int64) (pauser.Op, error) {
	under := t.view.Policies()
	if s := t.get(next.SandboxID); s != nil && s.Revision == next.Revision {
		at, ok := s.PauseAt(t.rulesUnder(s.Record, under).Settings(s.Record).IdleTimeout)
		if ok && time.Now().Before(at) {
			return nil, session.ErrConflict
		}
	}
	o, err := t.begin(next, t.settled, func() (session.Record, error) {
		return t.store.Sleep(ctx, next, activityRevision, under, t.Term)
	})
	if o == nil {
		return nil, err
	}
	return o, err
}

// Policies implements api.Reader.
func (e *Engine) Policies(ctx context.Context) (api.Policies, error) {
	if err := e.loaded(ctx); err != nil {
		return api.Policies{}, err
	}
	p, d := e.view.Policies(), e.defaults.Load()
	return api.Policies{
		Owners: named(p.Owners), Projects: named(p.Projects),
		IdleTimeout: session.Duration(d.idle), Limits: limitsOf(session.Rules{Limits: d.limits}),
	}, nil
}

// limitsOf tells the bounds that hold for a sandbox, or for a policy.
func limitsOf(ru session.Rules) api.Limits {
	shortest, longest, _ := ru.Bounds()
	l := api.Limits{MinIdleTimeout: session.Duration(shortest)}
	if longest > 0 {
		most := session.Duration(longest)
		l.MaxIdleTimeout = &most
	}
	return l
}

func named(all map[string]*session.Policy) []api.NamedPolicy {
	list := make([]api.NamedPolicy, 0, len(all))
	for name, p := range all {
		list = append(list, api.NamedPolicy{Name: name, Policy: *p})
	}
	slices.SortFunc(list, func(a, b api.NamedPolicy) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Policy implements api.Reader.
func (e *Engine) Policy(ctx context.Context, scope session.Scope, name string) (session.Policy, error) {
	if err := e.loaded(ctx); err != nil {
		return session.Policy{}, err
	}
	p, ok := e.view.Policies().Get(scope, name)
	if !ok {
		return session.Policy{}, api.ErrNoPolicy
	}
	return p, nil
}

// SetPolicy implements api.Actor.
func (e *Engine) SetPolicy(ctx context.Context, scope session.Scope, name string, p session.Policy) (stored session.Policy, err error) {
	if err := e.loaded(ctx); err != nil {
		return session.Policy{}, err
	}
	ru := session.Rules{Limits: e.defaults.Load().limits}
	for field, d := range map[string]session.Duration{"idleTimeout": p.IdleTimeout, "maxIdleTimeout": p.MaxIdleTimeout} {
		if err := within(ru, field, d); err != nil {
			return session.Policy{}, err
		}
	}
	p.UpdatedAt = time.Now().UTC()
	err = e.inReach(ctx, func(ctx context.Context) error {
		var err error
		stored, err = e.store.PutPolicy(ctx, scope, name, p)
		return explain(err)
	})
	return stored, err
}

// DeletePolicy implements api.Actor.
func (e *Engine) DeletePolicy(ctx context.Context, scope session.Scope, name string, ifMatch int64) error {
	if _, err := e.Policy(ctx, scope, name); err != nil {
		return err
	}
	return e.inReach(ctx, func(ctx context.Context) error { return explain(e.store.DeletePolicy(ctx, scope, name, ifMatch)) })
}

// mayMove refuses that who is bound to an owner moves a sandbox from one project
// to another: out of one with a policy, which may have a limit, or into one as
// mayJoin says.
func (e *Engine) mayMove(owner, from, to string) error {
	if from == to {
		return nil
	}
	if _, ruled := e.view.Policies().Get(session.ScopeProject, from); ruled {
		return api.ErrForeignProject
	}
	return e.mayJoin(owner, to)
}

// mayJoin refuses that who is bound to an owner brings a sandbox under the
// policy of a project in which that owner has none, to the knowledge of all that
// it says. Those that are gone count as long as they are remembered.
func (e *Engine) mayJoin(owner, project string) error {
	if _, ruled := e.view.Policies().Get(session.ScopeProject, project); !ruled {
		return nil
	}
	if theirs, _ := e.view.List(store.Query{Owner: owner, Project: project, Limit: 1}); len(theirs) == 0 {
		return api.ErrForeignProject
	}
	return nil
}

// within refuses an idle timeout that could not hold. 0 says nothing.
func within(ru session.Rules, field string, d session.Duration) error {
	shortest, longest, whose := ru.Bounds()
	asked := time.Duration(d)
	if asked == 0 || asked >= shortest && (longest <= 0 || asked <= longest) {
		return nil
	}
	return &api.LimitError{Field: field, Asked: d, Limits: limitsOf(ru), Whose: whose}
}
