package e2e_test

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Two local hosts share one machine, and so the addresses of loopback. One is killed while its
// sandboxes run on: nothing that the other makes may ever be answered by one of those.
func TestTwoLocalHosts_neverMeet(t *testing.T) {
	t.Parallel()
	const each = 8
	dir := shortDir(t)
	first := start(t, options{data: filepath.Join(dir, "first")})
	orphans := first.startApps(t, each)
	first.process.kill()

	second := start(t, options{data: filepath.Join(dir, "second")})
	own := second.startApps(t, each)
	for id, state := range own {
		if !strings.HasPrefix(state.Home, second.dir) {
			t.Errorf("sandbox %s of the second host was answered from %s", id, state.Home)
		}
		if answered, err := second.ask(t.Context(), id); err != nil || answered.Pid != state.Pid {
			t.Errorf("sandbox %s of the second host was process %d and now answers %+v, %v", id, state.Pid, answered, err)
		}
	}
	for id := range orphans {
		a := second.mustDo(t, second.request(t.Context(), http.MethodGet, id, appPort, "/state", nil))
		requireProblem(t, a, http.StatusNotFound)
	}

	// the first one comes back and finds its own as they were
	again := start(t, options{data: first.dir})
	for id, before := range orphans {
		requireContinued(t, before, again.mustAsk(t, id), 1)
		again.pause(t, id)
		requireContinued(t, before, again.mustAsk(t, id), 2)
	}
}

// startApps makes n sandboxes with the app in each.
func (s *sandman) startApps(t *testing.T, n int) map[string]appState {
	t.Helper()
	states := make(map[string]appState)
	for range n {
		id, state := s.startAppIn(t)
		states[id] = state
	}
	return states
}

func TestLocalHost_refusesToShareItsFolder(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, before := s.startAppIn(t)
	cmd := exec.CommandContext(t.Context(), sandmanBinary, "run", "--config", filepath.Join(repository, "Caddyfile"))
	cmd.Dir = filepath.Dir(s.dir)
	cmd.Env = append(s.process.cmd.Env, "SANDMAN_PORT=0")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), s.dir) {
		t.Errorf("a second Sandman on the same folder: %v, without a word on %s:\n%s", err, s.dir, out)
	}
	requireContinued(t, before, s.mustAsk(t, id), 1)
}
