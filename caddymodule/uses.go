package caddymodule

import (
	"math"
	"sync"
	"sync/atomic"
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
