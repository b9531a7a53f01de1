package store

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// The times that make a loss of contact known soon enough: a proxy serves
// without the store only after having tried for longer (4 s) than maxSilence,
// and by then the leader must know that its decisions are void.
const (
	beatEvery = time.Second     // unless a third of the TTL is less
	beatTry   = 2 * time.Second // one attempt
)

func maxSilence(ttl time.Duration) time.Duration {
	return beatOf(ttl) + tryOf(ttl) + 500*time.Millisecond
}

func beatOf(ttl time.Duration) time.Duration { return min(beatEvery, ttl/3) }
func tryOf(ttl time.Duration) time.Duration  { return min(beatTry, ttl/3) }

// contact is whether the store can be worked with: the beats of the keeper are
// answered, the watch stands, and it takes writes. Without the last proxies
// serve what they could not ENTER, as where it is away. Each loss raises the epoch, so that two looks at it that
// show the same epoch mean that it was in reach all the time between.
type contact struct {
	log        *zap.Logger
	maxSilence time.Duration

	mu       sync.Mutex // guards the following fields
	epoch    uint64
	lease    bool      // there is one, and the last beat was answered
	watch    bool      // the view is being fed
	room     bool      // it is not over its quota
	lastSent time.Time // when the last answered beat was sent
}

func newContact(log *zap.Logger, maxSilence time.Duration) *contact {
	return &contact{log: log, maxSilence: maxSilence, room: true}
}

// state is what View.Contact gives. It looks at the clock itself: a process
// that was stopped for a while must not believe what it knew before.
func (c *contact) state(now time.Time) (epoch uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsyncedCheckSilence(now)
	return c.epoch, c.unsyncedOK()
}

// c.mu must be held.
func (c *contact) unsyncedOK() bool { return c.lease && c.watch && c.room }

// c.mu must be held.
func (c *contact) unsyncedCheckSilence(now time.Time) {
	if c.lease && now.Sub(c.lastSent) > c.maxSilence {
		c.unsyncedLose(&c.lease, "no answer in time", nil)
	}
}

// c.mu must be held.
func (c *contact) unsyncedLose(part *bool, why string, err error) {
	if c.unsyncedOK() {
		c.log.Warn("lost contact with the store", zap.String("why", why), zap.Error(err))
	}
	if *part {
		c.epoch++
	}
	*part = false
}

// c.mu must be held.
func (c *contact) unsyncedGain(part *bool) {
	was := c.unsyncedOK()
	*part = true
	if !was && c.unsyncedOK() {
		c.log.Info("in contact with the store")
	}
}

// answered notes that a beat sent at the given time was acknowledged.
func (c *contact) answered(sent, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsyncedCheckSilence(now)
	c.lastSent = sent
	c.unsyncedGain(&c.lease)
}

// unanswered notes that a beat failed or that the lease is lost.
func (c *contact) unanswered(why string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsyncedLose(&c.lease, why, err)
}

// watching notes whether the view is being fed; err says why it isn't.
func (c *contact) watching(on bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if on {
		c.unsyncedGain(&c.watch)
	} else {
		c.unsyncedLose(&c.watch, "the watch broke", err)
	}
}

// full notes whether the store is over its quota.
func (c *contact) full(is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if is {
		c.unsyncedLose(&c.room, "it takes no writes", ErrNoSpace)
	} else {
		c.unsyncedGain(&c.room)
	}
}

func (c *contact) isFull() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.room
}
