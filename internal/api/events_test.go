package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
)

func TestEvents_areAsTheProtocolWants(t *testing.T) {
	t.Parallel()
	m := newMemory()
	sb := m.put("ia", "alice", "web")
	m.events = make(chan []api.Event, 2)
	m.events <- []api.Event{
		{Kind: api.EventSandbox, ID: 8, SandboxID: "ia", Sandbox: sb},
		{Kind: api.EventGone, ID: 9, SandboxID: "ib"},
	}
	m.events <- []api.Event{{Kind: api.EventReset, ID: 12}}
	close(m.events)
	c := newClient(t, m, zap.NewNop())
	a := c.call(t, viewer, "GET", "/api/v1/events", "")
	shown := strings.TrimSpace(c.call(t, viewer, "GET", sandboxes+"/ia", "").body)
	want := "retry: 1000\nid: 7\n\n" +
		"event: sandbox\nid: 8\ndata: " + shown + "\n\n" +
		"event: gone\nid: 9\ndata: {\"sandboxID\":\"ib\"}\n\n" +
		"event: reset\nid: 12\ndata: {}\n\n"
	if a.body != want || a.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%v\n%s, want\n%s", a.header, a.body, want)
	}
}

func TestEvents_askForWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "web")
	c := newClient(t, m, zap.NewNop())
	all := map[string]api.EventFilter{
		admin + "?":                                   {},
		viewer + "?":                                  {Claimed: true},
		viewer + "?owner=bob&project=db":              {Owner: "bob", Project: "db", Claimed: true},
		alice + "?":                                   {Bound: "alice", Claimed: true},
		alice + "?owner=bob":                          {Owner: "bob", Bound: "alice", Claimed: true},
		operator + "?sandbox=ia":                      {Sandbox: "ia"},
		c.badge(t, operator, "ia") + "?":              {Sandbox: "ia"},
		c.badge(t, alice, "ia") + "?sandbox=ia":       {Sandbox: "ia", Bound: "alice"},
		c.badge(t, alice, "ia") + "?project=db":       {Sandbox: "ia", Bound: "alice", Project: "db"},
		aliceSee + "?sandbox=ia&owner=alice&project=": {Sandbox: "ia", Owner: "alice", Bound: "alice", Claimed: true},
	}
	for who, want := range all {
		secret, query, _ := strings.Cut(who, "?")
		if a := c.call(t, secret, "GET", "/api/v1/events?"+query, ""); a.status != http.StatusOK || m.watched != want {
			t.Errorf("%s: %d, %+v, want %+v", who, a.status, m.watched, want)
		}
	}
}

func TestEvents_resume(t *testing.T) {
	t.Parallel()
	m := newMemory()
	c := newClient(t, m, zap.NewNop())
	tests := []struct {
		query, header string
		want          int64
	}{
		{"", "", -1},
		{"", "120", 120},
		{"?lastEventID=121", "", 121},
		{"?lastEventID=121", "122", 122}, // the header is newer: a browser's own reconnect
		{"", "nonsense", 0},              // as old as can be
		{"", "-5", 0},
		{"", "99999999999999999999", 0},
	}
	for _, tt := range tests {
		if a := c.call(t, viewer, "GET", "/api/v1/events"+tt.query, "", "Last-Event-ID", tt.header); a.status != http.StatusOK || m.resumed != tt.want {
			t.Errorf("%+v: %d, resumed at %d", tt, a.status, m.resumed)
		}
	}
}

// stream opens a stream of events at a server, and gives its lines.
func stream(t *testing.T, h http.Handler, secret, query string) (lines *bufio.Scanner, end func()) {
	t.Helper()
	srv := httptest.NewServer(h)
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/api/v1/events"+query, nil)
	r.Header.Set("Authorization", "Bearer "+secret)
	res, err := srv.Client().Do(r)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", res, err)
	}
	end = func() {
		cancel()
		_ = res.Body.Close()
		srv.Close() // waits for the handler
	}
	t.Cleanup(end)
	return bufio.NewScanner(res.Body), end
}

// next gives the next line that says something; "" at the end.
func next(lines *bufio.Scanner) string {
	for lines.Scan() {
		if lines.Text() != "" {
			return lines.Text()
		}
	}
	return ""
}

func TestEvents_endAtOnceWithTheAPI(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.events = make(chan []api.Event)
	ending, end := context.WithCancel(t.Context())
	c := configured(t, m, func(cfg *api.Config) { cfg.Ending = ending })
	lines, _ := stream(t, c.h, viewer, "")
	if retry, id := next(lines), next(lines); retry != "retry: 1000" || id != "id: 7" {
		t.Fatalf("it begins with %q, %q", retry, id)
	}
	m.events <- []api.Event{{Kind: api.EventReset, ID: 8}}
	if line := next(lines); line != "event: reset" {
		t.Errorf("got %q", line)
	}
	end()
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("it does not end as it should: %v", err)
	}
	if a := c.call(t, viewer, "GET", "/api/v1/events", ""); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") != "1" {
		t.Errorf("a new one: %s", a)
	}
}

// TestEvents_heartbeatAndExpiry: a stream that has nothing to tell says so, and
// one of a badge token ends with that.
func TestEvents_heartbeatAndExpiry(t *testing.T) {
	t.Parallel()
	newClient(t, newMemory(), zap.NewNop()) // the first one compiles the file
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.put("ia", "alice", "")
		m.events = make(chan []api.Event)
		c := newClient(t, m, zap.NewNop())
		badge := c.badge(t, operator, "ia")
		began := time.Now()
		r := httptest.NewRequest(http.MethodGet, "/api/v1/events", nil)
		r.Header.Set("Authorization", "Bearer "+badge)
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r) // until the token expires
		if took := time.Since(began); took != 10*time.Minute {
			t.Errorf("it ended after %s", took)
		}
		if beats := strings.Count(w.Body.String(), ":\n\n"); beats < 39 || beats > 40 {
			t.Errorf("%d heartbeats in 10m: %q", beats, w.Body)
		}
	})
}

func TestEvents_ofHeadIsNone(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.events = make(chan []api.Event)
	srv := httptest.NewServer(newClient(t, m, zap.NewNop()).h)
	defer srv.Close()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodHead, srv.URL+"/api/v1/events", nil)
	r.Header.Set("Authorization", "Bearer "+viewer)
	res, err := srv.Client().Do(r)
	if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%v, %v", res, err)
	}
}

// TestEvents_tellOfNoOther is that each event's sandbox is one that the reader
// may see; what the filter of the others lets through is tested beside it.
func TestEvents_tellOfNoOther(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ialice", "alice", "")
	m.put("ibob", "bob", "")
	m.put("inobodys", "", "")
	c := newClient(t, m, zap.NewNop())
	for secret, want := range map[string][]string{
		admin: {"ialice", "ibob", "inobodys"}, viewer: {"ialice", "ibob"}, alice: {"ialice"}, bob: {"ibob"}, c.badge(t, admin, "inobodys"): {"inobodys"},
	} {
		a := c.call(t, secret, "GET", "/api/v1/events", "")
		var got []string
		for line := range strings.Lines(a.body) {
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				var sb shown
				if err := json.NewDecoder(strings.NewReader(data)).Decode(&sb); err != nil && err != io.EOF {
					t.Fatal(err)
				}
				got = append(got, sb.SandboxID)
			}
		}
		slices.Sort(got)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is told of %v, want %v", secret, got, want)
		}
	}
}
