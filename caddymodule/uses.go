package caddymodule

import (
	"maps"
	"math"
	"sync"
	"sync/atomic"

	"github.com/sandman-proxy/sandman/internal/stream"
)

// uses counts who works with something that must not end under them: each
// request from its arrival to its end, which for a long connection is when it
// is closed, whether it counts, sleeps or is held.
type uses struct {
	count   atomic.Int64 // closedUses once nobody is let in any more
	closing sync.Once
	waiting atomic.Bool
	none    chan struct{} // gets a value when the count falls to 0 while waiting
}

const closedUses = math.MinInt64 / 2

func newUses() *uses { return &uses{none: make(chan struct{}, 1)} }

// begin must be followed by end if it returns true. False: it is closed.
func (u *uses) begin() bool {
	if u.count.Add(1) > 0 {
		return true
	}
	u.count.Add(-1)
	return false
}

func (u *uses) end() {
	if u.count.Add(-1) == 0 && u.waiting.Load() {
		select {
		case u.none <- struct{}{}:
		default:
		}
	}
}

// close waits until there is no use, and lets none begin from then on.
func (u *uses) close() {
	u.closing.Do(func() {
		u.waiting.Store(true)
		for !u.count.CompareAndSwap(0, closedUses) {
			<-u.none
		}
	})
}

// streams are the open connections whose protocol has been switched. No server
// closes them at the end of the process: they are not its own any more.
type streams struct {
	mu   sync.Mutex // guards the following fields
	all  map[*stream.Body]struct{}
	over bool // what comes now is closed at once
}

func (s *streams) add(b *stream.Body) {
	s.mu.Lock()
	over := s.over
	if s.all == nil {
		s.all = make(map[*stream.Body]struct{})
	}
	s.all[b] = struct{}{}
	s.mu.Unlock()
	if over {
		goodbye(b)
	}
}

func (s *streams) remove(b *stream.Body) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, b)
}

// leave returns the streams that are open; those that come later are closed as
// they come.
func (s *streams) leave() []*stream.Body {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	all := make([]*stream.Body, 0, len(s.all))
	for b := range maps.Keys(s.all) {
		all = append(all, b)
	}
	return all
}

// goodbye tells a client to connect again, elsewhere or later.
func goodbye(b *stream.Body) { b.CloseWith(statusGoingAway, "the proxy is shutting down") }

// statusGoingAway is RFC 6455's close code of an endpoint that goes away.
const statusGoingAway = 1001
