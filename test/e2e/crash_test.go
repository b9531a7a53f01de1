package e2e_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/failpoint"
)

const (
	crashIdle = 2 * time.Second

	// recovered is within what a Sandman that was killed is right again: the lease's time and 5 s.
	recovered = 15 * time.Second
)

// Wherever a Sandman is killed, the next one on the same data finds the sandbox as it was, answers
// the first request, and lets it sleep when nobody uses it.
func TestCrash_atEveryStepLosesNothing(t *testing.T) {
	t.Parallel()
	for _, mark := range failpoint.Names() {
		t.Run(mark, func(t *testing.T) {
			t.Parallel()
			before, s, id := crash(t, mark)
			requireSurvived(t, before, s.mustAsk(t, id))
			s.awaitState(t, recovered+crashIdle+late, id, "PAUSED")
			requireSurvived(t, before, s.mustAsk(t, id))
		})
	}
}

// Nobody needs to come by for an unfinished pause or wake to end.
func TestCrash_isSettledWithoutARequest(t *testing.T) {
	t.Parallel()
	for _, mark := range []string{
		failpoint.SleepDone, failpoint.DrainDone, failpoint.CutDone, failpoint.CallBegin, failpoint.CallDone,
		failpoint.WakeDone, failpoint.ConnectDone,
	} {
		t.Run(mark, func(t *testing.T) {
			t.Parallel()
			before, s, id := crash(t, mark)
			eventually(t, recovered, "the end of what was begun", func() bool {
				state := s.record(t, id).State
				return state == "RUNNING" || state == "PAUSED"
			})
			s.awaitState(t, crashIdle+late, id, "PAUSED")
			if state := s.state(t, id); state != "paused" {
				t.Errorf("the record is PAUSED and the host says %s", state)
			}
			requireSurvived(t, before, s.mustAsk(t, id))
		})
	}
}

// crash makes a sandbox, lets a Sandman die at the mark, and starts the next one.
func crash(t *testing.T, mark string) (before appState, s *sandman, id string) {
	t.Helper()
	data := filepath.Join(shortDir(t), "d")
	first := start(t, options{data: data})
	id, before = first.startAppIn(t)
	waking := mark == failpoint.WakeBegin || mark == failpoint.WakeDone || mark == failpoint.ConnectDone || mark == failpoint.ResumeDone
	if waking {
		first.pause(t, id)
	}
	first.process.end(t)

	dying := start(t, options{data: data, idle: crashIdle, failpoint: mark})
	provoke(t, dying, id, mark)
	select {
	case <-dying.process.done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s was never reached", mark)
	}
	return before, start(t, options{data: data, idle: crashIdle}), id
}

// provoke does what leads to the mark. Its requests may die with the Sandman.
func provoke(t *testing.T, s *sandman, id, mark string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	try := func(r *http.Request) {
		go func() {
			if res, err := s.http.Do(r.WithContext(ctx)); err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		}()
	}
	switch mark {
	case failpoint.SleepBegin, failpoint.SleepDone, failpoint.CallBegin, failpoint.CallDone, failpoint.PauseDone:
		// it becomes idle by itself
	case failpoint.DrainDone:
		try(s.apiRequest(t, http.MethodPost, "/sandboxes/"+id+"/pause", ""))
	case failpoint.CutDone:
		s.beginDownload(t, id, 60) // dies with the Sandman
		try(s.apiRequest(t, http.MethodPost, "/sandboxes/"+id+"/pause?force=true", ""))
	default:
		try(s.request(ctx, http.MethodGet, id, appPort, "/state", nil))
	}
}

// requireSurvived fails the test unless it is the same process with the same memory and file. How
// often it has answered is not known: the last answer may have died with the Sandman.
func requireSurvived(t *testing.T, before, after appState) {
	t.Helper()
	if after.Pid != before.Pid || after.Memory != before.Memory || after.Counter <= before.Counter || after.Lines != after.Counter {
		t.Fatalf("the sandbox did not survive:\nbefore %+v\nafter  %+v", before, after)
	}
}

// failpointBinary builds the Sandman that can be told to die.
var failpointBinary = sync.OnceValues(func() (string, error) {
	name := filepath.Join(filepath.Dir(sandmanBinary), "sandman-failpoints")
	args := []string{"build", "-tags", "failpoints", "-o", name}
	if os.Getenv("SANDMAN_E2E_RACE") != "" {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/sandman")...)
	cmd.Dir = repository
	return name, cmd.Run()
})
