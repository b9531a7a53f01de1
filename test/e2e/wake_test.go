package e2e_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// A visitor who leaves takes nothing along: the wake that it began goes on, and others have its good.
func TestWake_outlivesTheVisitorWhoBeganIt(t *testing.T) {
	t.Parallel()
	host := startSandboxd(t, "resume_delay=2s")
	counter := startCounter(t, host.url)
	s := start(t, options{host: counter.url})
	id, before := s.startAppIn(t)
	s.pause(t, id)
	counter.connects.Store(0)

	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := s.ask(ctx, id)
		left <- err
	}()
	s.awaitState(t, time.Second, id, "RESUMING")
	leave()
	if err := <-left; err == nil {
		t.Error("the visitor was answered before it left")
	}
	s.awaitState(t, 10*time.Second, id, "RUNNING")
	requireContinued(t, before, s.mustAsk(t, id), 1)
	if n := counter.connects.Load(); n != 1 {
		t.Errorf("%d connects, where one had to be enough", n)
	}
}

// Awake is not ready: an app that begins to listen only after the wake is waited for.
func TestWake_waitsForThePort(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id := s.create(t)
	s.run(t, id, "mkfifo go; setsid sh -c 'read _ <go; exec "+appBinary+"' >app.log 2>&1 </dev/null &")
	s.pause(t, id)
	answered := make(chan error, 1)
	go func() {
		_, err := s.ask(t.Context(), id)
		answered <- err
	}()
	s.awaitState(t, 5*time.Second, id, "RUNNING")
	select {
	case err := <-answered:
		t.Fatalf("answered before the app listens: %v", err)
	case <-time.After(300 * time.Millisecond): // some tries of the port
	}
	s.run(t, id, "echo >go")
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// A host that does not resume is not stormed, and whoever asks is told when to come again.
func TestWake_thatFailsIsSaidWithRetryAfter(t *testing.T) {
	t.Parallel()
	counter := startCounter(t, startSandboxd(t, "connect_fail").url)
	s := start(t, options{host: counter.url})
	id, _ := s.startAppIn(t)
	s.pause(t, id)
	counter.connects.Store(0)
	person := make(chan result, 1)
	navigation := s.navigation(t, id)
	go func() {
		a, err := s.do(navigation)
		person <- result{a, err}
	}()
	program := s.mustDo(t, s.request(t.Context(), http.MethodGet, id, appPort, "/state", nil))
	requireProblem(t, program, http.StatusServiceUnavailable)
	page := <-person
	if page.err != nil {
		t.Fatal(page.err)
	}
	requirePage(t, page.answer, http.StatusServiceUnavailable)
	for _, a := range []answer{program, page.answer} {
		if a.header.Get("Retry-After") == "" || !strings.Contains(a.header.Get("Cache-Control"), "no-store") {
			t.Errorf("it lacks Retry-After or no-store: %v", a.header)
		}
	}
	if r := s.record(t, id); r.State != "PAUSED" {
		t.Errorf("a sandbox that could not be woken is %+v", r)
	}
	if n := counter.connects.Load(); n < 2 || n > 6 {
		t.Errorf("the host was asked %d times within half a minute", n)
	}
}

func TestIdleTimeout_ofOneSandboxIsObeyed(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, before := s.startAppIn(t)
	s.configure(t, id, `{"idleTimeout":"3s"}`)
	lastUse := time.Now()
	requireContinued(t, before, s.mustAsk(t, id), 1)
	if r := s.record(t, id); r.IdleTimeout != "3s" {
		t.Errorf("its idle timeout is shown as %q", r.IdleTimeout)
	}
	s.idle = 3 * time.Second
	s.requirePausedOnTime(t, id, lastUse)
	lines := s.history(t, id)
	if want := "idle for 3s"; !slices.ContainsFunc(lines, func(l historyLine) bool { return l.To == "PAUSED" && l.Reason == want }) {
		t.Errorf("no line of the history says that it was %s: %+v", want, lines)
	}

	requireContinued(t, before, s.mustAsk(t, id), 2)
	s.configure(t, id, `{"idleTimeout":null}`)
	if r := s.record(t, id); r.IdleTimeout != "10m0s" {
		t.Errorf("without a timeout of its own it has %q", r.IdleTimeout)
	}
}

// The API tells what keeps a sandbox awake, and until when where nothing does.
func TestAPI_saysWhatKeepsASandboxAwakeAndUntilWhen(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 5 * time.Second})
	id, _ := s.startAppIn(t)
	download := s.beginDownload(t, id, 3)
	var ended time.Time
	for ended.IsZero() {
		select {
		case got := <-download:
			if got.err != nil {
				t.Fatal(got.err)
			}
			ended = got.answer.lastByte(t)
		case <-time.After(100 * time.Millisecond):
			r := s.record(t, id)
			if len(download) > 0 {
				continue // it ended while we asked
			}
			if r.PauseAt != nil || !slices.ContainsFunc(r.AwakeBecause, func(why string) bool { return strings.Contains(why, "request") }) {
				t.Fatalf("during a download: pauseAt %v, awakeBecause %q", r.PauseAt, r.AwakeBecause)
			}
			if r.LastActivity == nil || time.Since(*r.LastActivity) > 3*time.Second {
				t.Fatalf("during a download: lastActivity %v", r.LastActivity)
			}
		}
	}
	var r record
	eventually(t, 3*time.Second, "a time of the next pause", func() bool {
		r = s.record(t, id)
		return r.PauseAt != nil
	})
	if off := r.PauseAt.Sub(ended.Add(s.idle)).Abs(); off > time.Second || len(r.AwakeBecause) != 0 {
		t.Errorf("after a download: pauseAt is %s off, awakeBecause %q", off, r.AwakeBecause)
	}
	s.requirePausedOnTime(t, id, ended)
	if r := s.record(t, id); r.PauseAt != nil || len(r.AwakeBecause) != 0 {
		t.Errorf("asleep: pauseAt %v, awakeBecause %q", r.PauseAt, r.AwakeBecause)
	}
}

func TestHistory_saysWhy(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, before := s.startAppIn(t)
	s.pause(t, id)
	requireContinued(t, before, s.mustAsk(t, id), 1)
	var told []string
	for _, l := range s.history(t, id) {
		if l.To == "PAUSED" || l.To == "RUNNING" {
			told = append(told, l.To+" "+l.Reason)
		}
	}
	slices.Sort(told)
	want := []string{"PAUSED paused by hand: token admin", "RUNNING created", "RUNNING request: GET /state"}
	if !slices.Equal(told, want) {
		t.Errorf("the history says %q, wanted %q", told, want)
	}
}

// configure changes a sandbox's settings. As any client it comes again where a busy machine lets the
// store be silent for seconds.
func (s *sandman) configure(t *testing.T, id, patch string) {
	t.Helper()
	for deadline := time.Now().Add(settled); ; time.Sleep(time.Second) {
		a := s.call(t, http.MethodPatch, "/sandboxes/"+id, patch)
		switch {
		case a.status == http.StatusOK:
			return
		case a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || time.Now().After(deadline):
			t.Fatalf("changing sandbox %s by %s: %s", id, patch, a)
		}
	}
}

type historyLine struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

func (s *sandman) history(t *testing.T, id string) []historyLine {
	t.Helper()
	a := s.call(t, http.MethodGet, "/sandboxes/"+id+"/history", "")
	var page struct {
		History []historyLine `json:"history"`
	}
	if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != http.StatusOK {
		t.Fatalf("reading the history of sandbox %s: %s", id, a)
	}
	return page.History
}
