package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// demoLink is where the start message says that the editor is.
var demoLink = regexp.MustCompile(`Editor +http://8080-(i[a-z0-9]+)\.localhost:(\d+)/\n`)

// awaitDemo returns the sandbox that the start message names.
func (s *sandman) awaitDemo(t *testing.T) string {
	t.Helper()
	var found []string
	s.process.await(t, func() bool {
		found = demoLink.FindStringSubmatch(s.process.log.String())
		return found != nil
	})
	if found[2] != fmt.Sprint(s.port) {
		t.Errorf("the link leads to port %s, and Sandman listens on %d", found[2], s.port)
	}
	if strings.Contains(s.process.log.String(), token) {
		t.Error("the token is in the output")
	}
	return found[1]
}

// demoState is what the editor says of itself.
type demoState struct {
	Pid       int       `json:"pid"`
	StartedAt time.Time `json:"startedAt"`
	Memory    int       `json:"memory"`
	Napped    int       `json:"napped"`
	Disk      struct {
		Count     int       `json:"count"`
		StartedAt time.Time `json:"startedAt"`
	} `json:"disk"`
}

// editor calls the editor as its page does.
func (s *sandman) editor(t *testing.T, id, method, path, body string) answer {
	t.Helper()
	r := newRequest(t, method, s.url+path, strings.NewReader(body))
	r.Host = fmt.Sprintf("8080-%s.localhost:%d", id, s.port)
	r.Header.Set("Origin", "http://"+r.Host)
	return s.mustDo(t, r)
}

func (s *sandman) demoState(t *testing.T, id, method, path string) demoState {
	t.Helper()
	var state demoState
	s.editor(t, id, method, path, "").decode(t, &state)
	return state
}

// demoTerminal is a page's terminal; see attach.go of the demo for its protocol.
type demoTerminal struct {
	conn *websocket.Conn
	seq  int
	seen strings.Builder
}

func (s *sandman) openTerminal(t *testing.T, id string) *demoTerminal {
	t.Helper()
	host := fmt.Sprintf("8080-%s.localhost:%d", id, s.port)
	conn, _, err := websocket.Dial(t.Context(), s.url+"/api/terminal?page=e2e&since=0&cols=80&rows=24", &websocket.DialOptions{
		Host: host, HTTPHeader: http.Header{"Origin": {"http://" + host}},
	})
	if err != nil {
		t.Fatalf("opening the demo's terminal: %v", err)
	}
	conn.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return &demoTerminal{conn: conn}
}

func (d *demoTerminal) run(t *testing.T, command string) {
	t.Helper()
	d.seq++
	b, _ := json.Marshal(map[string]any{"type": "input", "seq": d.seq, "data": command + "\n"})
	if err := d.conn.Write(t.Context(), websocket.MessageText, b); err != nil {
		t.Fatalf("typing: %v", err)
	}
}

// until reads until the text was shown.
func (d *demoTerminal) until(t *testing.T, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	for !strings.Contains(d.seen.String(), text) {
		kind, b, err := d.conn.Read(ctx)
		if err != nil {
			t.Fatalf("waiting for %q: %v; shown: %q", text, err, d.seen.String())
		}
		if kind == websocket.MessageBinary {
			d.seen.Write(b)
		}
	}
}

// TestDemo_sleepsUnderAnOpenPage is the tour of the README: counters, a file and a running program,
// then a page that is left alone with its terminal open.
func TestDemo_sleepsUnderAnOpenPage(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second, demo: true})
	id := s.awaitDemo(t)
	if a := s.editor(t, id, http.MethodGet, "/", ""); a.status != http.StatusOK || !strings.Contains(a.body, "<title>Sandman demo</title>") {
		t.Fatalf("the editor's page is %s", a)
	}
	s.editor(t, id, http.MethodPut, "/api/file?path=note.txt", "kept").require(t, http.StatusNoContent)
	s.demoState(t, id, http.MethodPost, "/api/count")
	terminal := s.openTerminal(t, id)
	terminal.run(t, "cat note.txt; ./ticker.sh")
	terminal.until(t, "awake for 1 seconds")
	lastUse := time.Now()
	before := s.demoState(t, id, http.MethodPost, "/api/count")
	if before.Memory != 2 || before.Disk.Count != 2 {
		t.Errorf("after two counts: %+v", before)
	}
	s.requirePausedOnTime(t, id, lastUse) // though the ticker prints each second

	terminal.run(t, "\x03") // the first key
	terminal.run(t, "echo wo'ken' after $(tail -c 4 note.txt)")
	terminal.until(t, "woken after kept")
	after := s.demoState(t, id, http.MethodGet, "/api/state")
	if after.Pid != before.Pid || !after.StartedAt.Equal(before.StartedAt) || after.Memory != 2 || after.Disk != before.Disk {
		t.Errorf("it was %+v, and after the sleep is %+v", before, after)
	}
	if r := s.record(t, id); r.Totals.Pauses != 1 || r.Totals.Wakes != 1 {
		t.Errorf("its record tells of %+v", r.Totals)
	}
}

