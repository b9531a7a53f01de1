package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

const sandboxes = "/api/v1/sandboxes"

// shown is a sandbox as programs read it.
type shown struct {
	SandboxID, Owner, Project, State, Reason, IdleTimeout, WakePolicy string

	PauseAt, LastActivity *time.Time
	AwakeBecause          []string
}

type listed struct {
	Sandboxes []shown
	Next      *string
}

func (l listed) ids() []string {
	ids := []string{}
	for _, sb := range l.Sandboxes {
		ids = append(ids, sb.SandboxID)
	}
	return ids
}

func TestSandbox_isOneFlatObject(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "web")
	a := newClient(t, m, zap.NewNop()).call(t, viewer, "GET", sandboxes+"/ia", "")
	const want = `{"sandboxID":"ia","host":"local","owner":"alice","project":"web","state":"RUNNING","reason":"created",` +
		`"since":"2026-11-24T12:00:00Z","idleTimeout":"10m0s","createdAt":"2026-11-24T12:00:00Z","startedAt":"2026-11-24T12:00:00Z",` +
		`"totals":{"runningMs":0,"pausedMs":0,"pauses":0,"wakes":0},"idleTimeoutFrom":"sandbox","wakePolicyFrom":"site","lastActivity":"2026-11-24T12:00:00Z","activityKind":"request",` +
		`"pauseAt":"2026-11-24T12:10:00Z","awakeBecause":[],"holds":[],"openStreams":{"active":0,"dormant":0,"parked":0}}`
	if strings.TrimSpace(a.body) != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
	if a.header.Get("ETag") != `"1"` {
		t.Errorf("ETag %q", a.header.Get("ETag"))
	}
}

func TestSandbox_showsAllThatCanBeKnown(t *testing.T) {
	t.Parallel()
	m := newMemory()
	sb := m.put("ia", "alice", "web")
	sb.State, sb.Op = session.Pausing, &session.Op{ID: "op1", Kind: session.OpPause, Phase: session.PhaseDraining, Node: "n1", StartedAt: day, Deadline: day}
	sb.LastError = &session.OpError{At: day, Op: session.OpPause, Message: "no", RetryAt: day, Failures: 2}
	sb.Metadata, sb.Template, sb.WakePolicy, sb.Parked = map[string]string{"k": "v"}, "base", "manual", 3
	sb.ReconnectWakes = session.ReconnectWakes{Day: "2026-11-24", Count: 1}
	sb.PausedAt, sb.PauseAt, sb.LastActivity, sb.AwakeBecause = &sb.Since, nil, nil, []string{"1 websocket"}
	m.records["ia"] = sb
	a := newClient(t, m, zap.NewNop()).call(t, viewer, "GET", sandboxes+"/ia", "") // held against the file
	for _, part := range []string{`"pauseAt":null`, `"lastActivity":null`, `"awakeBecause":["1 websocket"]`, `"phase":"draining"`, `"failures":2`} {
		if !strings.Contains(a.body, part) {
			t.Errorf("%s lacks %s", a, part)
		}
	}
}

