package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestRequest_atAnyMomentOfAPauseIsAnswered(t *testing.T) {
	t.Parallel()
	inProcess := func(*testing.T) string { return "" }
	host := func(faults string) func(*testing.T) string {
		return func(t *testing.T) string { return startSandboxd(t, faults).url }
	}
	for _, test := range []struct {
		name  string
		host  func(*testing.T) string
		pause time.Duration // how long a pause takes
	}{
		{name: "of the local host", host: inProcess, pause: 20 * time.Millisecond},
		{name: "of a fast host", host: host(""), pause: 20 * time.Millisecond},
		{name: "of a fast host that cuts connections", host: host("cut_connections"), pause: 20 * time.Millisecond},
		{name: "of a host that takes 3 s", host: host("pause_delay=3s"), pause: 3 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, options{host: test.host(t)})
			s.askAround(t, pauseMoments(test.pause), func(id string) error { return s.tryPause(t, id) })
		})
	}
}

func TestRequest_atAnyMomentOfAnIdlePauseIsAnswered(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second})
	const spread = 400 * time.Millisecond // of the moment at which the pause comes
	var moments []time.Duration
	for at := -spread; at <= 2*spread; at += spread / 8 {
		moments = append(moments, s.idle+at)
	}
	s.askAround(t, moments, func(string) error { return nil })
}

// askAround makes a sandbox for each moment, uses it, lets trigger begin the pause, and sends at that
// moment (before or after) a request that must be answered by the sandbox as if nothing happened.
func (s *sandman) askAround(t *testing.T, moments []time.Duration, trigger func(id string) error) {
	t.Helper()
	states := make(map[string]appState)
	offsets := make(map[string]time.Duration)
	for _, at := range moments {
		id, state := s.startAppIn(t)
		states[id], offsets[id] = state, at
	}
	answered := make(map[string]chan appState)
	for id := range states {
		answered[id] = make(chan appState, 1)
	}
	inParallel(t, offsets, func(id string, at time.Duration) error {
		// the use before the pause; from its end on the idle time runs
		if _, err := s.ask(t.Context(), id); err != nil {
			return err
		}
		state, err := s.askAt(t.Context(), id, at, trigger)
		answered[id] <- state
		return err
	})
	for id, before := range states {
		requireContinued(t, before, <-answered[id], 2)
	}
}

// askAt begins the pause after -at (if at is negative), and asks after at (if it is positive).
func (s *sandman) askAt(ctx context.Context, id string, at time.Duration, trigger func(id string) error) (appState, error) {
	triggered := make(chan error, 1)
	go func() {
		time.Sleep(-at) // the offset is the point
		triggered <- trigger(id)
	}()
	time.Sleep(at)
	state, err := s.ask(ctx, id)
	if err != nil {
		err = fmt.Errorf("asked %s after the pause began: %w", at, err)
	}
	return state, errors.Join(err, <-triggered)
}

func TestStampede_atASleepingSandboxIsOneConnect(t *testing.T) {
	t.Parallel()
	const visitors = 200
	host := startSandboxd(t, "")
	counter := startCounter(t, host.url)
	s := start(t, options{host: counter.url})
	id, before := s.startAppIn(t)
	s.pause(t, id)
	counter.connects.Store(0)

	failures := make(chan error, visitors)
	for range visitors {
		go func() {
			state, err := s.ask(t.Context(), id)
			if err == nil && state.Pid != before.Pid {
				err = fmt.Errorf("answered by process %d, not %d", state.Pid, before.Pid)
			}
			failures <- err
		}()
	}
	for range visitors {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
	requireContinued(t, before, s.mustAsk(t, id), visitors+1)
	if n := counter.connects.Load(); n != 1 {
		t.Errorf("%d visitors caused %d connects", visitors, n)
	}
	if r := s.record(t, id); r.Totals.Wakes != 1 {
		t.Errorf("%d visitors caused %d wakes", visitors, r.Totals.Wakes)
	}
}

// hostCounter is a proxy before a host, which counts the calls that resume a sandbox.
type hostCounter struct {
	url      string
	connects atomic.Int64
}

func startCounter(t *testing.T, host string) *hostCounter {
	t.Helper()
	target, err := url.Parse(host)
	if err != nil {
		t.Fatal(err)
	}
	c := &hostCounter{}
	transport := &http.Transport{} // of its own, see startMoody
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host // the Host header stays: it says which sandbox
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && (strings.HasSuffix(r.URL.Path, "/connect") || strings.HasSuffix(r.URL.Path, "/resume")) {
			c.connects.Add(1)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}
