package pauser_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
)

// TestLead_aPolicyThatChangesHoldsAtOnce changes the idle timeout of a session
// whose record stays as it is, and tells the leader of it as the view does.
func TestLead_aPolicyThatChangesHoldsAtOnce(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after time.Duration
		changeAt      time.Duration
		pausedAt      time.Duration // from the last use on
	}{
		{"a shorter one, in time", 10 * time.Minute, time.Minute, 20 * time.Second, time.Minute},
		{"a shorter one that is over", 10 * time.Minute, time.Minute, 5 * time.Minute, 5 * time.Minute},
		{"a longer one, not too early", time.Minute, 10 * time.Minute, 59 * time.Second, 10 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				var timeout atomic.Int64
				timeout.Store(int64(c.before))
				r.Pauser = pauser.New(r.store, r.host, pauser.Config{
					Node: "n1", Logger: zap.NewNop(), InUse: func(string) []string { return nil },
					IdleTimeout: func(session.Record) time.Duration { return time.Duration(timeout.Load()) },
				})
				r.record(session.Running)
				r.lead()
				used := time.Now()
				time.Sleep(c.changeAt)
				timeout.Store(int64(c.after))
				r.store.change(id, func(*session.Snapshot) {}) // as the view tells
				synctest.Wait()
				time.Sleep(time.Hour)
				calls := r.host.calls()
				if len(calls) != 1 {
					t.Fatalf("%d pause calls, want 1", len(calls))
				}
				if late := calls[0].Sub(used.Add(c.pausedAt)); late < 0 || late > 100*time.Millisecond {
					t.Errorf("paused %s after the last use, want %s", calls[0].Sub(used), c.pausedAt)
				}
			})
		})
	}
}
