package sandboxd

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/sandboxd/freezer"
)

// sandbox is one sandbox of a host.
type sandbox struct {
	host *Host
	id   string
	dir  string

	// group is used by the transition that is under way only.
	group freezer.Group

	mu    sync.Mutex // guards the following fields
	rec   record
	op    *op         // the transition under way, nil for none
	timer *time.Timer // for the lifetime's end
}

// op is a transition, for those who wait for its end.
type op struct {
	done chan struct{} // closed at its end
	err  error         // valid then
}

// wait returns the transition's error, or the caller's own.
func (o *op) wait(ctx context.Context) error {
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work is what a transition does. It returns what becomes of the record, at a
// failure too.
type work func(ctx context.Context) (result func(*record), err error)

// begin starts a transition on a goroutine of its own, so that it is carried out
// whoever leaves. s.mu must be held and s.op nil. A closed host begins none; its
// callers get its error.
func (s *sandbox) begin(during State, delay time.Duration, do work) *op {
	o := &op{done: make(chan struct{})}
	before := s.rec.State
	s.op, s.rec.State = o, during
	s.save()
	err := s.host.start(func() {
		ctx, cancel := context.WithTimeout(context.Background(), opTimeout+delay)
		defer cancel()
		sleep(ctx, delay)
		result, err := do(ctx)
		s.finish(o, result, err)
	})
	if err != nil {
		s.op, s.rec.State = nil, before
		s.save()
		o.err = err
		close(o.done)
	}
	return o
}

// finish makes a transition's result known, in the order of the transitions.
func (s *sandbox) finish(o *op, result func(*record), err error) {
	s.mu.Lock()
	result(&s.rec)
	s.op, o.err = nil, err
	if s.rec.State == StateKilled {
		s.host.forget(s.id)
	} else {
		s.save()
		s.schedule()
	}
	s.host.changes.send(s.id, s.rec.State)
	state := s.rec.State
	s.mu.Unlock()
	s.host.log.Debug("sandbox changed", zap.String("sandbox", s.id), zap.String("state", string(state)), zap.Error(err))
	close(o.done)
}

// save writes the record down; s.mu must be held. A failure is logged and not
// returned: the sandbox is what it is, whatever the disk says of it.
func (s *sandbox) save() {
	if err := s.rec.save(s.dir); err != nil {
		s.host.log.Error("saving a sandbox", zap.Error(err))
	}
}

// location is where the sandbox is, and how.
func (s *sandbox) location() Location {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Location{State: s.rec.State}
	if s.rec.Process != nil {
		l.envd, _ = netip.ParseAddrPort(s.rec.Process.Addr)
	}
	return l
}

// snapshot is a copy of the record. Its maps must not be changed.
func (s *sandbox) snapshot() record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec
}

// sleep returns after d or with ctx.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
