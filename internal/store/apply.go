package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

// update is one key's change.
type update struct {
	key     string
	value   []byte // nil: deleted
	rev     int64
	deleted bool
}

// change is one sandbox's step from one snapshot to the next, either of which
// may be nil.
type change struct {
	id       string
	old, new *Sandbox
	rev      int64
}

// take takes in what changed together: the keys of one revision, or, after a
// list, all that is different from what the view has. It publishes the new
// snapshots, then wakes the waiters, then calls the subscribers.
func (v *View) take(updates []update, at time.Time) {
	v.feeding.Lock()
	defer v.feeding.Unlock()
	v.mu.Lock()
	d := v.unsyncedDraft(updates, at)
	changes := d.finish()
	for _, c := range changes {
		v.unsyncedPublish(c)
	}
	v.unsyncedPublishPolicies(d.policies)
	v.mu.Unlock()
	for _, c := range changes {
		v.tell(c)
	}
}

// v.mu must be held.
func (v *View) unsyncedPublish(c change) {
	if c.new == nil {
		delete(v.all, c.id)
	} else {
		v.all[c.id] = c.new
	}
	v.index.update(c.id, c.old.visible(), c.new.visible())
	v.unsyncedWake(c.id)
}

// unsyncedDraft makes the new snapshots; v.mu must be held.
func (v *View) unsyncedDraft(updates []update, at time.Time) *draft {
	d := &draft{view: v, at: at, changes: map[string]*change{}}
	for _, u := range updates {
		p, err := v.keys.parse(u.key)
		if err == nil {
			err = d.update(p, u)
		}
		v.unsyncedNote(u, p.kind, err)
	}
	return d
}

// unsyncedNote keeps account of the keys; v.mu must be held.
func (v *View) unsyncedNote(u update, k kind, err error) {
	v.applied = max(v.applied, u.rev)
	_, known := v.broken[u.key]
	delete(v.broken, u.key)
	switch {
	case u.deleted:
		delete(v.revs, u.key)
	case !k.ignored():
		v.revs[u.key] = u.rev
	}
	if err != nil && !u.deleted && len(v.broken) < maxBroken {
		v.broken[u.key] = BrokenRecord{Key: u.key, Revision: u.rev, Err: err.Error()}
		if !known {
			v.contact.log.Warn("a stored value can't be read, and is left alone", zap.String("key", u.key), zap.Error(err))
		}
	}
}

// draft collects the new snapshots of one batch.
type draft struct {
	view     *View
	at       time.Time
	changes  map[string]*change
	policies []policyChange
}

// sandbox gives the draft of a sandbox's next snapshot.
func (d *draft) sandbox(id string, rev int64) *Sandbox {
	c := d.changes[id]
	if c == nil {
		c = &change{id: id, old: d.view.all[id], new: &Sandbox{}}
		if c.old != nil {
			*c.new = *c.old
		}
		d.changes[id] = c
	}
	c.rev = max(c.rev, rev)
	return c.new
}

// update changes the draft by one key. An error says that the value is broken;
// the draft is then as if there were none, on the safe side.
func (d *draft) update(p parts, u update) error {
	switch p.kind {
	case kindNode:
		if u.deleted {
			delete(d.view.nodes, p.id)
		} else {
			d.view.nodes[p.id] = true
		}
		return nil
	case kindRecord:
		return d.sandbox(p.id, u.rev).setRecord(p.id, u, d.at)
	case kindActivity:
		return d.sandbox(p.id, u.rev).setActivity(u, d.at)
	case kindPresence:
		d.sandbox(p.id, u.rev).setPresence(p.sub, u)
		return nil
	case kindHold:
		return d.sandbox(p.id, u.rev).setHold(p.sub, u)
	case kindStreams:
		return d.sandbox(p.id, u.rev).setTraffic(p.sub, u)
	case kindPolicy:
		return d.setPolicy(session.Scope(p.id), p.sub, u)
	default: // ignored kinds
		return nil
	}
}

// finish gives the changes in the store's order.
func (d *draft) finish() []change {
	all := make([]change, 0, len(d.changes))
	for _, c := range d.changes {
		c.new.ChangedAt = c.rev
		if c.new.vacant() {
			c.new = nil
		}
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b change) int { return cmp.Or(cmp.Compare(a.rev, b.rev), cmp.Compare(a.id, b.id)) })
	return all
}

