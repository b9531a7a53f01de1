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

func (x explanation) ago(t time.Time) string {
	return max(0, x.now.Sub(t)).Round(time.Second).String()
}

func (x explanation) standing() string {
	is := map[session.State]string{
		session.Running: "It runs", session.Pausing: "It is being paused", session.Paused: "It sleeps",
		session.Resuming: "It is being woken", session.Killed: "It is gone for good",
	}[x.State]
	return fmt.Sprintf("%s since %s, for %s: %s.", is, clock(x.Since), x.ago(x.Since), x.Reason)
}

// next says what will happen to it, and what that depends on.
func (x explanation) next() []string {
	switch x.State {
	case session.Running:
		return x.awake()
	case session.Paused, session.Pausing:
		return []string{x.wakes()}
	case session.Resuming, session.Killed:
	}
	return nil
}

func (x explanation) awake() []string {
	var all []string
	for _, k := range x.KeptAwakeBy {
		all = append(all, "It is kept awake: "+k.Words+".")
	}
	if x.PauseAt == nil {
		return all
	}
	will := fmt.Sprintf("Nothing keeps it awake: it will be paused in %s, at %s", max(0, x.PauseAt.Sub(x.now)).Round(time.Second), clock(*x.PauseAt))
	if x.last != nil {
		will += fmt.Sprintf(". Its last use was %s ago (%s)", x.ago(*x.last), x.kind)
	}
	return append(all, will+".")
}

// wakes says what ends its sleep.
func (x explanation) wakes() string {
	for _, s := range x.Settings {
		if s.Name == "wakePolicy" && s.Value == string(wake.WakeManual) {
			return "No request wakes it: it is to be resumed by hand."
		}
	}
	return "The next request that may wakes it."
}

func (x explanation) failure() []string {
	if x.LastError == nil {
		return nil
	}
	op := map[session.OpKind]string{session.OpPause: "pause", session.OpResume: "wake"}[x.LastError.Op]
	words := fmt.Sprintf("The last try to %s it has failed, %s in a row, at %s: %s.",
		op, times(x.LastError.Failures), clock(x.LastError.At), x.LastError.Message)
	if x.LastError.RetryAt.After(x.now) {
		words += fmt.Sprintf(" The next one is not made before %s.", clock(x.LastError.RetryAt))
	}
	return []string{words}
}

func (x explanation) past() []string {
	if x.historyLost {
		return []string{"Its history can't be read now."}
	}
	var all []string
	if x.LastPause != nil {
		all = append(all, fmt.Sprintf("It was paused last at %s: %s.", clock(x.LastPause.At), x.LastPause.Reason))
	}
	if x.LastWake != nil {
		all = append(all, fmt.Sprintf("It was woken last at %s: %s.", clock(x.LastWake.At), x.LastWake.Reason))
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
			{n.Dormant, "dormant, which does not keep it awake"},
			{n.Parked, "parked until it runs"},
			{n.Unnamed, "not told of one by one"},
		} {
			if c.n > 0 {
				kinds = append(kinds, fmt.Sprintf("%d %s", c.n, c.what))
			}
		}
		all = append(all, plural(total, "stream")+" open: "+strings.Join(kinds, "; ")+".")
	}
	if x.Parked > 0 {
		all = append(all, fmt.Sprintf("%s open at the last pause: pages come again by themselves, and have woken it %s today.",
			plural(x.Parked, "stream"), times(x.ReconnectWakes)))
	}
	return all
}
