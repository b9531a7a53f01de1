package session_test

import (
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

func policy(idle, longest time.Duration, wake string) *session.Policy {
	return &session.Policy{IdleTimeout: session.Duration(idle), MaxIdleTimeout: session.Duration(longest), WakePolicy: wake, UpdatedBy: "token ops", UpdatedAt: t0}
}

func TestRules_whoseWordHolds(t *testing.T) {
	t.Parallel()
	const byDefault = 10 * time.Minute
	for _, c := range []struct {
		name           string
		own            time.Duration
		project, owner *session.Policy
		limits         session.Limits
		want           time.Duration
		from           session.Source
		limit          session.Source
	}{
		{name: "nobody says anything", want: byDefault, from: session.FromDefault},
		{name: "the owner", owner: policy(time.Hour, 0, ""), want: time.Hour, from: session.FromOwner},
		{name: "the project before the owner", project: policy(time.Minute, 0, ""), owner: policy(time.Hour, 0, ""), want: time.Minute, from: session.FromProject},
		{name: "a project that says nothing", project: policy(0, 0, "any"), owner: policy(time.Hour, 0, ""), want: time.Hour, from: session.FromOwner},
		{name: "the sandbox before all", own: 2 * time.Minute, project: policy(time.Minute, 0, ""), owner: policy(time.Hour, 0, ""), want: 2 * time.Minute, from: session.FromSandbox},
		{
			name: "above the operator's limit", own: 3 * time.Hour, limits: session.Limits{MaxIdleTimeout: time.Hour},
			want: time.Hour, from: session.FromSandbox, limit: session.FromDefault,
		},
		{
			name: "below the operator's limit", project: policy(time.Minute, 0, ""), limits: session.Limits{MinIdleTimeout: 5 * time.Minute},
			want: 5 * time.Minute, from: session.FromProject, limit: session.FromDefault,
		},
		{name: "below what the protocol bears", own: time.Second, want: session.MinIdleTimeout, from: session.FromSandbox, limit: session.FromDefault},
		{name: "above the owner's limit", own: 3 * time.Hour, owner: policy(0, time.Hour, ""), want: time.Hour, from: session.FromSandbox, limit: session.FromOwner},
		{name: "the default above it", owner: policy(0, time.Minute, ""), want: time.Minute, from: session.FromDefault, limit: session.FromOwner},
		{
			name: "the lowest of the limits", own: 9 * time.Hour, owner: policy(0, time.Hour, ""), project: policy(0, 2*time.Hour, ""), limits: session.Limits{MaxIdleTimeout: 3 * time.Hour},
			want: time.Hour, from: session.FromSandbox, limit: session.FromOwner,
		},
		{
			name: "the operator's shortest before an owner's longest", owner: policy(0, time.Minute, ""), limits: session.Limits{MinIdleTimeout: 5 * time.Minute},
			want: 5 * time.Minute, from: session.FromDefault, limit: session.FromOwner,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ru := session.Rules{IdleTimeout: byDefault, Limits: c.limits, Project: c.project, Owner: c.owner}
			s := ru.Settings(session.Record{IdleTimeout: session.Duration(c.own)})
			if s.IdleTimeout != c.want || s.IdleSource != c.from || s.IdleLimit != c.limit {
				t.Errorf("%s from %s (limit %q), want %s from %s (limit %q)", s.IdleTimeout, s.IdleSource, s.IdleLimit, c.want, c.from, c.limit)
			}
			if (s.IdleAsked == s.IdleTimeout) != (c.limit == "") {
				t.Errorf("asked %s, holds %s, limit %q", s.IdleAsked, s.IdleTimeout, c.limit)
			}
			if marked := s.IdleMark.By != ""; marked != (c.from == session.FromOwner || c.from == session.FromProject) {
				t.Errorf("set by %+v", s.IdleMark)
			}
		})
	}
}

func TestRules_whatMayWake(t *testing.T) {
	t.Parallel()
	ru := session.Rules{Project: policy(0, 0, "any"), Owner: policy(0, 0, "manual")}
	for _, c := range []struct {
		own, want string
		from      session.Source
		ru        session.Rules
	}{
		{"", "any", session.FromProject, ru},
		{"intent", "intent", session.FromSandbox, ru},
		{"", "manual", session.FromOwner, session.Rules{Owner: ru.Owner, Project: policy(time.Hour, 0, "")}},
		{"", "", session.FromSite, session.Rules{}},
	} {
		s := c.ru.Settings(session.Record{WakePolicy: c.own})
		if s.WakePolicy != c.want || s.WakeSource != c.from {
			t.Errorf("%q from %s, want %q from %s", s.WakePolicy, s.WakeSource, c.want, c.from)
		}
	}
}

func TestRecord_Marked(t *testing.T) {
	t.Parallel()
	first := session.Record{}.Marked("ops", t0, "idleTimeout", "owner")
	second := first.Marked("ann", at(5), "owner")
	if m := first.SetBy["owner"]; m.By != "ops" {
		t.Errorf("the first record was changed in place: %+v", m)
	}
	if m := second.SetBy; m["owner"] != (session.Mark{By: "ann", At: at(5)}) || m["idleTimeout"] != (session.Mark{By: "ops", At: t0}) {
		t.Errorf("%+v", m)
	}
	if s := (session.Rules{}).Settings(session.Record{IdleTimeout: session.Duration(time.Hour), SetBy: second.SetBy}); s.IdleMark.By != "ops" {
		t.Errorf("%+v", s.IdleMark)
	}
}
