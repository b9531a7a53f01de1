package e2e_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// Two hosts of one kind are told apart by their names: what sleeps at one is not looked for at the
// other.
func TestTwoHosts_ofOneKind(t *testing.T) {
	t.Parallel()
	hosts := []*sandboxd{startSandboxd(t, ""), startSandboxd(t, "")}
	s := start(t, options{idle: 3 * time.Second, caddyfile: strings.NewReplacer("host {$SANDMAN_HOST:local}\n", fmt.Sprintf(
		"host %s\nhost %s {\nname second\n}\ncheck_every 2s\n", hosts[0].url, hosts[1].url))})
	var ids []string
	var before []appState
	for i, h := range hosts {
		id := h.create(t)
		ids = append(ids, id)
		before = append(before, s.startApp(t, id)) // it is adopted
		if at := s.hostOf(t, id); at != []string{"origin", "second"}[i] {
			t.Errorf("sandbox %s of host %d is taken for one of %q", id, i, at)
		}
	}
	for i, id := range ids {
		s.awaitState(t, readyWithin, id, "PAUSED")
		if got := hosts[i].state(t, id); got != "paused" {
			t.Errorf("host %d says that its sandbox is %s, and not that it sleeps", i, got)
		}
		requireContinued(t, before[i], s.mustAsk(t, id), 1)
		s.pause(t, id)
		requireContinued(t, before[i], s.mustAsk(t, id), 2)
	}
	sweeps := s.sweeps(t)
	eventually(t, readyWithin, "two more sweeps", func() bool { return s.sweeps(t) >= sweeps+2 })
	for _, id := range ids {
		for _, line := range s.history(t, id) {
			if line.To == "KILLED" {
				t.Errorf("sandbox %s was taken for gone: %+v", id, line)
			}
		}
	}
}

// hostOf is the name of the host that a sandbox is known at.
func (s *sandman) hostOf(t *testing.T, id string) string {
	t.Helper()
	var r struct {
		Host string `json:"host"`
	}
	a := s.call(t, http.MethodGet, "/sandboxes/"+id, "")
	a.decode(t, &r)
	return r.Host
}

// sweeps is how many comparisons of all records with the hosts' lists have been made.
func (s *sandman) sweeps(t *testing.T) (n int) {
	t.Helper()
	var page struct {
		Runs []struct {
			Kind   string   `json:"kind"`
			Errors []string `json:"errors"`
		} `json:"runs"`
	}
	a := s.call(t, http.MethodGet, "/runs?limit=500", "")
	a.decode(t, &page)
	for _, r := range page.Runs {
		if r.Kind == "sweep" {
			n++
		}
		for _, e := range r.Errors {
			t.Errorf("a %s failed: %s", r.Kind, e)
		}
	}
	return n
}
