package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/activity"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// Succeed tells e of an engine of the same process that goes on with what it
// serves when its configuration has been replaced by e's. Both must have been
// started. What they share by the store they see there; for the rest:
//
//	another host   the former engine's sandboxes are looked for where they are
//	another store  what keeps a sandbox awake there does so here, by visits of
//	               ours, and what happens to a session here is told there
//
// Of several that have succeeded an engine the last one counts.
func (e *Engine) Succeed(f *Engine) {
	e.setFormers(func(all []*Engine) []*Engine { return append(all, f) })
	if e.client == f.client && e.cfg.Prefix == f.cfg.Prefix {
		f.heir.Store(nil)
	} else {
		f.heir.Store(e)
	}
	e.mirroring.Go(func() {
		defer e.setFormers(func(all []*Engine) []*Engine {
			return slices.DeleteFunc(all, func(other *Engine) bool { return other == f })
		})
		e.mirror(f)
	})
}

// setFormers replaces the list by a changed copy.
func (e *Engine) setFormers(change func([]*Engine) []*Engine) {
	for {
		old := e.formers.Load()
		var all []*Engine
		if old != nil {
			all = slices.Clone(*old)
		}
		if all = change(all); e.formers.CompareAndSwap(old, &all) {
			return
		}
	}
}

// succeeded are the engines that live on beside this one. Most of the time there
// is none.
func (e *Engine) succeeded() []*Engine {
	if all := e.formers.Load(); all != nil {
		return *all
	}
	return nil
}

// disinherit ends what e is to others: its configuration is over, or never was.
func (e *Engine) disinherit() {
	for _, f := range e.succeeded() {
		f.heir.CompareAndSwap(e, nil)
	}
}

// hostOf is the host of a former engine that serves the sandbox, nil if none
// does: its records' host may have the name of another one here.
func (e *Engine) hostOf(rec *session.Record) Host {
	for _, f := range e.succeeded() {
		requests, streams := f.visits.InUse(rec.SandboxID)
		if requests+streams+f.streams.open(rec.SandboxID) > 0 {
			if host, err := f.hosts.of(rec); err == nil {
				return host
			}
		}
	}
	return nil
}

// rouse makes a sandbox run for the heir too, which may have paused it. The
// sandboxes of a host that the heir does not have are nothing to it.
func (e *Engine) rouse(ctx context.Context, id string, cause wake.Cause) error {
	heir := e.heir.Load()
	if heir == nil {
		return nil
	}
	v := heir.visits.Begin(id, cause.Kind)
	defer v.End()
	cause.Suspect = 0
	if err := heir.waker.Ensure(ctx, id, v, heir.effective(cause)); !noneOfOurs(err) {
		return err
	}
	return nil
}

// noneOfOurs tells that an engine knows nothing of a sandbox that another one
// serves: they have different hosts.
func noneOfOurs(err error) bool {
	return errors.Is(err, wake.ErrGone) || errors.Is(err, wake.ErrUnknown) || errors.Is(err, wake.ErrKilled)
}

// mirrorEvery is how often it is looked what a former engine serves: several
// times in the shortest idle timeout.
const mirrorEvery = session.MinIdleTimeout / 4

// mirror returns when f or e ends.
func (e *Engine) mirror(f *Engine) {
	mirrors := make(map[string]*mirror)
	ticker := time.NewTicker(mirrorEvery)
	defer ticker.Stop()
	for {
		if f.heir.Load() == e {
			all, _ := f.view.List(store.Query{})
			for _, sb := range all {
				e.reflect(f, sb.SandboxID, mirrors)
			}
		}
		select {
		case <-ticker.C:
			continue
		case <-f.stopped:
		case <-e.ending.Done():
		}
		break
	}
	for _, m := range mirrors {
		m.request.end()
		m.stream.end()
	}
}

// mirror is what stands for the use of a sandbox through a former engine.
type mirror struct {
	request, stream reflection
	last            time.Time // of the last byte of a stream
}

// reflect brings the visits that stand for the use of one sandbox to what it is
// now.
func (e *Engine) reflect(f *Engine, id string, mirrors map[string]*mirror) {
	requests, streams := f.visits.InUse(id)
	m := mirrors[id]
	switch {
	case m == nil && requests+streams == 0:
		return
	case m == nil:
		m = new(mirror)
		mirrors[id] = m
	case requests+streams == 0:
		delete(mirrors, id)
	}
	// a request counts as long as it takes, a stream by its bytes
	m.request.set(e, id, "request", requests > 0)
	last, _, _ := f.visits.Last(id)
	if streams == 0 || last.After(m.last) {
		m.last = last
		m.stream.set(e, id, "stream", streams > 0)
	}
}

// reflection is one visit, while there is something for it to stand for.
type reflection struct {
	visit   *activity.Visit
	joining chan struct{} // closed when the attempt to make it count is over
	retryAt time.Time
}

// joinRetry is how long after a vain attempt the next one is made.
const joinRetry = 5 * time.Second

// set makes the visit count, or ends it.
func (r *reflection) set(e *Engine, id, kind string, on bool) {
	if !on {
		r.end()
		return
	}
	if r.visit == nil {
		r.visit = e.visits.Begin(id, kind)
		if kind != "request" {
			r.visit.Stream(kind)
		}
	}
	if r.visit.Bump() || r.busy() || time.Now().Before(r.retryAt) {
		return
	}
	r.joining, r.retryAt = make(chan struct{}), time.Now().Add(joinRetry)
	v, done := r.visit, r.joining
	e.mirroring.Go(func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(e.ending, wake.DefaultCallTimeout)
		defer cancel()
		err := e.waker.Ensure(ctx, id, v, wake.Cause{Reason: "in use since before the configuration was changed", Kind: kind})
		if err != nil && e.ending.Err() == nil && !noneOfOurs(err) {
			e.log.Warn("a sandbox is in use under a former configuration, and can't be made to run", zap.String("sandbox", id), zap.Error(err))
		}
	})
}

func (r *reflection) busy() bool {
	if r.joining == nil {
		return false
	}
	select {
	case <-r.joining:
		return false
	default:
		return true
	}
}

// end may be called again.
func (r *reflection) end() {
	if r.visit != nil {
		r.visit.End()
		r.visit = nil
	}
}
