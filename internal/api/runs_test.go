package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

func TestRuns_inPagesWithTheRateOfAll(t *testing.T) {
	t.Parallel()
	m := newMemory()
	c := newClient(t, m, zap.NewNop())
	if a := c.call(t, viewer, "GET", "/api/v1/runs", ""); strings.TrimSpace(a.body) != `{"runs":[],"successRate":1}` {
		t.Errorf("%s", a)
	}
	for i := range 5 {
		r := session.Run{Kind: session.RunPass, Node: "n1", StartedAt: day.Add(-time.Duration(i) * time.Minute), DurationMs: 1200, Looked: 9, Paused: 7}
		if i == 4 {
			r.Kind, r.Paused, r.Killed, r.Resumed, r.Failed, r.Errors = session.RunSweep, 1, 1, 4, 1, []string{"local: no answer"}
		}
		m.runs = append(m.runs, r.Named())
	}
	var ids []string
	for before, page := "", 0; page < 3; page++ {
		a := c.call(t, operator, "GET", "/api/v1/runs?limit=2&before="+before, "")
		var body struct {
			Runs        []struct{ ID string }
			SuccessRate float64
			Next        string
		}
		a.decode(t, &body)
		if body.SuccessRate != 34./35 || (body.Next == "") != (page == 2) {
			t.Errorf("page %d: %s", page, a)
		}
		for _, r := range body.Runs {
			ids = append(ids, r.ID)
		}
		before = body.Next
		if page == 2 && !strings.Contains(a.body, `"kind":"sweep","node":"n1","startedAt":"2026-11-24T11:56:00Z","durationMs":1200,"looked":9,"paused":1,"resumed":4,"killed":1,"failed":1,"errors":["local: no answer"]`) {
			t.Errorf("%s", a)
		}
	}
	for i, r := range m.runs {
		if i >= len(ids) || ids[i] != r.ID {
			t.Fatalf("got %v", ids)
		}
	}
	for _, none := range []string{"zzz", "1764028560000", "1764028560000-nap-n1"} {
		if a := c.call(t, viewer, "GET", "/api/v1/runs?before="+none, ""); a.status != http.StatusUnprocessableEntity || a.code(t) != "invalid" {
			t.Errorf("before=%s: %s", none, a)
		}
	}
	if a := c.call(t, alice, "GET", "/api/v1/runs", ""); a.status != http.StatusForbidden {
		t.Errorf("%s", a)
	}
	m.fail = fmt.Errorf("no store")
	if a := c.call(t, viewer, "GET", "/api/v1/runs", ""); a.status != http.StatusInternalServerError {
		t.Errorf("%s", a)
	}
}
