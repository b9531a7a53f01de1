package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// changes is a stream of the API's events. Its channel is closed at its end.
type changes struct {
	told chan change
	err  error // set when told is closed
}

type change struct {
	kind, id string
	sandbox  record
}

// watch opens a stream of events, from an ID if that is not "".
func (s *sandman) watch(t *testing.T, last string) *changes {
	t.Helper()
	r := s.apiRequest(t, http.MethodGet, "/events", "")
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	res, err := http.DefaultClient.Do(r.WithContext(ctx))
	if err != nil {
		t.Fatalf("opening a stream of events: %v", err)
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("a stream of events is answered %s %v", res.Status, res.Header)
	}
	e := &changes{told: make(chan change, 1000)}
	go e.read(res.Body)
	return e
}

func (e *changes) read(body io.ReadCloser) {
	defer close(e.told)
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	var next change
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "event":
			next.kind = value
		case "id":
			next.id = value
		case "data":
			e.err = json.Unmarshal([]byte(value), &next.sandbox)
		case "": // the end of a message, or a comment
			if next.id != "" {
				e.told <- next
			}
			next = change{}
		}
	}
	if err := lines.Err(); err != nil {
		e.err = err
	}
}

// until reads until an event is as is wanted, and gives it.
func (e *changes) until(t *testing.T, what string, want func(change) bool) change {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case next, ok := <-e.told:
			if !ok {
				t.Fatalf("the stream ended (%v) before it told that %s", e.err, what)
			}
			if want(next) {
				return next
			}
		case <-limit:
			t.Fatalf("it was not told that %s", what)
		}
	}
}

// requireEnd fails the test unless the stream ends as it should, soon.
func (e *changes) requireEnd(t *testing.T, began time.Time, within time.Duration) {
	t.Helper()
	for limit := time.After(within); ; {
		select {
		case _, ok := <-e.told:
			if ok {
				continue
			}
			if e.err != nil {
				t.Errorf("the stream broke: %v", e.err)
			}
			t.Logf("the stream ended after %s", time.Since(began))
			return
		case <-limit:
			t.Fatalf("the stream did not end within %s", within)
		}
	}
}

// is tells whether an event says that a sandbox is in a state.
func is(id, state string) func(change) bool {
	return func(e change) bool {
		return e.kind == "sandbox" && e.sandbox.SandboxID == id && e.sandbox.State == state
	}
}

// TestEvents_loseNothingOverAReload: a reload and the end of the process end a
// stream at once, and whoever comes again is told what came between.
func TestEvents_loseNothingOverAReload(t *testing.T) {
	t.Parallel()
	o := options{data: filepath.Join(shortDir(t), "d")}
	s := start(t, o)
	stream := s.watch(t, "")
	id := s.create(t)
	stream.until(t, "it runs", is(id, "RUNNING"))
	s.pause(t, id)
	last := stream.until(t, "it sleeps", is(id, "PAUSED")).id

	// a configuration whose tokens are others; the engine is the same
	o.port = s.port
	o.caddyfile = strings.NewReplacer("		token admin", "		token eye viewer another-secret-0123456789\n		token admin")
	began := time.Now()
	s.reload(t, o)
	stream.requireEnd(t, began, gracePeriod/2)
	if a := s.call(t, http.MethodPost, "/sandboxes/"+id+"/resume", ""); a.status != http.StatusOK {
		t.Fatalf("resuming: %s", a)
	}
	stream = s.watch(t, last)
	stream.until(t, "it was resumed meanwhile", is(id, "RUNNING"))

	// a badge token, over a reload and for its sandbox alone
	var made struct{ Token string }
	s.call(t, http.MethodPost, "/sandboxes/"+id+"/tokens", `{"may":["pause"]}`).decode(t, &made)
	s.reload(t, options{data: o.data, port: s.port, idle: time.Minute})
	other := s.create(t)
	for path, want := range map[string]int{id: http.StatusOK, other: http.StatusNotFound} {
		r := s.apiRequest(t, http.MethodPost, "/sandboxes/"+path+"/pause?force=true", "")
		r.Header.Set("Authorization", "Bearer "+made.Token)
		if a := s.mustDo(t, r); a.status != want {
			t.Errorf("pausing %s with the badge token: %s, want %d", path, a, want)
		}
	}

	stream = s.watch(t, "")
	stream.until(t, "it begins", func(change) bool { return true })
	s.killAll(t)
	ended := s.process.terminate(t)
	stream.requireEnd(t, ended, 2*time.Second)
	s.process.requireEnded(t, ended)
	if took := time.Since(ended); took > gracePeriod/2 {
		t.Errorf("the process waited %s for a stream of events", took)
	}
}
