package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// Pause implements api.Actor.
func (e *Engine) Pause(ctx context.Context, id string, o api.PauseOptions) (sb api.Sandbox, changed bool, err error) {
	err = e.inReach(ctx, func(ctx context.Context) error {
		if err := e.know(ctx, id); err != nil {
			return err
		}
		var err error
		changed, err = e.pauser.Pause(ctx, id, pauser.Options{By: o.By, Force: o.Force})
		return explain(err)
	})
	if err != nil {
		return api.Sandbox{}, changed, err
	}
	sb, err = e.Get(ctx, id)
	return sb, changed, err
}

// Resume implements api.Actor.
func (e *Engine) Resume(ctx context.Context, id, by string) (api.Sandbox, bool, error) {
	release, woke, err := e.Use(ctx, id, 0, by)
	if err != nil {
		return api.Sandbox{}, false, err
	}
	defer release()
	sb, err := e.Get(ctx, id)
	return sb, woke, err
}

// Use implements api.E2BBackend.
func (e *Engine) Use(ctx context.Context, id string, timeout time.Duration, by string) (release func(), woke bool, err error) {
	v := e.visits.Begin(id, "api")
	woke, err = e.waker.Resume(ctx, id, v, wake.Cause{Reason: "resumed by hand: " + by, Kind: "api", Timeout: timeout})
	if err != nil {
		v.End()
		return nil, woke, explain(err)
	}
	return v.End, woke, nil
}

// know adopts a sandbox that only its host knows.
func (e *Engine) know(ctx context.Context, id string) error {
	if err := e.loaded(ctx); err != nil {
		return err
	}
	if s := e.get(id); s != nil && s.State != session.Killed {
		return nil
	}
	return e.inReach(ctx, func(ctx context.Context) error { return explain(e.waker.Adopt(ctx, id)) })
}

// Register implements api.Actor.
func (e *Engine) Register(ctx context.Context, id, owner string) (api.Sandbox, bool, error) {
	if err := e.loaded(ctx); err != nil {
		return api.Sandbox{}, false, err
	}
	s := e.get(id)
	if s != nil && owner != "" && s.Owner != owner {
		return api.Sandbox{}, false, api.ErrNotFound
	}
	created := s == nil
	if owner != "" && created { // nothing is written of what is another's
		rec, err := e.hosts.find(ctx, id)
		if err != nil {
			return api.Sandbox{}, false, explain(err)
		}
		if rec.Owner != "" && rec.Owner != owner {
			return api.Sandbox{}, false, api.ErrNotFound
		}
	}
	e.waker.Known(id)
	if err := e.know(ctx, id); err != nil {
		return api.Sandbox{}, false, err
	}
	if created && owner != "" {
		if err := e.own(ctx, id, owner); err != nil {
			return api.Sandbox{}, false, err
		}
	}
	sb, err := e.Get(ctx, id)
	if err == nil && owner != "" && sb.Owner != owner {
		return api.Sandbox{}, false, api.ErrNotFound
	}
	return sb, created, err
}

// own gives a sandbox that nobody owns to an owner.
func (e *Engine) own(ctx context.Context, id, owner string) error {
	return e.configure(ctx, id, 0, func(r *session.Record) error {
		if r.Owner == "" {
			r.Owner = owner
		}
		return nil
	})
}

// lifetime is how long a host shall let a sandbox run without hearing of us:
// its idle timeout, and some time to pause it.
func (e *Engine) lifetime(metadata map[string]string) time.Duration {
	r := session.Record{}.WithMetadata(metadata, e.cfg.OwnerKey, e.cfg.ProjectKey)
	return e.timeout(r) + 2*time.Minute
}