func TestList_asksForWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	m := newMemory()
	for id, who := range map[string][2]string{"i1": {"alice", "web"}, "i2": {"bob", "web"}, "i3": {"alice", "db"}, "i4": {"", ""}, "i5": {"", "web"}} {
		m.put(id, who[0], who[1])
	}
	paused := m.records["i3"]
	paused.State = session.Paused
	m.records["i3"] = paused
	found := m.records["i4"]
	found.Template, found.Metadata = "Node 22", map[string]string{"ticket": "77"}
	m.records["i4"] = found
	c := newClient(t, m, zap.NewNop())
	tests := []struct {
		secret, query string
		want          []string
	}{
		{admin, "", []string{"i1", "i2", "i3", "i4", "i5"}},
		{operator, "", []string{"i1", "i2", "i3", "i4", "i5"}},
		{viewer, "", []string{"i1", "i2", "i3", "i5"}},
		{alice, "", []string{"i1", "i3"}},
		{aliceSee, "", []string{"i1", "i3"}},
		{alice, "?owner=alice", []string{"i1", "i3"}},
		{alice, "?owner=bob", []string{}},
		{alice, "?after=i1", []string{"i3"}},
		{admin, "?owner=bob", []string{"i2"}},
		{admin, "?project=web&state=RUNNING,PAUSED", []string{"i1", "i2", "i5"}},
		{admin, "?state=PAUSED", []string{"i3"}},
		{admin, "?state=PAUSING,PAUSED&owner=bob", []string{}},
		{admin, "?host=elsewhere", []string{}},
		{admin, "?q=i2", []string{"i2"}},
		{admin, "?q=ALI", []string{"i1", "i3"}},
		{admin, "?q=web", []string{"i1", "i2", "i5"}},
		{admin, "?q=node+22", []string{"i4"}},
		{admin, "?q=ticket", []string{"i4"}},
		{admin, "?q=none", []string{}},
		{alice, "?q=web", []string{"i1"}},
		{bob, "?q=node", []string{}},
		{admin, "?owner=" + "a%26b", []string{}},
	}
	for _, tt := range tests {
		t.Run(tt.secret+tt.query, func(t *testing.T) {
			a := c.call(t, tt.secret, "GET", sandboxes+tt.query, "")
			var l listed
			a.decode(t, &l)
			if !slices.Equal(l.ids(), tt.want) || !strings.Contains(a.body, `"sandboxes":[`) {
				t.Errorf("got %s, want %v", a, tt.want)
			}
		})
	}
}

// TestList_pagesStayRight takes one sandbox away and puts one in while the
// pages are turned: every other one appears exactly once.
func TestList_pagesStayRight(t *testing.T) {
	t.Parallel()
	m := newMemory()
	for i := range 25 {
		m.put(fmt.Sprintf("i%02d", i), "alice", "")
		m.put(fmt.Sprintf("i%02db", i), "bob", "")
	}
	c := newClient(t, m, zap.NewNop())
	var seen []string
	for after, pages := "", 0; ; pages++ {
		var l listed
		c.call(t, alice, "GET", sandboxes+"?limit=10&after="+after, "").decode(t, &l)
		seen = append(seen, l.ids()...)
		if l.Next == nil {
			break
		}
		after = *l.Next
		delete(m.records, after) // the one that the page ends with
		m.put(fmt.Sprintf("h%d", pages), "alice", "")
	}
	want := []string{}
	for i := range 25 {
		want = append(want, fmt.Sprintf("i%02d", i))
	}
	if !slices.Equal(seen, want) {
		t.Errorf("got %v", seen)
	}
}

func TestHistory_newestFirstAndInPages(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	read := func(query string) (revisions []int64) {
		var h struct {
			History []struct {
				Revision         int64
				From, To, Reason string
			}
		}
		a := c.call(t, alice, "GET", sandboxes+"/ia/history"+query, "")
		a.decode(t, &h)
		for _, line := range h.History {
			revisions = append(revisions, line.Revision)
			if line.From != "RUNNING" || line.To != "PAUSING" || line.Reason == "" {
				t.Errorf("%+v", line)
			}
		}
		if !strings.Contains(a.body, `"history":[`) {
			t.Errorf("%s", a)
		}
		return revisions
	}
	for query, want := range map[string][]int64{"": {5, 4, 3, 2, 1}, "?limit=2": {5, 4}, "?limit=2&before=4": {3, 2}, "?before=1": nil} {
		if got := read(query); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", query, got, want)
		}
	}
}

func TestPauseAndResume_sayWhoAsked(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	for range 2 { // the second finds it asleep
		var sb shown
		a := c.call(t, operator, "POST", sandboxes+"/ia/pause?force=true", "{}")
		a.decode(t, &sb)
		if a.status != http.StatusOK || sb.State != "PAUSED" || sb.Reason != "paused by hand: token ops" || !m.lastOpts.Force {
			t.Errorf("%s, %+v", a, m.lastOpts)
		}
	}
	var sb shown
	a := c.call(t, alice, "POST", sandboxes+"/ia/resume", "")
	a.decode(t, &sb)
	if a.status != http.StatusOK || sb.State != "RUNNING" || sb.Reason != "resumed by hand: token alice" {
		t.Errorf("%s", a)
	}
	if c.call(t, alice, "POST", sandboxes+"/ia/pause", ""); m.lastOpts.Force {
		t.Error("forced without being told to")
	}
}

