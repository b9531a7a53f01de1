package recording

import (
	"slices"
	"strings"
	"time"
)

// truth is what really happened: who was there, and when.
type truth struct {
	inputs   []input
	absences []span // in which nobody was there
	stops    []span // in which the application was frozen
}

type input struct {
	at          time.Duration
	event, what string
}

// from is when the first effect of an input may be seen.
func (in input) from() time.Duration {
	if in.event == "click" || in.event == "run-cell" {
		return in.at - lateLog
	}
	return in.at
}

type span struct{ from, to time.Duration }

func (s span) length() time.Duration          { return s.to - s.from }
func (s span) contains(at time.Duration) bool { return at >= s.from && at <= s.to }
func within(spans []span, at time.Duration) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return s.contains(at) })
}

func newTruth(rec *Recording) *truth {
	t := new(truth)
	var ready, end time.Duration
	for i := range rec.lines {
		l := &rec.lines[i]
		end = max(end, l.at())
		switch l.Event {
		case "ready":
			ready = l.at()
		case "key", "click", "mouse", "scroll", "run-cell":
			t.inputs = append(t.inputs, input{l.at(), l.Event, strings.Join([]string{l.Event, l.Key, l.Where}, " ")})
		case "SIGSTOP":
			t.stops = append(t.stops, span{l.at(), l.at()})
		}
		if n := len(t.stops); n > 0 && (l.Event == "SIGCONT" || i == len(rec.lines)-1) && t.stops[n-1].length() == 0 {
			t.stops[n-1].to = l.at()
		}
	}
	t.findAbsences(ready+settling, end)
	return t
}

func (t *truth) findAbsences(from, end time.Duration) {
	for _, in := range t.inputs {
		if until := in.at - lateLog; until > from {
			t.absences = append(t.absences, span{from, until})
		}
		from = max(from, in.at+lingering)
	}
	if end > from {
		t.absences = append(t.absences, span{from, end})
	}
}

func (t *truth) isAlone(at time.Duration) bool { return within(t.absences, at) }

// parked tells whether the application was frozen then.
func (t *truth) parked(at time.Duration) bool { return within(t.stops, at) }

// woken tells whether the application had been frozen until just then.
func (t *truth) woken(at time.Duration) bool {
	return slices.ContainsFunc(t.stops, func(s span) bool { return at >= s.to && at <= s.to+lingering })
}

func (t *truth) alone() (sum time.Duration) {
	for _, s := range t.absences {
		sum += s.length()
	}
	return sum
}

// ownDoing returns which sorts of deeds the page does by itself: those that come
// also when there was no input just before. That an input was followed by such a
// thing proves nothing.
func (t *truth) ownDoing(found []deed) map[string]bool {
	own := map[string]bool{}
	for _, d := range found {
		near := slices.ContainsFunc(t.inputs, func(in input) bool { return d.at >= in.from() && d.at <= in.at+prompt })
		if !near {
			own[d.like] = true
		}
	}
	return own
}