// Create implements api.Actor.
func (e *Engine) Create(ctx context.Context, n e2b.NewSandbox, owner string) (api.Sandbox, error) {
	if owner != "" { // whatever its metadata say; the host keeps them, for whoever adopts it first
		n.Metadata = maps.Clone(n.Metadata)
		if n.Metadata == nil {
			n.Metadata = make(map[string]string)
		}
		n.Metadata[e.cfg.OwnerKey] = owner
		if err := e.mayJoin(owner, n.Metadata[e.cfg.ProjectKey]); err != nil {
			return api.Sandbox{}, err
		}
	}
	if n.Timeout == nil {
		seconds := int32(e.lifetime(n.Metadata) / time.Second)
		n.Timeout = &seconds
	}
	if n.AutoPause == nil {
		yes := true
		n.AutoPause = &yes
	}
	if err := e.untilInReach(ctx); err != nil {
		return api.Sandbox{}, err // nobody would know of what was made
	}
	host := e.cfg.Hosts[0]
	made, err := e.hosts.create(ctx, host, n)
	if err != nil {
		return api.Sandbox{}, err
	}
	ctx = context.WithoutCancel(ctx) // it is there: it must not be forgotten
	if err := e.adopt(ctx, host, made, n.TemplateID, n.Metadata); err != nil {
		return api.Sandbox{}, err
	}
	return e.Get(ctx, made.SandboxID)
}

// Created implements api.E2BBackend.
func (e *Engine) Created(ctx context.Context, sb e2b.Sandbox, template string, metadata map[string]string) error {
	return e.adopt(context.WithoutCancel(ctx), e.cfg.Hosts[0], sb, template, metadata)
}

// adopt stores the record of a sandbox that was just made.
func (e *Engine) adopt(ctx context.Context, host Host, sb e2b.Sandbox, template string, metadata map[string]string) error {
	e.waker.Known(sb.SandboxID)
	rec := session.New(sb.SandboxID, host.Name(), session.Running, "created", time.Now())
	rec.Template = template
	rec = rec.WithMetadata(metadata, e.cfg.OwnerKey, e.cfg.ProjectKey)
	return e.inReach(ctx, func(ctx context.Context) error {
		if _, err := e.store.Adopt(ctx, rec); err != nil && !errors.Is(err, session.ErrConflict) {
			return fmt.Errorf("storing the record of sandbox %q: %w", sb.SandboxID, err)
		}
		_, err := e.view.Until(ctx, sb.SandboxID, func(s *session.Snapshot) bool { return s != nil })
		return err
	})
}

// Update implements api.Actor.
func (e *Engine) Update(ctx context.Context, id string, p api.Patch, ifMatch int64) (api.Sandbox, error) {
	if err := e.configure(ctx, id, ifMatch, func(r *session.Record) error {
		if p.Bound != "" && p.Project.Set {
			if err := e.mayMove(p.Bound, r.Project, p.Project.Value); err != nil {
				return err
			}
		}
		set(&r.IdleTimeout, p.IdleTimeout)
		set(&r.WakePolicy, p.WakePolicy)
		set(&r.Owner, p.Owner)
		set(&r.Project, p.Project)
		*r = r.Marked(p.By, time.Now().UTC(), p.Names()...)
		return within(e.rules(*r), "idleTimeout", p.IdleTimeout.Value)
	}); err != nil {
		return api.Sandbox{}, err
	}
	return e.Get(ctx, id)
}

func set[T any](field *T, o api.Optional[T]) {
	if o.Set {
		*field = o.Value
	}
}

// configure changes settings, again where something else of the record has
// changed meanwhile. Whoever demanded a revision gets the conflict, and an error
// of change leaves all as it is.
func (e *Engine) configure(ctx context.Context, id string, ifMatch int64, change func(*session.Record) error) error {
	return e.inReach(ctx, func(ctx context.Context) error { return e.reconfigure(ctx, id, ifMatch, change) })
}

func (e *Engine) reconfigure(ctx context.Context, id string, ifMatch int64, change func(*session.Record) error) error {
	if err := e.loaded(ctx); err != nil {
		return err
	}
	for {
		s := e.get(id)
		if s == nil {
			return api.ErrNotFound
		}
		if ifMatch != 0 && s.Revision != ifMatch {
			return session.ErrConflict
		}
		next := s.Record
		if err := change(&next); err != nil {
			return err
		}
		next = next.Counted(s.Record, time.Now())
		stored, err := e.store.Configure(ctx, next)
		if err == nil {
			_, err = e.view.Until(ctx, id, func(s *session.Snapshot) bool { return s == nil || s.Revision >= stored.Revision })
		}
		if !errors.Is(err, session.ErrConflict) || ifMatch != 0 {
			return explain(err)
		}
	}
}

