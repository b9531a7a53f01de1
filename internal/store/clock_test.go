package store

import (
	"testing"
	"time"

	"go.uber.org/zap"
)

// A process that was stopped must not go on with what it knew before, even if
// it looks before its own keep-alives do. (White box: the clock is passed in.)
func TestContact_whenTheProcessWasStopped(t *testing.T) {
	t.Parallel()
	began := time.Now()
	at := func(d time.Duration) time.Time { return began.Add(d) }
	inContact := func() *contact {
		c := newContact(zap.NewNop(), maxSilence(DefaultLeaseTTL))
		c.watching(true, nil)
		c.answered(at(0), at(0))
		return c
	}
	if limit := maxSilence(DefaultLeaseTTL); limit >= 4*time.Second {
		t.Errorf("proxies serve without the store after 4 s, and %s may pass unnoticed", limit)
	}
	t.Run("whoever looks notices", func(t *testing.T) {
		c := inContact()
		before, ok := c.state(at(3 * time.Second))
		if !ok {
			t.Fatal("out of contact after 3 s")
		}
		if after, ok := c.state(at(4 * time.Second)); ok || after != before+1 {
			t.Errorf("epoch %d, ok %t after a silence of 4 s", after, ok)
		}
		if again, _ := c.state(at(5 * time.Second)); again != before+1 {
			t.Errorf("one silence has raised the epoch by %d", again-before)
		}
	})
	t.Run("so does the next answer", func(t *testing.T) {
		c := inContact()
		c.answered(at(4*time.Second), at(4*time.Second))
		if epoch, ok := c.state(at(4 * time.Second)); !ok || epoch != 1 {
			t.Errorf("epoch %d, ok %t", epoch, ok)
		}
	})
	t.Run("an answer counts from its sending", func(t *testing.T) {
		c := inContact()
		c.answered(at(time.Second), at(3*time.Second))
		if _, ok := c.state(at(5 * time.Second)); ok {
			t.Error("in contact 4 s after the sending")
		}
	})
	t.Run("every loss counts once", func(t *testing.T) {
		c := inContact()
		c.watching(false, nil)
		c.watching(false, nil)
		c.unanswered("lease lost", nil)
		c.unanswered("lease lost", nil)
		c.watching(true, nil)
		if epoch, ok := c.state(at(time.Second)); ok || epoch != 2 {
			t.Errorf("epoch %d, ok %t, want 2 and no lease", epoch, ok)
		}
	})
}
