package activity_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandman-proxy/sandman/internal/activity"
)

// TestTracker_neverCountsAVisitWithoutPresence lets visits, slow and lost
// answers, lapses, wakes, drains and settings interleave at random, by a clock
// of its own, and looks at the promise at every LEAVE that lands: nothing counts
// while presence goes. Whatever happened, in the end nothing counts and no
// presence is left.
func TestTracker_neverCountsAVisitWithoutPresence(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { newStorm(t, seed).run() })
		})
	}
}

type storm struct {
	*rig
	mu    sync.Mutex // guards the following field
	rand  *rand.Rand
	ended atomic.Bool // no more faults
}

func newStorm(t *testing.T, seed uint64) *storm {
	m := newMemory()
	s := &storm{rand: rand.New(rand.NewPCG(seed, 4))}
	m.slow = s.slow
	s.rig = newRig(t, m)
	m.deleted = func() {
		if requests, streams := s.InUse(id); requests+streams > 0 {
			t.Errorf("a LEAVE landed while %d requests and %d streams count, want none", requests, streams)
		}
	}
	s.lost = func(ctx context.Context) {
		v := s.Begin(id, "request")
		defer v.End()
		s.ensure(ctx, v)
	}
	return s
}

func (s *storm) upTo(d time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.rand.Int64N(int64(d)))
}

func (s *storm) chance(percent int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rand.IntN(100) < percent
}

// slow makes one call in three slow, and loses one answer in ten.
func (s *storm) slow(string) (before, after time.Duration, err error) {
	if s.ended.Load() {
		return 0, 0, nil
	}
	if s.chance(33) {
		before, after = s.upTo(time.Second), s.upTo(1500*time.Millisecond)
	}
	if s.chance(10) {
		err = errors.New("the answer is lost")
	}
	return before, after, err
}

func (s *storm) run() {
	var all sync.WaitGroup
	for range 4 {
		all.Go(s.visitor)
	}
	all.Go(s.world)
	all.Wait()
	s.ended.Store(true)
	s.Resume(id)
	time.Sleep(5 * time.Second)
	synctest.Wait()
	s.wantInUse("all visits have ended", 0, 0)
	s.wantPresent("all visits have ended", false)
	s.stop()
}

// visitor makes 15 visits of all kinds.
func (s *storm) visitor() {
	for range 15 {
		v := s.Begin(id, "request")
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second+s.upTo(20*time.Second))
		if lease := s.store.lease.Load(); s.ensure(ctx, v) {
			// a lapse ends the lease first
			if s.store.presence.Load() == 0 && s.store.lease.Load() == lease {
				s.t.Error("a request counts and no presence stands, want it there: no lease has lapsed")
			}
			if s.chance(30) {
				v.Stream("websocket")
			} else {
				v.Answer()
			}
			for range s.upTo(5) {
				time.Sleep(s.upTo(400 * time.Millisecond))
				if !v.Bump() && !s.ensure(ctx, v) {
					break
				}
			}
		}
		v.End()
		cancel()
		time.Sleep(s.upTo(3 * time.Second))
	}
}

// ensure is what waking does under a RUNNING record.
func (s *storm) ensure(ctx context.Context, v *activity.Visit) bool {
	for ctx.Err() == nil {
		if v.Try() {
			return true
		}
		s.store.mu.Lock()
		rev := s.store.record
		s.store.mu.Unlock()
		if v.Enter(ctx, rev) == nil {
			return true
		}
		_ = pause(ctx, 50*time.Millisecond)
	}
	return false
}

// world changes settings, ends leases, wakes, doubts, and begins pauses.
func (s *storm) world() {
	for lease := int64(2); lease < 60; lease++ {
		time.Sleep(s.upTo(1500 * time.Millisecond))
		switch {
		case s.chance(25):
			s.store.run()
		case s.chance(15):
			s.store.lapse(lease)
		case s.chance(20):
			s.wake()
		case s.chance(20):
			s.Doubt(id)
		default:
			s.Drain(id)
			time.Sleep(s.upTo(time.Second))
			s.store.run()
			s.Resume(id)
		}
	}
}

// wake puts presence as the end of a resume does; the watch may be quicker than
// the answer.
func (s *storm) wake() {
	s.store.mu.Lock()
	s.store.record = s.store.rev.Add(1)
	p := activity.Presence{Revision: s.store.record, Lease: s.store.lease.Load()}
	s.store.presence.Store(p.Revision)
	s.store.mu.Unlock()
	s.Observe(id)
	time.Sleep(s.upTo(600 * time.Millisecond))
	s.Entered(id, p, "wake")
}
