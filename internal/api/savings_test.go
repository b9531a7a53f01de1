package api_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
)

// usageBook is api.SavingsReader.
type usageBook struct {
	usageMu  sync.Mutex // guards the following fields
	used     []api.Used
	from, to session.Day // as asked for last
}

func (b *usageBook) Usage(_ context.Context, from, to session.Day) ([]api.Used, error) {
	b.usageMu.Lock()
	defer b.usageMu.Unlock()
	b.from, b.to = from, to
	return b.used, nil
}

func used(id string, first, last session.Day, owner, project string, running, paused, host time.Duration) api.Used {
	return api.Used{SandboxID: id, Days: session.Days{First: first, Last: last, Usage: session.Usage{
		Owner: owner, Project: project, RunningMs: running.Milliseconds(), PausedMs: paused.Milliseconds(), HostMs: host.Milliseconds(),
	}}}
}

type savingsAnswer struct {
	From, To       session.Day
	PricePerMinute float64
	Currency       string
	HostTimeout    string
	Total          savedSum
	Groups         []struct {
		Name string
		savedSum
	}
	Days []struct {
		Day session.Day
		savedSum
	}
}

type savedSum struct {
	RunningMs, PausedMs, AlwaysOnMs, HostTimeoutMs int64
	Cost, AlwaysOnCost, HostTimeoutCost, Saved     float64
}

// newSavings has what two owners used on three days, and what nobody owns.
func newSavings(t *testing.T) (*memory, *client) {
	t.Helper()
	m := newMemory()
	m.used = []api.Used{
		used("ia", "2026-11-01", "2026-11-02", "alice", "web", 0, 24*time.Hour, 0),
		used("ia", "2026-11-03", "2026-11-03", "alice", "web", time.Hour, 2*time.Hour, 10*time.Minute),
		used("ib", "2026-11-03", "2026-11-03", "bob", "web", 10*time.Minute, 0, 0),
		used("ib", "2026-11-03", "2026-11-03", "alice", "db", 20*time.Minute, 0, 0),
		used("inobody", "2026-11-03", "2026-11-03", "", "", time.Minute, 0, 0),
	}
	return m, newClient(t, m, zap.NewNop())
}

func (c *client) savings(t *testing.T, secret, query string) (s savingsAnswer) {
	t.Helper()
	a := c.call(t, secret, "GET", "/api/v1/savings?"+query, "")
	if a.status != http.StatusOK {
		t.Fatalf("%s", a)
	}
	a.decode(t, &s)
	return s
}

const three = "from=2026-11-01&to=2026-11-03"

func TestSavings_sumsAndCosts(t *testing.T) {
	t.Parallel()
	m, c := newSavings(t)
	s := c.savings(t, admin, three+"&group=owner")
	if m.from != "2026-11-01" || m.to != "2026-11-03" || s.From != m.from || s.To != m.to {
		t.Errorf("%s to %s was read, %s to %s is told", m.from, m.to, s.From, s.To)
	}
	running, paused := 91*time.Minute, 50*time.Hour
	want := savedSum{
		RunningMs: running.Milliseconds(), PausedMs: paused.Milliseconds(), AlwaysOnMs: (running + paused).Milliseconds(),
		HostTimeoutMs: (running + 10*time.Minute).Milliseconds(),
		Cost:          0.0455, AlwaysOnCost: 1.5455, HostTimeoutCost: 0.0505, Saved: 1.5,
	}
	if s.Total != want || s.PricePerMinute != 0.0005 || s.Currency != "EUR" || s.HostTimeout != "5m0s" {
		t.Errorf("total %+v\nwant  %+v; at %v by %s", s.Total, want, s.PricePerMinute, s.HostTimeout)
	}
	var names []string
	for _, g := range s.Groups {
		names = append(names, g.Name)
	}
	if !slices.Equal(names, []string{"alice", "", "bob"}) || s.Groups[0].RunningMs != (80*time.Minute).Milliseconds() {
		t.Errorf("groups %+v", s.Groups)
	}
	if len(s.Days) != 3 || s.Days[0].Day != "2026-11-01" || s.Days[1].PausedMs != 24*time.Hour.Milliseconds() || s.Days[2].RunningMs != running.Milliseconds() {
		t.Errorf("days %+v", s.Days)
	}
}

