package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sandman-proxy/sandman/internal/activity"
	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// alive tells whether presence under the lease can be believed. The margin is
// for what passes between this look and the bytes that are forwarded on it.
func (e *Engine) alive(lease int64) bool {
	l := e.store.Lease()
	return l.ID == lease && l.Alive(time.Now(), e.cfg.LeaseTTL/5)
}

// visitStore is activity.Store.
type visitStore struct{ *Engine }

func (s visitStore) Enter(ctx context.Context, id string, rev int64, kind string) (activity.Presence, error) {
	entered, err := s.store.Enter(ctx, id, rev, kind)
	return presenceOf(entered), err
}

func presenceOf(e store.Entered) activity.Presence {
	return activity.Presence{Revision: e.PresenceRevision, Lease: e.Lease.ID}
}

func (s visitStore) Leave(ctx context.Context, id string, presenceRev int64, quiet time.Duration, kind string) error {
	return s.store.Leave(ctx, id, presenceRev, quiet, kind)
}

func (s visitStore) Flush(ctx context.Context, bumps []activity.Bump) error {
	out := make([]store.Bump, len(bumps))
	for i, b := range bumps {
		out[i] = store.Bump(b)
	}
	return s.store.Flush(ctx, out)
}

func (s visitStore) Alive(lease int64) bool { return s.alive(lease) }

func (s visitStore) Present(id string) int64 {
	if sb, ok := s.view.Get(id); ok {
		return sb.PresenceOf(s.store.Node())
	}
	return 0
}

// sessions is what waking and pausing ask of the store alike.
type sessions struct{ *Engine }

func (s sessions) Get(id string) *session.Snapshot { return s.get(id) }

func (s sessions) Until(ctx context.Context, id string, cond func(*session.Snapshot) bool) (*session.Snapshot, error) {
	return s.view.Until(ctx, id, cond)
}

func (s sessions) Adopt(ctx context.Context, rec session.Record) error {
	stored, err := s.store.Adopt(ctx, rec)
	switch {
	case err == nil:
		err = s.seen(ctx, stored)
	case errors.Is(err, store.ErrBroken): // until somebody has removed it
		err = &wake.PermanentError{Err: err}
	}
	return err
}

func (s sessions) Settle(ctx context.Context, next session.Record) error {
	stored, err := s.store.Settle(ctx, next)
	if err == nil {
		err = s.seen(ctx, stored)
	}
	return err
}

// seenWithin is how long a write may take to come back through the watch.
const seenWithin = 2 * time.Second

// seen waits until the view has what was just written: whoever looks at it next
// must not decide by what stood there before.
func (e *Engine) seen(ctx context.Context, stored session.Record) error {
	ctx, cancel := context.WithTimeout(ctx, seenWithin)
	defer cancel()
	_, err := e.view.Until(ctx, stored.SandboxID, func(s *session.Snapshot) bool {
		return s != nil && s.Revision >= stored.Revision
	})
	return err
}

func (s sessions) Abandoned(snap *session.Snapshot) bool {
	if snap.Op == nil {
		return snap.State.Busy() // nobody can finish it
	}
	return !s.view.NodeAlive(snap.Op.Node) || time.Now().After(snap.OpDeadline())
}

// wakeStore is wake.Store.
type wakeStore struct{ sessions }

func (s wakeStore) Wake(ctx context.Context, next session.Record) (wake.Op, error) {
	o, err := s.begin(next, s.woken, func() (session.Record, error) { return s.store.Transition(ctx, next) })
	if o == nil {
		return nil, err
	}
	return o, err
}

// woken is RESUMING → RUNNING: a resume is activity, and whoever resumed it is
// present in the same Txn.
func (e *Engine) woken(ctx context.Context, next session.Record) (session.Record, error) {
	stored, entered, err := e.store.Woken(ctx, next, "wake")
	if err == nil {
		e.visits.Entered(next.SandboxID, presenceOf(entered), "wake")
	}
	return stored, err
}

// pauseStore is pauser.Store.
type pauseStore struct{ sessions }

func (s pauseStore) All() []*session.Snapshot {
	listed, _ := s.view.List(store.Query{})
	all := make([]*session.Snapshot, len(listed))
	for i, sb := range listed {
		all[i] = &sb.Snapshot
	}
	return all
}

func (s pauseStore) Watch(changed func(id string)) (stop func()) {
	return s.view.Subscribe(func(id string, _, _ *store.Sandbox) { changed(id) })
}

