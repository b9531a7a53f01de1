package e2e_test

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// The quick start's grace_period, and what the process may take beyond it.
const (
	gracePeriod = 10 * time.Second
	beyondGrace = 2 * time.Second
)

// terminate asks the program to stop, and goes on.
func (p *process) terminate(t *testing.T) (began time.Time) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

func (p *process) requireEnded(t *testing.T, began time.Time) {
	t.Helper()
	select {
	case <-p.done:
		t.Logf("ended %s after SIGTERM", time.Since(began))
	case <-time.After(time.Until(began.Add(gracePeriod + beyondGrace))):
		t.Fatalf("not ended %s after SIGTERM", time.Since(began))
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

func TestShutdown_finishesWhatWasBegun(t *testing.T) {
	t.Parallel()
	o := options{data: filepath.Join(shortDir(t), "d"), host: startSandboxd(t, "resume_delay=3s").url}
	s := start(t, o)
	used, before := s.startAppIn(t)
	held, _ := s.startAppIn(t)
	s.pause(t, held)
	const sockets = 8
	codes, times := make(chan websocket.StatusCode, sockets), make(chan time.Time, sockets)
	for range sockets {
		c := s.dial(t, used)
		requireEcho(t, c, "hello")
		go func() {
			_, _, err := c.Read(context.WithoutCancel(t.Context()))
			codes <- websocket.CloseStatus(err)
			times <- time.Now()
		}()
	}
	download := s.beginDownload(t, used, 6)
	waiting := s.begin(s.request(t.Context(), http.MethodGet, held, appPort, "/state", nil))
	s.awaitState(t, 2*time.Second, held, "RESUMING")

	began := s.process.terminate(t)
	for what, r := range map[string]<-chan result{"download": download, "held request": waiting} {
		if got := <-r; got.err != nil || got.answer.status != http.StatusOK {
			t.Errorf("the %s that was in flight: %v; %s", what, got.err, got.answer)
		}
	}
	first, last := <-times, time.Time{}
	for range sockets - 1 {
		last = <-times
	}
	for range sockets {
		if code := <-codes; code != websocket.StatusGoingAway {
			t.Errorf("a WebSocket was closed with %d, wanted 1001", code)
		}
	}
	if spread := last.Sub(first); spread < time.Second {
		t.Errorf("%d WebSockets were told to come again within %s", sockets, spread)
	}
	s.process.requireEnded(t, began)

	// the next one finds no presence, and no owner that it would have to wait for
	next := start(t, o)
	next.pause(t, used)
	requireContinued(t, before, next.mustAsk(t, used), 1)
}

// A sandbox that does not get up in time leaves nobody without an answer.
func TestShutdown_answersWhatItCanNotFinish(t *testing.T) {
	t.Parallel()
	host := startSandboxd(t, "resume_delay=20s")
	s := start(t, options{host: host.url})
	used, _ := s.startAppIn(t)
	held, _ := s.startAppIn(t)
	s.pause(t, held)
	waiting := s.begin(s.request(t.Context(), http.MethodGet, held, appPort, "/state", nil))
	s.awaitState(t, 2*time.Second, held, "RESUMING")
	events := s.listen(t, used, 500*time.Millisecond)
	events.next(t, 3*time.Second)
	quiet := s.dial(t, used) // a client that does not answer the close frame
	requireEcho(t, quiet, "hello")

	began := s.process.terminate(t)
	for range events.lines {
		if s.process.ended() {
			break
		}
	}
	got := <-waiting
	if got.err != nil {
		t.Fatalf("the held request was dropped: %v", got.err)
	}
	requireProblem(t, got.answer, http.StatusServiceUnavailable)
	if got.answer.header.Get("Retry-After") == "" || !strings.Contains(got.answer.body, "shutting-down") {
		t.Errorf("it does not say when to come again, and why: %s with %v", got.answer, got.answer.header)
	}
	s.process.requireEnded(t, began)
}
