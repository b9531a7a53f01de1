package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// SANDMAN_E2E_CYCLES asks for a longer form than the suite's.
const (
	defaultCycles    = 50
	manySandboxes    = 20
	cyclesOfEachMany = 3
)

func TestCycles_loseNothing(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, before := s.startAppIn(t)
	for n := range cycles(t) {
		s.pause(t, id)
		after, err := s.ask(t.Context(), id)
		if err != nil {
			t.Fatalf("cycle %d: %v", n, err)
		}
		requireContinued(t, before, after, 1)
		before = after
	}
	if r := s.record(t, id); r.Totals.Pauses != cycles(t) || r.Totals.Wakes != cycles(t) {
		t.Errorf("after %d cycles the record's totals are %+v", cycles(t), r.Totals)
	}
}

func TestManySandboxes_sleepAndWakeAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	n := manySandboxes
	if os.Getenv("SANDMAN_E2E_CYCLES") != "" {
		n = 50
	}
	before := make(map[string]appState)
	for range n {
		id, state := s.startAppIn(t)
		before[id] = state
	}
	for range cyclesOfEachMany {
		inParallel(t, before, func(id string, _ appState) error { return s.tryPause(t, id) })
		var mu sync.Mutex // guards after
		after := make(map[string]appState)
		inParallel(t, before, func(id string, _ appState) error {
			state, err := s.ask(t.Context(), id)
			mu.Lock()
			defer mu.Unlock()
			after[id] = state
			return err
		})
		for id := range before {
			requireContinued(t, before[id], after[id], 1)
		}
		before = after
	}
}

func cycles(t *testing.T) int {
	t.Helper()
	value := os.Getenv("SANDMAN_E2E_CYCLES")
	if value == "" {
		return defaultCycles
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("SANDMAN_E2E_CYCLES: %v", err)
	}
	return n
}

// tryPause is pause for any goroutine.
func (s *sandman) tryPause(t *testing.T, id string) error {
	a, err := s.do(s.apiRequest(t, http.MethodPost, "/sandboxes/"+id+"/pause", ""))
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("pausing sandbox %s: %s", id, a)
	}
	return err
}

// inParallel does the same for all sandboxes at once, and fails the test with each error.
func inParallel[V any](t *testing.T, of map[string]V, do func(id string, v V) error) {
	t.Helper()
	failures := make(chan error, len(of))
	for id, v := range of {
		go func() { failures <- do(id, v) }()
	}
	for range of {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// pauseMoments are the offsets from the call of a pause at which the tests send a request, from a
// little before to well after one that takes as long as said.
func pauseMoments(pause time.Duration) []time.Duration {
	step := max(pause/12, time.Millisecond)
	var moments []time.Duration
	for at := -4 * step; at < pause+8*step; at += step {
		moments = append(moments, at)
	}
	return moments
}
