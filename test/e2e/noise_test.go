package e2e_test

import (
	"net/http"
	"testing"
	"time"
)

// What no person sends neither keeps a sandbox awake nor wakes it, and reaches it while it runs.
func TestNoise_requestsNeitherCountNorWake(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, faults string
	}{{"on the local host", ""}, {"on a host that cuts connections", "cut_connections"}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := options{idle: 3 * time.Second, caddyfile: with("noise poll {", "match {", "path /state", "header X-Poll *", "}", "}")}
			if test.faults != "" {
				o.host = startSandboxd(t, test.faults).url
			}
			s := start(t, o)
			id, _ := s.startAppIn(t)
			poll := func(path string) answer {
				return s.mustDo(t, s.asks(t, id, http.MethodGet, path, headers{"X-Poll": "1"}))
			}
			poll("/state").require(t, http.StatusOK)
			lastUse := time.Now()
			s.mustAsk(t, id)
			polls := 0
			eventually(t, s.idle+late, "a sandbox that sleeps under polls", func() bool {
				a := poll("/state")
				if polls++; a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
					t.Errorf("a poll: %s", a)
				}
				time.Sleep(200 * time.Millisecond)
				return s.record(t, id).State == "PAUSED"
			})
			if early := s.idle - time.Since(lastUse); early > 0 || polls < 3 {
				t.Errorf("it fell asleep %s early, after %d polls", early, polls)
			}
			requireProblem(t, poll("/state"), http.StatusServiceUnavailable)
			s.requireAsleep(t, id, 0)
			poll("/file").require(t, http.StatusOK) // another path wakes it
		})
	}
}

// A request that is noise and waits for its answer holds up no pause, and fails in no loud way.
func TestNoise_isOvertakenByAPause(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, faults string
		status       int // of the poll that is overtaken
	}{{"on the local host", "", http.StatusOK}, {"on a host that cuts connections", "cut_connections", http.StatusServiceUnavailable}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := options{caddyfile: with("noise {", "path /gate", "}")}
			if test.faults != "" {
				o.host = startSandboxd(t, test.faults).url
			}
			s := start(t, o)
			id, _ := s.startAppIn(t)
			got := make(chan result, 1)
			slow := s.asks(t, id, http.MethodGet, "/gate", nil)
			go func() {
				a, err := s.do(slow)
				got <- result{a, err}
			}()
			eventually(t, late, "a poll at the app", func() bool { return s.mustAskFor(t, id, "/waiting") == "1" })
			s.pause(t, id) // is refused while a request is in flight that counts
			if test.status == http.StatusOK {
				s.mustAskFor(t, id, "/open")
			}
			select {
			case r := <-got:
				if r.err != nil || r.answer.status != test.status {
					t.Errorf("the poll that was overtaken: %v, %s", r.err, r.answer)
				}
			case <-time.After(10 * time.Second):
				t.Error("the poll that was overtaken was never answered")
			}
		})
	}
}

func (s *sandman) mustAskFor(t *testing.T, id, path string) string {
	t.Helper()
	a := s.mustDo(t, s.asks(t, id, http.MethodGet, path, nil))
	a.require(t, http.StatusOK)
	return a.body
}