func TestKill_endsItForGood(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	if a := c.call(t, admin, "DELETE", sandboxes+"/ia", ""); a.status != http.StatusNoContent || a.body != "" {
		t.Errorf("%s", a)
	}
	if a := c.call(t, admin, "POST", sandboxes+"/ia/resume", ""); a.status != http.StatusNotFound || a.code(t) != "killed" {
		t.Errorf("%s", a)
	}
	if a := c.call(t, viewer, "GET", sandboxes+"/ia", ""); a.status != http.StatusOK || !strings.Contains(a.body, "KILLED") {
		t.Errorf("its record can't be read: %s", a)
	}
}

func TestUpdate_setsAndTakesBack(t *testing.T) {
	t.Parallel()
	tests := []struct {
		body                         string
		timeout, policy, owner, proj string
	}{
		{`{}`, "10m0s", "", "alice", "web"},
		{`{"idleTimeout":"90s"}`, "1m30s", "", "alice", "web"},
		{`{"idleTimeout":"1d12h"}`, "36h0m0s", "", "alice", "web"},
		{`{"idleTimeout":"120"}`, "2m0s", "", "alice", "web"},
		{`{"idleTimeout":2}`, "2s", "", "alice", "web"},
		{`{"idleTimeout":90.5}`, "1m30.5s", "", "alice", "web"},
		{`{"idleTimeout":null}`, "10m0s", "", "alice", "web"},
		{`{"wakePolicy":"manual"}`, "10m0s", "manual", "alice", "web"},
		{`{"wakePolicy":null,"idleTimeout":"8760h"}`, "8760h0m0s", "", "alice", "web"},
		{`{"owner":"bob","project":null}`, "10m0s", "", "bob", ""},
		{`{"owner":null,"project":"äöü"}`, "10m0s", "", "", "äöü"},
	}
	for _, tt := range tests {
		t.Run(tt.body, func(t *testing.T) {
			t.Parallel()
			m := newMemory()
			m.put("ia", "alice", "web")
			c := newClient(t, m, zap.NewNop())
			var sb shown
			a := c.call(t, operator, "PATCH", sandboxes+"/ia", tt.body)
			a.decode(t, &sb)
			if a.status != http.StatusOK || sb.IdleTimeout != tt.timeout || sb.WakePolicy != tt.policy || sb.Owner != tt.owner || sb.Project != tt.proj {
				t.Errorf("%s", a)
			}
		})
	}
}

func TestUpdate_onlyUnderTheRevisionThatWasSeen(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	patch := func(ifMatch string) answer {
		return c.call(t, operator, "PATCH", sandboxes+"/ia", `{"idleTimeout":"1h"}`, "If-Match", ifMatch)
	}
	seen := c.call(t, viewer, "GET", sandboxes+"/ia", "").header.Get("ETag")
	first := patch(seen)
	if first.status != http.StatusOK || first.header.Get("ETag") == seen {
		t.Fatalf("%s, ETag %s", first, first.header.Get("ETag"))
	}
	for _, stale := range []string{seen, `"nonsense"`, `"-1"`, `"0"`, `W/"2"`, `2`, `"2","3"`, `"99999999999999999999"`} {
		if a := patch(stale); a.status != http.StatusPreconditionFailed || a.code(t) != "changed" {
			t.Errorf("%s: %s", stale, a)
		}
	}
	for _, good := range []string{first.header.Get("ETag"), "*", ""} {
		if a := patch(good); a.status != http.StatusOK {
			t.Errorf("%s: %s", good, a)
		}
	}
}

func TestUpdate_boundTokenCannotGiveAway(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	for body, status := range map[string]int{`{"owner":"bob"}`: 403, `{"owner":null}`: 403, `{"owner":""}`: 403, `{"owner":"alice"}`: 200, `{"project":"x"}`: 200} {
		if a := c.call(t, alice, "PATCH", sandboxes+"/ia", body); a.status != status {
			t.Errorf("%s: %s", body, a)
		}
	}
}

