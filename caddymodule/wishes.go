package caddymodule

import (
	"context"
	"sync"
	"time"

	"github.com/sandman-proxy/sandman/internal/wake"
)

// wishes are the wakes of an engine that go on behind the one who asked: a
// person is shown a page meanwhile, and may have closed it. There is one at a
// time for each sandbox. The zero value is ready.
type wishes struct {
	mu    sync.Mutex // guards the following field
	under map[string]*wish
}

// wish is one wake that nobody waits for in its own request.
type wish struct {
	since time.Time
	over  context.Context // ends once err is set
	err   error           // why the sandbox does not run; nil: it does
}

// wait returns when the wish is over, with what came of it, or ctx is done.
func (w *wish) wait(ctx context.Context) error {
	select {
	case <-w.over.Done():
		return w.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wish wakes the sandbox for the cause, or joins the wish that there is. It
// goes on without ctx, but not beyond the end of the process. The engine must be
// in use.
func (r *runningEngine) wish(ctx context.Context, id string, cause wake.Cause) (w *wish, joined bool) {
	r.wishes.mu.Lock()
	defer r.wishes.mu.Unlock()
	if w := r.wishes.under[id]; w != nil {
		return w, true
	}
	over, end := context.WithCancel(context.Background())
	w = &wish{since: time.Now(), over: over}
	if !r.uses.begin() { // it would be ended under it
		w.err = errReplaced
		end()
		return w, false
	}
	if r.wishes.under == nil {
		r.wishes.under = make(map[string]*wish)
	}
	r.wishes.under[id] = w
	go func() {
		defer r.uses.end()
		defer end()
		w.err = r.grant(context.WithoutCancel(ctx), id, cause)
	}()
	return w, false
}

// grant ends with the hold of the wake at the latest.
func (r *runningEngine) grant(ctx context.Context, id string, cause wake.Cause) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(open.leaving, cancel)()
	defer func() {
		r.wishes.mu.Lock()
		defer r.wishes.mu.Unlock()
		delete(r.wishes.under, id)
	}()
	visit := r.Visit(id, cause.Kind)
	defer visit.End() // from here on it is idle, unless the person comes
	err := r.Ensure(ctx, id, visit, cause)
	if ctx.Err() != nil {
		return errExiting
	}
	return err
}

// wished gives the wish that is under way for the sandbox; nil: none is.
func (r *runningEngine) wished(id string) *wish {
	r.wishes.mu.Lock()
	defer r.wishes.mu.Unlock()
	return r.wishes.under[id]
}
