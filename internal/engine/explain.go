package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// lastOf finds the last pause and the last wake that came to their end.
func lastOf(lines []store.HistoryLine) (paused, woken *session.Transition) {
	for _, l := range lines {
		switch {
		case l.To == session.Paused && (l.From == session.Pausing || l.From == session.Running):
			if paused == nil {
				paused = &l.Transition
			}
		case l.To == session.Running && (l.From == session.Resuming || l.From == session.Paused):
			if woken == nil {
				woken = &l.Transition
			}
		}
	}
	return paused, woken
}

// explanation puts a Why into sentences.
type explanation struct {
	api.Why
	now         time.Time
	last        *time.Time // use
	kind        string     // of it
	historyLost bool
}

// words answers in the order in which a person would ask.
func (x explanation) words() []string {
	all := slices.Concat([]string{x.standing()}, x.next(), x.failure(), x.past(), x.open())
	for _, r := range x.Refused {
		all = append(all, r.Words+" "+r.Change)
	}
	for _, r := range x.Repeats {
		all = append(all, r.Words)
	}
	for _, s := range x.Settings {
		all = append(all, s.Words)
	}
	return all
}

func (x explanation) since(t time.Time) string { return session.Span(max(0, x.now.Sub(t))) }

func (x explanation) standing() string {
	is := map[session.State]string{
		session.Running: "It has been running for", session.Pausing: "It has been going to sleep for", session.Paused: "It has been asleep for",
		session.Resuming: "It has been waking up for", session.Killed: "It has been gone for good for",
	}[x.State]
	words := fmt.Sprintf("%s %s, since %s.", is, x.since(x.Since), clock(x.Since))
	if x.Reason != "" {
		words += " " + capital(strings.TrimRight(x.Reason, ". ")) + "."
	}
	return words
}

// next says what will happen to it, and what that depends on.
func (x explanation) next() []string {
	switch {
	case x.State == session.Running:
		return x.awake()
	case x.StoreAway:
		return []string{"The session store can't be reached: this is how it stood when it was last heard of."}
	case x.State == session.Paused, x.State == session.Pausing:
		return []string{x.wakes()}
	}
	return nil
}

func (x explanation) awake() []string {
	var all []string
	for _, k := range x.KeptAwakeBy {
		all = append(all, keeps(k))
	}
	if x.PauseAt == nil {
		return all
	}
	will := fmt.Sprintf("Nothing keeps it awake: it will be paused in %s, at %s.", session.Span(max(0, x.PauseAt.Sub(x.now))), clock(*x.PauseAt))
	switch {
	case x.last == nil:
	case x.kind == firstSeen:
		will += fmt.Sprintf(" It has not been used since it was first seen, %s ago.", x.since(*x.last))
	default:
		will += fmt.Sprintf(" It was last used %s ago (%s).", x.since(*x.last), x.kind)
	}
	return append(all, will)
}

// firstSeen is the kind of activity that the store notes of a sandbox that it
// did not know before: nobody has used it yet.
const firstSeen = "adopted"

// keeps makes a sentence of what keeps it awake.
func keeps(k api.Keeper) string {
	switch {
	case k.Kind == api.KeptByHold:
		return "It is kept awake by the " + k.Words + "."
	case strings.HasPrefix(k.Words, inUse):
		return "It is " + k.Words + "."
	case k.Kind == api.KeptByRequest, k.Kind == api.KeptByStream:
		return "It is kept awake by " + k.Words + "."
	}
	return capital(k.Words) + "."
}

// wakes says what ends its sleep.
func (x explanation) wakes() string {
	const programs = "The next request from a person or a program wakes it"
	for _, s := range x.Settings {
		switch {
		case s.Name != "wakePolicy":
		case s.Value == string(wake.WakeManual):
			return "No request wakes it: resume it by hand."
		case s.Value == string(wake.WakeAny):
			return "The next request wakes it, whoever sends it."
		case s.Value == string(wake.WakeIntent):
			return programs + "."
		}
	}
	return programs + ", unless its site says otherwise."
}

func (x explanation) failure() []string {
	if x.LastError == nil {
		return nil
	}
	op := map[session.OpKind]string{session.OpPause: "pause", session.OpResume: "wake"}[x.LastError.Op]
	words := fmt.Sprintf("The last attempt to %s it failed at %s: %s.", op, clock(x.LastError.At), strings.TrimRight(x.LastError.Message, ". "))
	if x.LastError.Failures > 1 {
		words += fmt.Sprintf(" It has failed %s in a row.", times(x.LastError.Failures))
	}
	if x.LastError.RetryAt.After(x.now) {
		words += fmt.Sprintf(" The next attempt is not made before %s.", clock(x.LastError.RetryAt))
	}
	return []string{words}
}

// past tells of the last pause and wake, unless that is how it stands now.
func (x explanation) past() []string {
	if x.historyLost {
		return []string{"Its history can't be read now."}
	}
	var all []string
	for _, c := range []struct {
		was   string
		state session.State
		at    *session.Transition
	}{{"paused", session.Paused, x.LastPause}, {"woken", session.Running, x.LastWake}} {
		if c.at != nil && (x.State != c.state || !c.at.At.Equal(x.Since)) {
			all = append(all, fmt.Sprintf("It was last %s at %s: %s.", c.was, clock(c.at.At), c.at.Reason))
		}
	}
	return all
}

// open tells of long connections, those now and those at the last pause.
func (x explanation) open() []string {
	var all []string
	n := x.Streams
	if total := n.Active + n.Dormant + n.Parked + n.Unnamed; total > 0 {
		var kinds []string
		for _, c := range []struct {
			n    int
			what string
		}{
			{n.Active, "active"},
			{n.Dormant, "quiet for so long that it does not keep it awake"},
			{n.Parked, "waiting until it runs"},
			{n.Unnamed, "not listed one by one"},
		} {
			if c.n > 0 {
				kinds = append(kinds, fmt.Sprintf("%d %s", c.n, c.what))
			}
		}
		all = append(all, "Open now: "+plural(total, "stream")+" ("+strings.Join(kinds, ", ")+").")
	}
	if x.Parked == 0 {
		return all
	}
	were := plural(x.Parked, "stream") + " were"
	if x.Parked == 1 {
		were = "1 stream was"
	}
	words := were + " open when it was last paused; their pages reconnect by themselves."
	if x.ReconnectWakes > 0 {
		words += fmt.Sprintf(" Such reconnects have woken it %s today (UTC).", times(x.ReconnectWakes))
	}
	return append(all, words)
}

// capital makes the first letter a capital one.
func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
