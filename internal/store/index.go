package store

import (
	"slices"

	"github.com/sandman-proxy/sandman/internal/session"
)

// Query asks for sandboxes. Its zero fields ask for nothing.
type Query struct {
	State   session.State
	Owner   string
	Project string
	Host    string
	After   string // only IDs behind this one
	Limit   int    // 0: all
}

func (q Query) matches(r *session.Record) bool {
	return (q.State == "" || q.State == r.State) &&
		(q.Owner == "" || q.Owner == r.Owner) &&
		(q.Project == "" || q.Project == r.Project) &&
		(q.Host == "" || q.Host == r.Host)
}

// List gives the sandboxes that match, in the order of their IDs, and the
// After of the next page, "" at the end. A page boundary is an ID, not a
// place: what is there all the time appears exactly once on the pages, however
// much comes and goes meanwhile.
func (v *View) List(q Query) (items []*Sandbox, next string) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	ids := v.index.narrowest(q)
	start, found := slices.BinarySearch(ids, q.After)
	if found && q.After != "" {
		start++
	}
	for _, id := range ids[start:] {
		sb := v.all[id]
		if !q.matches(&sb.Record) {
			continue
		}
		if q.Limit > 0 && len(items) == q.Limit {
			return items, items[len(items)-1].SandboxID
		}
		items = append(items, sb)
	}
	return items, ""
}

// index holds sorted IDs: all, and by each field that a Query can ask for.
type index struct {
	all    []string
	fields [4]map[string][]string // state, owner, project, host
}

func newIndex() *index {
	ix := &index{}
	for i := range ix.fields {
		ix.fields[i] = map[string][]string{}
	}
	return ix
}

// narrowest gives the shortest list of IDs that has all matches in it.
func (ix *index) narrowest(q Query) []string {
	shortest := ix.all
	for i, asked := range [4]string{string(q.State), q.Owner, q.Project, q.Host} {
		if asked == "" {
			continue
		}
		if ids := ix.fields[i][asked]; len(ids) <= len(shortest) {
			shortest = ids
		}
	}
	return shortest
}

// of gives the IDs of an owner's or a project's sandboxes.
func (ix *index) of(scope session.Scope, name string) []string {
	if scope == session.ScopeOwner {
		return ix.fields[1][name]
	}
	return ix.fields[2][name]
}

// update follows the change of one sandbox; old or new may be nil.
func (ix *index) update(id string, old, new *Sandbox) {
	switch {
	case old == nil && new != nil:
		ix.all = insert(ix.all, id)
	case old != nil && new == nil:
		ix.all = remove(ix.all, id)
	}
	before, after := indexed(old), indexed(new)
	for i, field := range ix.fields {
		if before[i] == after[i] {
			continue
		}
		if before[i] != "" {
			set(field, before[i], remove(field[before[i]], id))
		}
		if after[i] != "" {
			set(field, after[i], insert(field[after[i]], id))
		}
	}
}

// indexed gives what a sandbox is found by; "" is not found by.
func indexed(sb *Sandbox) [4]string {
	if sb == nil {
		return [4]string{}
	}
	return [4]string{string(sb.State), sb.Owner, sb.Project, sb.Host}
}

func set(field map[string][]string, value string, ids []string) {
	if len(ids) == 0 {
		delete(field, value)
		return
	}
	field[value] = ids
}

func insert(ids []string, id string) []string {
	at, found := slices.BinarySearch(ids, id)
	if found {
		return ids
	}
	return slices.Insert(ids, at, id)
}

func remove(ids []string, id string) []string {
	at, found := slices.BinarySearch(ids, id)
	if !found {
		return ids
	}
	return slices.Delete(ids, at, at+1)
}
