package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSandbox_sleepsWhenIdleAndWakesAsItWas(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second})
	id, _ := s.startAppIn(t)
	lastUse := time.Now()
	before := s.mustAsk(t, id)
	s.requirePausedOnTime(t, id, lastUse)
	if state := s.state(t, id); state != "paused" {
		t.Errorf("the E2B API says %q of a sandbox that sleeps", state)
	}
	requireStill(t, filepath.Join(before.Home, "ticks"))

	after := s.mustAsk(t, id)
	requireContinued(t, before, after, 1)
	if asleep := time.Duration(after.Ticks-before.Ticks) * 50 * time.Millisecond; asleep > s.idle+late {
		t.Errorf("its ticker counted %s of wakefulness in between", asleep)
	}
	if r := s.record(t, id); r.State != "RUNNING" || r.Totals.Wakes != 1 || r.Totals.Pauses != 1 {
		t.Errorf("after one sleep and one wake the record is %+v", r)
	}
	eventually(t, time.Second, "a ticker that ticks again", func() bool { return s.mustAsk(t, id).Ticks > after.Ticks })
}

// requirePausedOnTime watches the sandbox from its last use on, and fails the test if it is put to
// sleep before its idle timeout is over, or later than allowed. The time of the last use must have been
// taken before the last byte passed: one of a moment after it would find every pause early. Where a
// busy machine let the store be silent for seconds meanwhile, the pause may be a settle period later.
func (s *sandman) requirePausedOnTime(t *testing.T, id string, lastUse time.Time) {
	t.Helper()
	before := s.contacts()
	for {
		state, quiet := s.record(t, id).State, time.Since(lastUse)
		switch {
		case state != "RUNNING" && quiet < s.idle:
			t.Fatalf("%s only %s after its last use, with an idle timeout of %s", state, quiet, s.idle)
		case state == "PAUSED":
			t.Logf("asleep %s after its last use, with an idle timeout of %s", quiet, s.idle)
			return
		case quiet > s.idle+late && (s.contacts() == before || quiet > s.idle+late+settled):
			t.Fatalf("still %s %s after its last use, with an idle timeout of %s: %s", state, quiet, s.idle, s.why(t, id))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// contacts counts how often contact with the store was lost or made.
func (s *sandman) contacts() int {
	log := s.process.log.String()
	return strings.Count(log, "lost contact with the store") + strings.Count(log, "in contact with the store")
}

// requireStill fails the test if the file grows within ten ticks: then something in the sandbox runs.
func requireStill(t *testing.T, name string) {
	t.Helper()
	before := fileSize(t, name)
	time.Sleep(500 * time.Millisecond)
	if after := fileSize(t, name); before == 0 || after != before {
		t.Errorf("in a sandbox that sleeps a ticker went from %d to %d", before, after)
	}
}

func fileSize(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
