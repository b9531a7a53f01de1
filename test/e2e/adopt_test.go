package e2e_test

import (
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// A sandbox that was made straight at the host is adopted on its first request, asleep or awake, and
// from then on it is like any other.
func TestSandbox_thatOnlyTheHostKnowsIsAdoptedOnItsFirstRequest(t *testing.T) {
	t.Parallel()
	host := startSandboxd(t, "")
	s := start(t, options{host: host.url, idle: 3 * time.Second})
	awake := host.create(t)
	before := host.startApp(t, awake)
	lastUse := time.Now()
	requireContinued(t, before, s.mustAsk(t, awake), 1)
	s.requirePausedOnTime(t, awake, lastUse)
	requireContinued(t, before, s.mustAsk(t, awake), 2)

	asleep := host.create(t)
	before = host.startApp(t, asleep)
	host.pauseBehindOurBack(t, asleep)
	requireContinued(t, before, s.mustAsk(t, asleep), 1)
	if r := s.record(t, asleep); r.State != "RUNNING" || r.Totals.Wakes != 1 {
		t.Errorf("a sandbox that was adopted asleep and woken: %+v", r)
	}
}

// What was kept on disk is found again: the records, the sandboxes with their processes as they were,
// and those that sleep still sleep.
func TestRestart_findsSandboxesAndCountersAsTheyWere(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*process, *testing.T){
		"ended":  (*process).end,
		"killed": func(p *process, _ *testing.T) { p.kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(shortDir(t), "d")
			s := start(t, options{data: dir})
			awake, awakeBefore := s.startAppIn(t)
			asleep, asleepBefore := s.startAppIn(t)
			for _, id := range []string{awake, asleep} {
				s.pause(t, id)
			}
			requireContinued(t, awakeBefore, s.mustAsk(t, awake), 1)
			stop(s.process, t)

			again := start(t, options{data: dir})
			if r := again.record(t, awake); r.State != "RUNNING" || r.Totals.Pauses != 1 || r.Totals.Wakes != 1 {
				t.Errorf("after a restart the sandbox that ran is %+v", r)
			}
			if r := again.record(t, asleep); r.State != "PAUSED" || r.Totals.Pauses != 1 || r.Totals.Wakes != 0 {
				t.Errorf("after a restart the sandbox that slept is %+v", r)
			}
			requireStill(t, filepath.Join(asleepBefore.Home, "ticks"))
			requireContinued(t, awakeBefore, again.mustAsk(t, awake), 2)
			lastUse := time.Now()
			requireContinued(t, asleepBefore, again.mustAsk(t, asleep), 1)
			if r := again.record(t, asleep); r.Totals.Wakes != 1 {
				t.Errorf("the totals do not go on from what they were: %+v", r)
			}
			// nothing that the first one was serving keeps them awake
			began := time.Now()
			again.pause(t, awake)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("a pause by hand after a restart took %s", took)
			}
			again.configure(t, asleep, `{"idleTimeout":"3s"}`)
			again.idle = 3 * time.Second
			again.requirePausedOnTime(t, asleep, lastUse)
		})
	}
}

// The SDK's isRunning, which monitors call, looks and does not touch.
func TestIsRunning_neitherWakesNorCounts(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second})
	id, before := s.startAppIn(t)
	lastUse := time.Now()
	requireContinued(t, before, s.mustAsk(t, id), 1)
	health := func() int {
		r := newRequest(t, http.MethodGet, s.data+"/health", nil)
		r.Header.Set("E2b-Sandbox-Id", id)
		r.Header.Set("E2b-Sandbox-Port", "49983")
		return s.mustDo(t, r).status
	}
	if status := health(); status != http.StatusNoContent && status != http.StatusOK {
		t.Fatalf("the health of a sandbox that runs: %d", status)
	}
	for time.Since(lastUse) < s.idle/2 {
		health()
	}
	s.requirePausedOnTime(t, id, lastUse)
	if status := health(); status != http.StatusBadGateway {
		t.Errorf("the health of a sandbox that sleeps: %d", status)
	}
	if r := s.record(t, id); r.State != "PAUSED" || r.Totals.Wakes != 0 {
		t.Errorf("after a look at its health the sandbox is %+v", r)
	}
	requireContinued(t, before, s.mustAsk(t, id), 2)
}