func (s pauseStore) Lapsed(ctx context.Context, snap *session.Snapshot) error {
	return s.store.Lapsed(ctx, snap.SandboxID, snap.ActivityRevision)
}

func (s pauseStore) Drain(ctx context.Context, next session.Record) (pauser.Op, error) {
	o, err := s.begin(next, s.settled, func() (session.Record, error) { return s.store.Transition(ctx, next) })
	if o == nil {
		return nil, err
	}
	if err == nil {
		err = s.seen(ctx, o.own)
	}
	return o, err
}

// settled is PAUSING → RUNNING: the session's idle time starts anew.
func (e *Engine) settled(ctx context.Context, next session.Record) (session.Record, error) {
	return e.store.Settle(ctx, next)
}

func (s pauseStore) Remove(ctx context.Context, snap *session.Snapshot) error {
	return s.store.Remove(ctx, snap.SandboxID, snap.Revision)
}

func (s pauseStore) InReach() bool {
	_, ok := s.view.Contact()
	return ok
}

func (s pauseStore) SettledAt() (time.Time, uint64) { return s.settle.now() }

// term is pauser.Term.
type term struct {
	*Engine
	store.Term
}

// fence is the right to call the host for an op, by the monotonic clock alone:
// it ends with the op's deadline, and with the lease that the op began under.
// A new lease does not revive it.
type fence struct {
	e        *Engine
	lease    int64
	deadline time.Time
}

func (e *Engine) newFence(next session.Record) fence {
	span := next.Op.Deadline.Sub(next.Op.StartedAt)
	return fence{e: e, lease: e.store.Lease().ID, deadline: time.Now().Add(span)}
}

// Valid implements wake.Op and pauser.Op.
func (f fence) Valid() bool {
	l := f.e.store.Lease()
	now := time.Now()
	return l.ID != 0 && l.ID == f.lease && l.Alive(now, 0) && now.Before(f.deadline)
}

// op is wake.Op and pauser.Op: the one goroutine that has it owns the op.
type op struct {
	fence
	own     session.Record // as it was written last
	running writeEnd       // how a RUNNING end is written
}

type writeEnd func(context.Context, session.Record) (session.Record, error)

// begin writes the begin of an op. Without a lease there is no right to work
// under, so nothing is written. An op that comes with an error may have begun:
// its first End fails by its compare if, and only if, it has.
func (e *Engine) begin(next session.Record, running writeEnd, write func() (session.Record, error)) (*op, error) {
	o := &op{fence: e.newFence(next), own: next, running: running}
	if !o.Valid() {
		return nil, fmt.Errorf("beginning a %s of sandbox %q: %w", next.Op.Kind, next.SandboxID, store.ErrNoLease)
	}
	own, err := write()
	if nothingWritten(err) {
		return nil, err
	}
	o.own = own
	return o, err
}

// nothingWritten tells that an error leaves no doubt.
func nothingWritten(err error) bool {
	return errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNoLease) ||
		errors.Is(err, store.ErrBroken) || errors.Is(err, store.ErrNoSpace)
}

// Advance implements pauser.Op.
func (o *op) Advance(ctx context.Context, phase session.Phase, activityRevision int64) error {
	return o.retry(ctx, func(own session.Record) error {
		next, err := own.Advance(phase)
		if err != nil {
			return err
		}
		if phase == session.PhaseCalling {
			next, err = o.e.store.Call(ctx, next, activityRevision)
		} else {
			next, err = o.e.store.Transition(ctx, next)
		}
		if err == nil {
			o.own = next
		}
		return err
	})
}

// End implements wake.Op and pauser.Op.
func (o *op) End(ctx context.Context, step func(session.Record) (session.Record, error)) error {
	return o.retry(ctx, func(own session.Record) error {
		next, err := step(own)
		if err != nil {
			return err
		}
		write := o.e.store.Transition
		if next.State == session.Running {
			write = o.running
		}
		stored, err := write(ctx, next)
		if err == nil {
			_ = o.e.seen(ctx, stored) // a view that is late changes nothing of what was written
		}
		return err
	})
}

// retry repeats a write whose compare failed, with the record as it is now, as
// long as that still has the op: somebody has changed settings. If it has not,
// the op is over.
func (o *op) retry(ctx context.Context, write func(own session.Record) error) error {
	for {
		err := write(o.own)
		if !errors.Is(err, session.ErrConflict) {
			return err
		}
		s := o.e.get(o.own.SandboxID)
		if s == nil || !s.SameOp(o.own) || s.Revision == o.own.Revision {
			return err
		}
		o.own = s.Record
	}
}
