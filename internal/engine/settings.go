package engine

import (
	"fmt"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// settings tell what decides over a sandbox's sleep, and who has said so.
func settings(s session.Settings) []api.Setting {
	return []api.Setting{idleSetting(s), wakeSetting(s)}
}

func idleSetting(s session.Settings) api.Setting {
	said := saidBy(s.IdleSource, s.IdleMark)
	set := marked(api.Setting{
		Name: "idleTimeout", Value: session.Duration(s.IdleTimeout).String(), Source: string(s.IdleSource),
		Words: fmt.Sprintf("It is paused %s after its last use (%s).", session.Span(s.IdleTimeout), said),
	}, s.IdleMark)
	if s.IdleLimit != "" {
		set.Asked, set.Limit = session.Duration(s.IdleAsked).String(), string(s.IdleLimit)
		set.Words = fmt.Sprintf("It is paused %s after its last use: %s, %s, is beyond %s.",
			session.Span(s.IdleTimeout), session.Span(s.IdleAsked), said, limitOf(s.IdleLimit))
	}
	return set
}

func wakeSetting(s session.Settings) api.Setting {
	if s.WakePolicy == "" {
		return api.Setting{
			Name: "wakePolicy", Source: api.SetBySite,
			Words: "Each site decides which requests wake it; by default those from people and programs (intent).",
		}
	}
	who := map[wake.Rule]string{
		wake.WakeAny:    "Any request wakes it",
		wake.WakeIntent: "Requests from people and programs wake it",
		wake.WakeManual: "It is woken by hand only",
	}[wake.Rule(s.WakePolicy)]
	if who == "" {
		who = "Each site decides which requests wake it: this version knows no such policy"
	}
	return marked(api.Setting{
		Name: "wakePolicy", Value: s.WakePolicy, Source: string(s.WakeSource),
		Words: fmt.Sprintf("%s (%s, %s).", who, s.WakePolicy, saidBy(s.WakeSource, s.WakeMark)),
	}, s.WakeMark)
}

// saidBy says where a setting comes from, and who made it so when.
func saidBy(from session.Source, m session.Mark) string {
	words := map[session.Source]string{
		session.FromSandbox: "set for this sandbox", session.FromProject: "set for its project",
		session.FromOwner: "set for its owner", session.FromDefault: "the default",
	}[from]
	if m.By != "" {
		words += " by " + m.By
	}
	if !m.At.IsZero() {
		words += " at " + clock(m.At)
	}
	return words
}

func limitOf(whose session.Source) string {
	switch whose {
	case session.FromProject:
		return "the limit of its project"
	case session.FromOwner:
		return "the limit of its owner"
	default:
		return "the operator's limit"
	}
}

func marked(s api.Setting, m session.Mark) api.Setting {
	if m.By != "" {
		s.By = &m.By
	}
	if !m.At.IsZero() {
		s.At = &m.At
	}
	return s
}