// Kill implements api.Actor.
func (e *Engine) Kill(ctx context.Context, id, by string) error {
	if err := e.know(ctx, id); err != nil {
		return err
	}
	s := e.get(id)
	if s == nil {
		return api.ErrNotFound
	}
	host, err := e.hosts.of(&s.Record)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	why := "killed by hand: " + by
	e.toBeKilled(ctx, id, why)
	if err := e.hosts.kill(ctx, host, id); err != nil && !e2b.IsNotFound(err) {
		return err
	}
	return e.killed(ctx, id, why)
}

// toBeKilled notes why the sandbox will be gone, for the others who may find it
// gone before the kill is answered. A kill does not wait for a store that is away.
func (e *Engine) toBeKilled(ctx context.Context, id, why string) {
	if s := e.get(id); s == nil || s.State == session.Killed || e.standstill() != "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, killNoteWithin)
	defer cancel()
	err := e.configure(ctx, id, 0, func(r *session.Record) error {
		*r = r.ToBeKilled(why, time.Now())
		return nil
	})
	if err != nil && !errors.Is(err, api.ErrNotFound) {
		e.log.Warn("a kill is begun that is not noted", zap.String("sandbox", id), zap.String("reason", why), zap.Error(err))
	}
}

const killNoteWithin = time.Second

// TimeoutSet implements api.E2BBackend. The record is written as it is, which
// makes the leader look at the host's end time again, in whatever process it is.
func (e *Engine) TimeoutSet(ctx context.Context, id string) error {
	if e.State(id) != session.Running {
		return nil // the host is asked when it runs
	}
	return e.configure(context.WithoutCancel(ctx), id, 0, func(*session.Record) error { return nil })
}

const killedByAPI = "killed through the E2B API"

// Killing implements api.E2BBackend.
func (e *Engine) Killing(ctx context.Context, id string) { e.toBeKilled(ctx, id, killedByAPI) }

// Killed implements api.E2BBackend.
func (e *Engine) Killed(ctx context.Context, id string) error {
	return e.killed(context.WithoutCancel(ctx), id, killedByAPI)
}

// killed writes KILLED over whatever the record says, until it lands.
func (e *Engine) killed(ctx context.Context, id, why string) error {
	return e.inReach(ctx, func(ctx context.Context) error { return e.noteKilled(ctx, id, why) })
}

func (e *Engine) noteKilled(ctx context.Context, id, why string) error {
	if err := e.loaded(ctx); err != nil {
		return err
	}
	for {
		s := e.get(id)
		if s == nil || s.State == session.Killed {
			return nil
		}
		next, err := s.Settle(session.Killed, why, time.Now())
		if err != nil {
			return err
		}
		stored, err := e.store.Settle(ctx, next)
		if err == nil {
			_, err = e.view.Until(ctx, id, func(s *session.Snapshot) bool { return s == nil || s.Revision >= stored.Revision })
		}
		if !errors.Is(err, session.ErrConflict) {
			return explain(err)
		}
	}
}

// explain gives the API's error for one of ours.
func explain(err error) error {
	var inUse *pauser.InUseError
	var notYet *wake.NotYetError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &inUse):
		return &api.InUseError{What: inUse.What}
	case errors.Is(err, wake.ErrKilled):
		return api.ErrKilled
	case errors.Is(err, wake.ErrUnknown), errors.Is(err, wake.ErrGone), errors.Is(err, pauser.ErrGone), errors.Is(err, ErrGone):
		return api.ErrNotFound
	case errors.As(err, &notYet):
		return &api.UnavailableError{Reason: err.Error(), RetryAfter: notYet.RetryAfter}
	case errors.Is(err, store.ErrNoLease), errors.Is(err, store.ErrNoSpace), errors.Is(err, store.ErrAway), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, wake.ErrShuttingDown), errors.Is(err, pauser.ErrShuttingDown), errors.Is(err, pauser.ErrAway):
		return &api.UnavailableError{Reason: err.Error(), RetryAfter: time.Second}
	}
	return err
}
