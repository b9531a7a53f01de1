package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// many is how many sandboxes the host of TestBadDay_aHostOfMany has. SANDMAN_E2E_MANY can make it
// 100000, for which it takes up to twenty minutes on two cores:
//
//	SANDMAN_E2E_MANY=100000 go test -run TestBadDay_aHostOfMany -timeout 30m -v ./test/e2e
func many(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("SANDMAN_E2E_MANY"))
	if err != nil {
		return 2000
	}
	return n
}

// A host that has many more sandboxes than anybody uses: they are all taken over, page by page, while
// the one in use is served, and nothing becomes of any of them.
func TestBadDay_aHostOfMany(t *testing.T) {
	t.Parallel()
	n := many(t)
	dir := shortDir(t)
	writePaused(t, dir, n)
	began := time.Now()
	host := runSandboxd(t, dir, "")
	t.Logf("%d sandboxes: the host is up after %s", n, time.Since(began))
	s := start(t, options{idle: clusterIdle, host: host.url, caddyfile: strings.NewReplacer("idle_timeout ", "check_every 2s\n\t\tidle_timeout ")})
	t.Cleanup(func() { s.process.end(t) }) // before all of them are killed through it

	id, before := s.startAppIn(t)
	t.Cleanup(func() { host.rest(t, http.MethodDelete, "/sandboxes/"+id, "") })
	stop := s.measureUse(t, id)
	began = time.Now()
	perThousand := 10 * time.Second
	eventually(t, settled+time.Duration(n/1000)*perThousand, "all to be known", func() bool { return s.states(t)["PAUSED"] == n })
	t.Logf("they are known after %s, with %d MB", time.Since(began), s.memory(t)>>20)

	began = time.Now()
	if got := s.allOfE2B(t); got != n+1 {
		t.Errorf("the E2B list has %d, want %d", got, n+1)
	}
	t.Logf("the E2B list took %s", time.Since(began))
	began = time.Now()
	if got := s.allOfAPI(t); got != n+1 {
		t.Errorf("the API's list has %d, want %d", got, n+1)
	}
	t.Logf("the API's list took %s", time.Since(began))

	time.Sleep(3 * time.Second) // for a sweep that finds all of them known
	longest := stop()
	t.Logf("the longest request took %s; %d MB", longest, s.memory(t)>>20)
	if longest > late {
		t.Errorf("a request took %s", longest)
	}
	if counts := s.states(t); counts["PAUSED"] != n || counts["RUNNING"] != 1 || len(counts) != 2 {
		t.Errorf("there are %v", counts)
	}
	if ok, why := s.hostHealth(t); !ok {
		t.Errorf("the host is said to be ill: %s", why)
	}
	if memory, limit := s.memory(t), 300<<20+n*10<<10; memory > limit {
		t.Errorf("it takes %d MB, more than %d", memory>>20, limit>>20)
	}
	if after := s.mustAsk(t, id); after.Pid != before.Pid || after.Memory != before.Memory {
		t.Errorf("the one in use is %+v, was %+v", after, before)
	}
	s.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	if a := s.rest(t, http.MethodPost, "/sandboxes/"+manyID(n/2)+"/connect", `{"timeout":60}`); a.status != http.StatusCreated {
		t.Errorf("resuming one of them: %s", a)
	}
	host.rest(t, http.MethodDelete, "/sandboxes/"+manyID(n/2), "")
}

func manyID(i int) string { return fmt.Sprintf("imany%06d", i) }

// writePaused leaves n paused sandboxes, of which only the files were kept, in a host's folder.
func writePaused(t *testing.T, dir string, n int) {
	t.Helper()
	at := time.Now().Add(-time.Hour).UTC()
	for i := range n {
		folder := filepath.Join(dir, "data", "sandboxes", manyID(i))
		rec, err := json.Marshal(map[string]any{
			"id": manyID(i), "templateID": "base", "state": "paused", "autoPause": true, "metadata": map[string]string{"userId": "many"},
			"createdAt": at, "startedAt": at.Add(time.Duration(i/10) * time.Millisecond), "endAt": at.Add(time.Minute), // ten at a time
		})
		if err == nil {
			err = os.MkdirAll(filepath.Join(folder, "home"), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, "state.json"), rec, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// measureUse asks a sandbox all the time, ten times a second; stop tells how long the longest took.
func (s *sandman) measureUse(t *testing.T, id string) (stop func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan time.Duration, 1)
	go func() {
		var longest time.Duration
		for ctx.Err() == nil {
			began := time.Now()
			if _, err := s.ask(ctx, id); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			longest = max(longest, time.Since(began))
			time.Sleep(100 * time.Millisecond)
		}
		done <- longest
	}()
	return func() time.Duration { cancel(); return <-done }
}

// allOfE2B counts what the pages of the E2B list have, as an SDK reads them.
func (s *sandman) allOfE2B(t *testing.T) int {
	t.Helper()
	seen := map[string]bool{}
	for next := ""; ; {
		a := s.rest(t, http.MethodGet, "/v2/sandboxes?limit=100&nextToken="+url.QueryEscape(next), "")
		var page []struct {
			SandboxID string `json:"sandboxID"`
		}
		a.decode(t, &page)
		for _, sb := range page {
			if seen[sb.SandboxID] {
				t.Errorf("%s is listed twice", sb.SandboxID)
			}
			seen[sb.SandboxID] = true
		}
		if next = a.header.Get("X-Next-Token"); next == "" || len(page) == 0 {
			return len(seen)
		}
	}
}

// allOfAPI counts what the pages of Sandman's own list have.
func (s *sandman) allOfAPI(t *testing.T) int {
	t.Helper()
	seen := map[string]bool{}
	for after := ""; ; {
		var page struct {
			Sandboxes []record `json:"sandboxes"`
			Next      string   `json:"next"`
		}
		s.call(t, http.MethodGet, "/sandboxes?limit=1000&after="+url.QueryEscape(after), "").decode(t, &page)
		for _, sb := range page.Sandboxes {
			seen[sb.SandboxID] = true
		}
		if after = page.Next; after == "" {
			return len(seen)
		}
	}
}

// memory is what the process has resident, in bytes; 0 where there is no /proc.
func (s *sandman) memory(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kb, _ := strconv.Atoi(strings.Fields(after)[0])
	return kb << 10
}
