package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

func halfHour(by string) session.Policy {
	return session.Policy{IdleTimeout: session.Duration(30 * time.Minute), UpdatedBy: by, UpdatedAt: time.Now().UTC()}
}

// owned stores a sandbox of this owner and project.
func (r *rig) owned(id, owner, project string) session.Record {
	r.t.Helper()
	rec := session.New(id, "local", session.Running, "adopted", time.Now())
	rec.Owner, rec.Project = owner, project
	rec, err := r.Adopt(r.ctx, rec)
	if err != nil {
		r.t.Fatal(err)
	}
	r.see(id, "the adopted record", func(sb *store.Sandbox) bool { return sb.Revision >= rec.Revision })
	return rec
}

func TestPolicies_areSeenByAllAndTellTheirSandboxes(t *testing.T) {
	t.Parallel()
	a := newRig(t)
	b := a.beside("node-b")
	a.owned("hers", "alice/%", "web")
	a.owned("his", "bob", "web")
	told := make(chan string, 100)
	cancel := b.View().Subscribe(func(id string, _, sb *store.Sandbox) {
		project, owner := b.View().Policies().Of(sb.Record)
		if owner != nil {
			id += " of " + owner.UpdatedBy
		}
		if project != nil {
			id += " in " + project.UpdatedBy
		}
		told <- id
	})
	defer cancel()
	want := func(ids ...string) {
		t.Helper()
		var got []string
		for range ids {
			select {
			case id := <-told:
				got = append(got, id)
			case <-a.ctx.Done():
				t.Fatalf("told of %q only, want %q", got, ids)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, ids) {
			t.Errorf("told of %q, want %q", got, ids)
		}
	}
	want("hers", "his")
	p, err := a.PutPolicy(a.ctx, session.ScopeOwner, "alice/%", halfHour("ops"))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := a.View().Policies().Get(session.ScopeOwner, "alice/%"); !ok || got.Revision != p.Revision || got.UpdatedBy != "ops" {
		t.Errorf("after it was put the view has %+v, %t", got, ok)
	}
	want("hers of ops")
	if _, err := a.PutPolicy(a.ctx, session.ScopeProject, "web", halfHour("ann")); err != nil {
		t.Fatal(err)
	}
	want("hers of ops in ann", "his in ann")
	if err := a.DeletePolicy(a.ctx, session.ScopeOwner, "alice/%", 0); err != nil {
		t.Fatal(err)
	}
	want("hers in ann")
	if err := a.DeletePolicy(a.ctx, session.ScopeOwner, "alice/%", 0); err != nil {
		t.Errorf("deleted again: %v", err)
	}
	c := a.beside("node-c") // by its first list
	if got := c.View().Policies(); len(got.Owners) != 0 || got.Projects["web"].UpdatedBy != "ann" {
		t.Errorf("a later node has %+v", got)
	}
}

func TestPolicies_compareTheirRevision(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	put := func(rev int64) (session.Policy, error) {
		p := halfHour("ops")
		p.Revision = rev
		return r.PutPolicy(r.ctx, session.ScopeOwner, "alice", p)
	}
	first, err := put(-1) // there is none
	if err != nil {
		t.Fatal(err)
	}
	_, err = put(-1)
	wantConflict(t, err)
	second, err := put(first.Revision)
	if err != nil {
		t.Fatal(err)
	}
	_, err = put(first.Revision)
	wantConflict(t, err)
	wantConflict(t, r.DeletePolicy(r.ctx, session.ScopeOwner, "alice", first.Revision))
	if err := r.DeletePolicy(r.ctx, session.ScopeOwner, "alice", second.Revision); err != nil {
		t.Error(err)
	}
}

func TestPolicies_thatCannotBeReadSayNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put("policies/owners/alice", "{")
	r.put("policies/teams/alice", "{}")
	r.eventually("both are told of", func() bool { return len(r.View().Broken()) == 2 })
	if p, ok := r.View().Policies().Get(session.ScopeOwner, "alice"); !ok || p.IdleTimeout != 0 || p.Revision == 0 {
		t.Errorf("%+v, %t", p, ok)
	}
}

// TestSleep_comparesThePolicies changes one behind the leader's back: its view
// stands still.
func TestSleep_comparesThePolicies(t *testing.T) {
	t.Parallel()
	for _, change := range []struct {
		name   string
		before bool // there was a policy
		do     func(other *rig) error
	}{
		{"a new one", false, func(o *rig) error {
			_, err := o.PutPolicy(o.ctx, session.ScopeProject, "web", halfHour("ops"))
			return err
		}},
		{"another one", true, func(o *rig) error {
			_, err := o.PutPolicy(o.ctx, session.ScopeProject, "web", halfHour("ops"))
			return err
		}},
		{"none any more", true, func(o *rig) error { return o.DeletePolicy(o.ctx, session.ScopeProject, "web", 0) }},
		{"the owner's", false, func(o *rig) error {
			_, err := o.PutPolicy(o.ctx, session.ScopeOwner, "alice", halfHour("ops"))
			return err
		}},
	} {
		t.Run(change.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			other := r.beside("node-b")
			if change.before {
				if _, err := r.PutPolicy(r.ctx, session.ScopeProject, "web", halfHour("ann")); err != nil {
					t.Fatal(err)
				}
			}
			rec := r.owned("s", "alice", "web")
			l := lead(t, r.Store)
			term := await(t, "it leads", l.began)
			under := r.View().Policies()
			release := r.stallView()
			if err := change.do(other); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(50*time.Millisecond, release) // a conflict waits for the view
			_, err := r.Sleep(r.ctx, r.pausing(rec), r.mod("activity/s"), under, term)
			wantConflict(t, err)
			if change.name != "none any more" {
				if now := r.View().Policies(); now == under {
					t.Error("after the conflict the view has not seen why")
				}
			}
			r.eventually("it sleeps under the policies that hold", func() bool {
				_, err := r.Sleep(r.ctx, r.pausing(rec), r.mod("activity/s"), r.View().Policies(), term)
				return err == nil
			})
		})
	}
}
