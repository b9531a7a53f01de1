package wake

import (
	"fmt"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

// Rule says who may wake a sandbox.
type Rule string

// The rules. A sandbox may have one of its own, which wins.
const (
	WakeAny    Rule = "any"    // whoever sends a request
	WakeIntent Rule = "intent" // who may be a person, or works for one
	WakeManual Rule = "manual" // nobody but by hand: the API, or the button of the waiting page
)

// DefaultReconnectWakes is how often a day pages that were open at the pause may
// wake their sandbox without a person.
const DefaultReconnectWakes = 6

// Policy is what a site allows. The zero value allows all but reconnects of
// pages that were open at the pause, by intent.
type Policy struct {
	Rule           Rule // "": intent
	ReconnectWakes int  // a day, UTC; 0: none
}

// RefusedError says that this request may not wake the sandbox; another may.
type RefusedError struct {
	Asker      Asker
	Code       string        // a word that names the rule
	Reason     string        // in words
	RetryAfter time.Duration // when it may; 0: the passing of time changes nothing
}

// Codes of a RefusedError beside those of the askers that never wake.
const (
	CodeManual = "manual"           // it is only woken by hand
	CodeBudget = "reconnect-budget" // reconnects have woken it often enough today
)

func (e *RefusedError) Error() string { return e.Reason }

// For gives what Cause.May goes by for one asker.
func (p Policy) For(a Asker) func(session.Record) error {
	return func(r session.Record) error {
		if refused := p.judge(a, r, time.Now().UTC()); refused != nil {
			return refused
		}
		return nil
	}
}

// Of gives the rule that holds for a sandbox. One that is not known, from
// another version's record, is as none.
func (p Policy) Of(r session.Record) Rule {
	for _, rule := range []Rule{Rule(r.WakePolicy), p.Rule} {
		switch rule {
		case WakeAny, WakeIntent, WakeManual:
			return rule
		}
	}
	return WakeIntent
}

func (p Policy) judge(a Asker, r session.Record, now time.Time) *RefusedError {
	switch rule := p.Of(r); {
	case rule == WakeAny:
		return nil
	case rule == WakeManual:
		return &RefusedError{Asker: a, Code: CodeManual, Reason: "it is only woken by hand"}
	case unintended[a] != "":
		return &RefusedError{Asker: a, Code: unintended[a], Reason: "a " + a.String() + " does not wake a sandbox"}
	case a.Reconnects() && r.Parked > 0:
		return p.budget(a, r, now)
	}
	return nil
}

// unintended is what no person has asked for, and the code of its refusal.
var unintended = map[Asker]string{
	Prefetch: "prefetch", Favicon: "favicon", CrossSite: "cross-site", Bot: "bot", WorkerScript: "worker-script",
}

// budget lets a day's first reconnects pass: a laptop that is opened finds its
// editors alive, and a forgotten tab costs minutes.
func (p Policy) budget(a Asker, r session.Record, now time.Time) *RefusedError {
	used := r.ReconnectsOn(now)
	if used < p.ReconnectWakes {
		return nil
	}
	return &RefusedError{
		Asker: a, Code: CodeBudget, RetryAfter: now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now),
		Reason: fmt.Sprintf("pages that were open when it was paused have woken it %d times today, of %d", used, p.ReconnectWakes),
	}
}