func TestSavings_groupsAndFilters(t *testing.T) {
	t.Parallel()
	_, c := newSavings(t)
	for query, want := range map[string]string{
		"":                          "",
		"group=project":             "web ,db,",
		"group=sandbox":             "ia,ib,inobody",
		"group=sandbox&owner=bob":   "ib",
		"group=owner&project=db":    "alice",
		"group=owner&owner=nobody":  "",
		"group=project&owner=alice": "web,db",
	} {
		var names []string
		for _, g := range c.savings(t, admin, three+"&"+query).Groups {
			names = append(names, g.Name)
		}
		slices.Sort(names)
		asked := strings.Split(strings.ReplaceAll(want, " ", ""), ",")
		if want == "" {
			asked = nil
		}
		slices.Sort(asked)
		if !slices.Equal(names, asked) {
			t.Errorf("%s: %q, want %q", query, names, asked)
		}
	}
}

func TestSavings_areHiddenAsSandboxesAre(t *testing.T) {
	t.Parallel()
	_, c := newSavings(t)
	for _, k := range []struct {
		secret, query string
		running       time.Duration
	}{
		{alice, "", 80 * time.Minute},
		{aliceSee, "", 80 * time.Minute},
		{alice, "&owner=bob", 0},
		{bob, "", 10 * time.Minute},
		{viewer, "", 90 * time.Minute}, // not what is nobody's
		{operator, "", 91 * time.Minute},
	} {
		s := c.savings(t, k.secret, three+"&group=sandbox"+k.query)
		if got := time.Duration(s.Total.RunningMs) * time.Millisecond; got != k.running {
			t.Errorf("%s%s sees %s, want %s", k.secret, k.query, got, k.running)
		}
		for _, g := range s.Groups {
			if g.Name == "inobody" && k.secret != operator {
				t.Errorf("%s sees what is nobody's", k.secret)
			}
		}
	}
}

func TestSavings_range(t *testing.T) {
	t.Parallel()
	m, c := newSavings(t)
	today := session.DayOf(time.Now())
	for _, k := range []struct{ query, from, to string }{
		{"", string(today), string(today)},
		{"to=2026-11-03", "2026-11-03", "2026-11-03"},
		{"from=2026-11-01T23:59:59%2B02:00&to=2026-11-03T00:00:00Z", "2026-11-01", "2026-11-02"},
		{"from=2026-11-01T01:00:00%2B02:00&to=2026-11-03T00:00:01Z", "2026-10-31", "2026-11-03"},
	} {
		s := c.savings(t, admin, k.query)
		if string(m.from) != k.from || string(m.to) != k.to || len(s.Days) == 0 {
			if k.query != "" { // midnight may have passed
				t.Errorf("%s: %s to %s, want %s to %s", k.query, m.from, m.to, k.from, k.to)
			}
		}
	}
	for _, bad := range []string{
		"from=2026-11-03&to=2026-11-01", "from=yesterday", "to=2026-13-01", "from=2020-01-01&to=2026-01-01", "group=host", "from=2999-01-01",
	} {
		if a := c.call(t, admin, "GET", "/api/v1/savings?"+bad, ""); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %s", bad, a)
		}
	}
}

func TestHistory_filters(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	const history = "/api/v1/sandboxes/ia/history"
	if a := c.call(t, admin, "GET", history+"?state=PAUSED,KILLED&from=2026-11-01&to=2026-11-03&before=9&limit=7", ""); a.status != http.StatusOK {
		t.Fatalf("%s", a)
	}
	q := m.lastHistory
	if !slices.Equal(q.To, []session.State{session.Paused, session.Killed}) || q.Before != 9 || q.Limit != 7 ||
		!q.Since.Equal(session.Day("2026-11-01").Start()) || !q.Until.Equal(session.Day("2026-11-04").Start()) {
		t.Errorf("asked for %+v", q)
	}
	c.call(t, admin, "GET", history+"?to=2026-11-03T12:00:00Z", "")
	if q := m.lastHistory; !q.Until.Equal(session.Day("2026-11-03").Start().Add(12*time.Hour)) || !q.Since.IsZero() || q.To != nil {
		t.Errorf("asked for %+v", q)
	}
	for _, bad := range []string{"from=x", "state=ASLEEP", "from=2026-11-03&to=2026-11-01"} {
		if a := c.call(t, admin, "GET", history+"?"+bad, ""); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %s", bad, a)
		}
	}
}