func TestDemo_isFoundAgainAndMadeAnew(t *testing.T) {
	t.Parallel()
	s := start(t, options{demo: true})
	id := s.awaitDemo(t)
	before := s.demoState(t, id, http.MethodPost, "/api/count")
	s.process.kill()

	s = start(t, options{demo: true, data: s.dir})
	if again := s.awaitDemo(t); again != id {
		t.Errorf("a second start made another sandbox")
	}
	if after := s.demoState(t, id, http.MethodGet, "/api/state"); after.Pid != before.Pid || after.Memory != 1 {
		t.Errorf("the editor was %+v, and is %+v", before, after)
	}
	s.pause(t, id)
	s.process.end(t)

	s = start(t, options{demo: true, data: s.dir})
	if again := s.awaitDemo(t); again != id || s.record(t, id).State != "PAUSED" {
		t.Errorf("a start woke sandbox %s (%s), or made another", again, s.record(t, id).State)
	}
	s.requireDemos(t, id)
	s.call(t, http.MethodDelete, "/sandboxes/"+id, "").require(t, http.StatusNoContent)
	s.process.end(t)

	s = start(t, options{demo: true, data: s.dir})
	if anew := s.awaitDemo(t); anew == id || s.demoState(t, anew, http.MethodGet, "/api/state").Memory != 0 {
		t.Errorf("after it was killed no new one was made")
	}
}

// Making it may take a minute; the editor must not be over when that is.
func TestDemo_outlivesItsMaking(t *testing.T) {
	t.Parallel()
	s := start(t, options{demo: true})
	id := s.awaitDemo(t)
	before := s.demoState(t, id, http.MethodGet, "/api/state")
	time.Sleep(65 * time.Second)
	if after := s.demoState(t, id, http.MethodGet, "/api/state"); after.Pid != before.Pid {
		t.Errorf("the editor was %+v, and is %+v", before, after)
	}
}

// requireDemos fails the test unless these are all sandboxes that live.
func (s *sandman) requireDemos(t *testing.T, ids ...string) {
	t.Helper()
	var list struct {
		Sandboxes []record `json:"sandboxes"`
	}
	s.call(t, http.MethodGet, "/sandboxes?state=RUNNING,PAUSED", "").decode(t, &list)
	var found []string
	for _, r := range list.Sandboxes {
		found = append(found, r.SandboxID)
	}
	if !slices.Equal(found, ids) {
		t.Errorf("there are the sandboxes %v, wanted %v", found, ids)
	}
}

func TestDemo_thatCanNotBeMadeStopsNobody(t *testing.T) {
	t.Parallel()
	host := startSandboxd(t, "")
	s := start(t, options{demo: true, host: host.url})
	s.process.await(t, func() bool {
		return strings.Contains(s.process.log.String(), "Editor    there is none: it needs the host local")
	})
	s.create(t)
}

// require fails the test unless the answer has the status.
func (a answer) require(t *testing.T, status int) {
	t.Helper()
	if a.status != status {
		t.Errorf("wanted status %d, got %s", status, a)
	}
}

func TestDemo_inABrowser(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 4 * time.Second, demo: true})
	id := s.awaitDemo(t)
	page := fmt.Sprintf("http://8080-%s.localhost:%d/", id, s.port)
	cmd := exec.CommandContext(t.Context(), "node", "browser/demo.mjs", page, s.url+"/api/v1/sandboxes/"+id, token)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