func TestAdd_registersOrCreates(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, secret, body string
		status             int
		owner, calls       string
	}{
		{"known", operator, `{"sandboxID":"iknown"}`, 200, "alice", "register iknown"},
		{"known, one's own", alice, `{"sandboxID":"iknown"}`, 200, "alice", "register iknown"},
		{"known, another's", bob, `{"sandboxID":"iknown"}`, 404, "", "register iknown"},
		{"at the host", operator, `{"sandboxID":"ihost"}`, 201, "", "register ihost"},
		{"at the host, made one's own", alice, `{"sandboxID":"ihost"}`, 201, "alice", "register ihost"},
		{"at the host, another's", alice, `{"sandboxID":"ibobs"}`, 404, "", "register ibobs"},
		{"nowhere", operator, `{"sandboxID":"inone"}`, 404, "", "register inone"},
		{"new", operator, `{"template":"base","metadata":{"userId":"carol","projectId":"p"},"envVars":{"A":"b"}}`, 201, "carol", "create base"},
		{"new, of a bound token", alice, `{"template":"base","metadata":{"userId":"carol"}}`, 201, "alice", "create base"},
		{"null is absent", operator, `{"template":"base","sandboxID":null,"metadata":null}`, 201, "", "create base"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMemory()
			m.put("iknown", "alice", "")
			m.atHost = map[string]string{"ihost": "", "ibobs": "bob"}
			c := newClient(t, m, zap.NewNop())
			a := c.call(t, tt.secret, "POST", sandboxes, tt.body)
			if calls := m.changes(); a.status != tt.status || !slices.Equal(calls, []string{tt.calls}) {
				t.Fatalf("%s, %v", a, calls)
			}
			if a.status >= 300 {
				return
			}
			var sb shown
			a.decode(t, &sb)
			if sb.Owner != tt.owner {
				t.Errorf("%s", a)
			}
			again := c.call(t, tt.secret, "GET", a.header.Get("Location"), "")
			if again.body != a.body || again.header.Get("ETag") != a.header.Get("ETag") {
				t.Errorf("%s at %s, and not %s", again, a.header.Get("Location"), a)
			}
			if tt.name == "new" && m.lastNew.EnvVars["A"] != "b" {
				t.Errorf("%+v", m.lastNew)
			}
		})
	}
}

func TestStatus_saysWhatDoesNotWork(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(*memory)
		want  string
	}{
		{"all well", func(*memory) {}, "ok"},
		{"store down", func(m *memory) { m.status.Store.OK, m.status.Store.Error = false, "no leader" }, "degraded"},
		{"host down", func(m *memory) { m.status.Hosts[0].OK = false }, "degraded"},
		{"nobody leads", func(m *memory) { m.status.Leader.Node = "" }, "degraded"},
		{"a record can't be read", func(m *memory) { m.status.BrokenRecords = 1 }, "degraded"},
		{"no host", func(m *memory) { m.status.Hosts = nil }, "ok"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMemory()
			tt.spoil(m)
			c := newClient(t, m, zap.NewNop())
			a := c.call(t, viewer, "GET", "/api/v1/status", "")
			var s struct {
				Status, Version, Node, Uptime string
				Sandboxes                     map[string]int
			}
			a.decode(t, &s)
			if a.status != http.StatusOK || s.Status != tt.want || s.Version != "1.2.3" || s.Node != "n1" || s.Uptime != "1m0s" || s.Sandboxes["RUNNING"] != 1 {
				t.Errorf("%s", a)
			}
			if bound := c.call(t, alice, "GET", "/api/v1/status", ""); strings.Contains(bound.body, "RUNNING") || strings.Contains(bound.body, "brokenRecords") {
				t.Errorf("one owner sees how many there are: %s", bound)
			}
		})
	}
}

func TestHead_isGetWithoutBody(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(newClient(t, newMemory(), zap.NewNop()).h)
	defer srv.Close()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodHead, srv.URL+"/api/v1/status", nil)
	r.Header.Set("Authorization", "Bearer "+viewer)
	res, err := srv.Client().Do(r)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("%v, %v", res, err)
	}
}

func TestStatus_tellsWhoAsks(t *testing.T) {
	t.Parallel()
	c := newClient(t, newMemory(), zap.NewNop())
	for secret, want := range map[string]string{
		viewer: `"token":{"name":"eye","role":"viewer"}`,
		alice:  `"role":"admin","owner":"alice"}`,
	} {
		if a := c.call(t, secret, "GET", "/api/v1/status", ""); !strings.Contains(a.body, want) || strings.Contains(a.body, secret) {
			t.Errorf("the status says %s, wanted %s", a.body, want)
		}
	}
}
