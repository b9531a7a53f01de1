package cli_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

// events answers each connection to GET /events with the next of these texts,
// and drops it then. After the last one comes a refusal, which ends a watch.
func (r *rig) events(t *testing.T, connections ...string) (resumed *[]string) {
	t.Helper()
	resumed = new([]string)
	r.routes["GET /events"] = func(w http.ResponseWriter, req *http.Request) {
		*resumed = append(*resumed, req.Header.Get("Last-Event-ID")+"?"+req.URL.RawQuery)
		n := len(*resumed) - 1
		if n >= len(connections) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"title":"Forbidden","status":403,"code":"forbidden","detail":"No more of this."}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, connections[n])
	}
	return resumed
}

func sandboxEvent(revision int, id, state, reason string, since time.Duration, more string) string {
	return fmt.Sprintf("event: sandbox\nid: %d\ndata: {\"sandboxID\":%q,\"state\":%q,\"reason\":%q,\"since\":%q,%s\"awakeBecause\":[]}\n\n",
		revision, id, state, reason, noon.Add(since).Format(time.RFC3339), more)
}

const begin = "retry: 10\nid: 7\n\n"

func TestWatch_tellsWhatChanges(t *testing.T) {
	r := newRig(t)
	r.put("ia", session.Running, time.Minute)
	r.put("ib", session.Paused, time.Minute)
	r.put("ic", session.Paused, time.Minute)
	resumed := r.events(t,
		begin+sandboxEvent(8, "ia", "RUNNING", "created", -time.Minute, "")+ // only used
			sandboxEvent(9, "ia", "PAUSING", "idle for 10m0s", 0, "")+":\n\n"+
			"event: of a later version\ndata: {}\n\n"+
			"event: sandbox\nid: 10\ndata: {\"sandboxID\":\"ia\"", // cut off
		begin[:10]+sandboxEvent(11, "ia", "PAUSED", "idle for 10m0s", time.Second, "")+
			sandboxEvent(12, "inew", "RUNNING", "created", 2*time.Second, "")+
			sandboxEvent(13, "ib", "PAUSED", "older than the list", -time.Hour, "")+
			"event: gone\nid: 14\ndata: {\"sandboxID\":\"ic\"}\n\n"+
			"event: reset\nid: 20\ndata: {}\n\n"+
			sandboxEvent(21, "ia", "PAUSED", "idle for 10m0s", time.Second, `"lastError":{"at":"2026-11-24T12:00:05Z","op":"resume","message":"the host says: no\u001b[m"},`)+
			sandboxEvent(22, "ia", "RESUMING", "request: GET /", 6*time.Second, "")+
			sandboxEvent(23, "ia", "PAUSED", "idle for 10m0s", time.Second, `"lastError":{"at":"2026-11-24T12:00:07Z","op":"resume","message":"no again"},`),
	)
	requireGolden(t, "watch", r.url, "sandbox", "watch")
	if got := strings.Join(*resumed, " "); got != "? 9? 23?" {
		t.Errorf("it was resumed at %s", got)
	}
}

func TestWatch_followsOneToItsEnd(t *testing.T) {
	r := newRig(t)
	r.put("ia", session.Running, time.Minute)
	pauseAt := `"pauseAt":"` + time.Now().Add(10*time.Minute+500*time.Millisecond).Format(time.RFC3339Nano) + `",`
	story := begin + sandboxEvent(8, "ia", "RUNNING", "created", -time.Minute, "") +
		sandboxEvent(9, "ia", "RUNNING", "created", -time.Minute, pauseAt) +
		sandboxEvent(10, "ia", "RUNNING", "created", -time.Minute, pauseAt) +
		sandboxEvent(11, "ia", "KILLED", "by hand: token ops", 0, "")
	resumed := r.events(t, story, story)
	got := sandman(t.Context(), "sandbox", "watch", "ia")
	var told []string
	for line := range strings.Lines(got.out) {
		told = append(told, line[len("12:00:00  "):])
	}
	if s := strings.Join(told, ""); got.code != 0 || s != "ia  running  created\nia  in use\nia  idle, sleeps in 10m\nia  running → killed  by hand: token ops\n" {
		t.Errorf("%+v", got)
	}
	if (*resumed)[0] != "?sandbox=ia" {
		t.Errorf("asked for was %s", *resumed)
	}
	var lines []string
	for line := range strings.Lines(story) {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			lines = append(lines, data)
		}
	}
	if got := sandman(t.Context(), "sandbox", "watch", "ia", "--json"); got.code != 0 || got.err != "" || got.out != strings.Join(lines, "") {
		t.Errorf("programs get %+v", got)
	}
}

func TestWatch_forPrograms(t *testing.T) {
	r := newRig(t)
	r.put("ia", session.Running, time.Minute)
	ia := sandman(t.Context(), "sandbox", "show", "ia", "--json").out
	changed := sandboxEvent(9, "ia", "PAUSED", "idle", 0, "")
	r.events(t, begin+changed+"event: gone\nid: 10\ndata: {\"sandboxID\":\"ia\"}\n\n")
	_, data, _ := strings.Cut(changed, "data: ")
	got := sandman(t.Context(), "sandbox", "watch", "--json")
	if got.code != 4 || got.out != ia+data[:len(data)-1]+"{\"sandboxID\":\"ia\"}\n" {
		t.Errorf("programs get %+v", got)
	}
}

func TestWatch_thatCannotBegin(t *testing.T) {
	r := newRig(t)
	r.events(t)
	if got := sandman(t.Context(), "sandbox", "watch"); got.code != 4 || got.err != "Error: No more of this.\n" {
		t.Errorf("refused: %+v", got)
	}
	r.routes["GET /events"] = answer("{}")
	if got := sandman(t.Context(), "sandbox", "watch"); got.code != 5 {
		t.Errorf("what is no stream: %+v", got)
	}
	r.server.Close()
	if got := sandman(t.Context(), "sandbox", "watch"); got.code != 5 {
		t.Errorf("nobody there: %+v", got)
	}
}

// Ctrl+C is told from the sandbox's end by the exit code alone.
func TestWatch_interrupted(t *testing.T) {
	r := newRig(t)
	r.put("ia", session.Running, time.Minute)
	r.routes["GET /events"] = func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, begin)
		w.(http.Flusher).Flush()
		<-req.Context().Done()
	}
	for _, args := range [][]string{{"sandbox", "watch"}, {"sandbox", "watch", "ia", "--json"}} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(300*time.Millisecond, cancel)
		if got := sandman(ctx, args...); got.code != 130 || strings.Contains(got.err, "Error") {
			t.Errorf("%v: %+v", args, got)
		}
	}
}