// isFirst tells whether the first list is being taken in.
func (v *View) isFirst() bool {
	select {
	case <-v.ready:
		return false
	default:
		return true
	}
}

func (sb *Sandbox) setRecord(id string, u update, at time.Time) error {
	before := sb.Record
	sb.Record = session.Record{}
	if u.deleted {
		return nil
	}
	r, err := decodeRecord(id, u.value)
	if err != nil {
		return err
	}
	r.Revision = u.rev
	sb.Record, sb.Seen = r, at
	if before.Revision == 0 || (r.State == session.Running && before.State != session.Running) {
		sb.active(at)
		sb.RunningSince = began(r, before.Revision == 0, at)
	}
	return nil
}

// began is when a record that is seen now began to run. The stored time is by
// the wall clock of some node: it can only make a run older that is not new.
func began(r session.Record, found bool, at time.Time) time.Time {
	if !found || r.StartedAt == nil {
		return at
	}
	return at.Add(-max(0, at.Sub(*r.StartedAt)))
}

func decodeRecord(id string, value []byte) (session.Record, error) {
	var r session.Record
	if err := json.Unmarshal(value, &r); err != nil {
		return r, fmt.Errorf("decoding record: %w", err)
	}
	if r.SandboxID != id {
		return r, fmt.Errorf("the record is that of sandbox %q", r.SandboxID)
	}
	return r, checkRecord(r)
}

// checkRecord refuses what the rest of the program could not bear, in what is
// read and in what is written.
func checkRecord(r session.Record) error {
	switch {
	case r.SandboxID == "":
		return errors.New("the record has no sandbox ID")
	case !r.State.Valid():
		return fmt.Errorf("the record's state %q is none", r.State)
	case r.State.Busy() != (r.Op != nil):
		return fmt.Errorf("the record is %s and has op: %t", r.State, r.Op != nil)
	}
	return nil
}

// setActivity takes an unreadable value for an open visit, active now: the
// leader will close it if nobody is there.
func (sb *Sandbox) setActivity(u update, at time.Time) error {
	sb.Activity, sb.ActivityRevision = session.Activity{}, 0
	if u.deleted {
		return nil
	}
	err := json.Unmarshal(u.value, &sb.Activity)
	if err != nil {
		sb.Activity = session.Activity{Open: true}
		err = fmt.Errorf("decoding activity: %w", err)
	}
	sb.ActivityRevision, sb.received = u.rev, at
	sb.active(at.Add(-max(0, sb.Activity.Quiet())))
	return err
}

// active moves LastActive forward, never back.
func (sb *Sandbox) active(at time.Time) {
	if at.After(sb.LastActive) {
		sb.LastActive = at
	}
}

func (sb *Sandbox) setPresence(node string, u update) {
	others := slices.DeleteFunc(slices.Clone(sb.Presence), func(p Presence) bool { return p.Node == node })
	if !u.deleted {
		others = append(others, Presence{Node: node, Revision: u.rev})
	}
	slices.SortFunc(others, func(a, b Presence) int { return cmp.Compare(a.Node, b.Node) })
	sb.Presence = others
}

// setHold shows a hold that can't be read, too: it holds.
func (sb *Sandbox) setHold(name string, u update) error {
	others := slices.DeleteFunc(slices.Clone(sb.Holds), func(h session.Hold) bool { return h.Name == name })
	var h session.Hold
	var err error
	if !u.deleted {
		if err = json.Unmarshal(u.value, &h); err != nil {
			h, err = session.Hold{Reason: "unreadable"}, fmt.Errorf("decoding hold: %w", err)
		}
		h.Name = name
		others = append(others, h)
	}
	slices.SortFunc(others, func(a, b session.Hold) int { return cmp.Compare(a.Name, b.Name) })
	sb.Holds = others
	return err
}

// setTraffic shows none where it can't be read: nothing depends on it but what
// people are told, and how many streams were open at a pause.
func (sb *Sandbox) setTraffic(node string, u update) error {
	others := slices.DeleteFunc(slices.Clone(sb.Traffic), func(t session.NodeTraffic) bool { return t.Node == node })
	var err error
	if !u.deleted {
		var t session.NodeTraffic
		if t, err = session.StoredTraffic(node, u.value); err == nil {
			others = append(others, t)
		}
	}
	slices.SortFunc(others, func(a, b session.NodeTraffic) int { return cmp.Compare(a.Node, b.Node) })
	sb.Traffic = slices.Clip(others)
	return err
}
