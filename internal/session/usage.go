package session

import "time"

// KeepUsage is how long usage is kept: what is older is neither written nor
// shown.
const KeepUsage = 400 * dayLong

const dayLong = 24 * time.Hour

// Usage is what a sandbox has used, in milliseconds, while it belonged to one
// owner and project. Time in Pausing and Resuming is running time: the host
// bills for it.
type Usage struct {
	Owner     string `json:"owner,omitempty"`
	Project   string `json:"project,omitempty"`
	RunningMs int64  `json:"runningMs,omitempty"`
	PausedMs  int64  `json:"pausedMs,omitempty"`
	// HostMs is that part of PausedMs in which the host would have let it run,
	// had its own timeout alone decided: see [DaysUsed].
	HostMs int64 `json:"hostMs,omitempty"`
}

// Add sums up the times of both; owner and project are u's.
func (u Usage) Add(o Usage) Usage {
	u.RunningMs += o.RunningMs
	u.PausedMs += o.PausedMs
	u.HostMs += o.HostMs
	return u
}

// Empty tells whether nothing was used.
func (u Usage) Empty() bool { return u.RunningMs == 0 && u.PausedMs == 0 }

// Day is a day of UTC, as YYYY-MM-DD. Days sort as strings.
type Day string

// DayOf gives the day of a time.
func DayOf(t time.Time) Day { return Day(day(t)) }

// Start is the midnight that the day begins with, the zero time where d is no day.
func (d Day) Start() time.Time {
	t, _ := time.Parse(time.DateOnly, string(d))
	return t
}

// Month is the day's month, as YYYY-MM.
func (d Day) Month() string { return string(d[:min(len(d), len("2006-01"))]) }

// Next is the day after.
func (d Day) Next() Day { return DayOf(d.Start().Add(dayLong)) }

// Days are what was used on each of the days from First to Last, which are of
// one month; where they are two, then each of them whole.
type Days struct {
	First, Last Day
	Usage       // of each day
}

// Count is how many days they are.
func (d Days) Count() int { return int(d.Last.Start().Sub(d.First.Start())/dayLong) + 1 }

// UsageBetween is what the step from one record of a sandbox to the next adds
// to its usage: the time that it spent in the state that it leaves, or under
// the owner and project that it leaves; the same that it adds to its totals. It
// is to be written with the step or not at all: so no moment is counted twice,
// and none is lost.
func UsageBetween(from, to Record, hostTimeout time.Duration) []Days {
	return DaysUsed(from, to.countedFrom(), hostTimeout)
}

// DaysUsed is what a sandbox has used since its last step until now, by days of
// UTC; at most one Days for each day at the edges, and one for each month. It is
// what a step at now would add.
//
// A host's own timeout is asked for at each start, and again as long as the
// sandbox is to run: a run ends with the last timeout that was begun. Of the
// time in which Sandman let it sleep instead, HostMs says how much of that is.
func DaysUsed(r Record, now time.Time, hostTimeout time.Duration) []Days {
	end := now.UnixMilli()
	start := max(r.countedFrom().UnixMilli(), end-KeepUsage.Milliseconds())
	var all []Days
	for start < end {
		today := DayOf(time.UnixMilli(start))
		until := min(end, today.Start().Add(dayLong).UnixMilli())
		all = appendDay(all, Days{today, today, r.used(start, until, hostTimeout)})
		start = until
	}
	return all
}

// Clocks are set, and no two show the same. So what counts is the time that
// they show, and each moment of it once: a record has a border, up to which all
// has been counted. A step counts from there to the time that its own clock
// shows, and puts the border there. Where that is before the border, since one of
// the two clocks was wrong, nothing is counted, and the border stays: what was
// counted too much is made up for until the clock comes to it. Where the border is
// a day ahead or more, making up would take too long: it comes back to now.

// maxAhead is how far ahead of a clock the border stays.
const maxAhead = dayLong

// countedFrom is the border: when the time begins that is in no usage and no
// totals yet.
func (r Record) countedFrom() time.Time {
	if r.CountedTo.IsZero() {
		return r.Since
	}
	return r.CountedTo
}

// count gives the record with its time counted up to now.
func (r Record) count(now time.Time) Record {
	border := r.countedFrom()
	r.Totals = r.Totals.add(r.State, now.UnixMilli()-border.UnixMilli())
	if ahead := border.Sub(now); ahead > 0 && ahead < maxAhead {
		r.CountedTo = border
		return r
	}
	r.CountedTo = now
	return r
}

// add counts ms to the time spent in state s, nothing if they are negative.
func (t Totals) add(s State, ms int64) Totals {
	switch s {
	case Killed: // it costs nothing, and is nothing
	case Paused:
		t.PausedMs += max(0, ms)
	case Running, Pausing, Resuming:
		t.RunningMs += max(0, ms)
	}
	return t
}

// used is the usage of a part of the record's time, in Unix milliseconds.
func (r Record) used(from, to int64, hostTimeout time.Duration) Usage {
	u := Usage{Owner: r.Owner, Project: r.Project}
	switch r.State {
	case Running, Pausing, Resuming:
		u.RunningMs = to - from
	case Paused:
		u.PausedMs = to - from
		if ends, ok := r.hostEnd(hostTimeout); ok {
			u.HostMs = max(0, min(to, ends)-from)
		}
	case Killed:
	}
	return u
}

// hostEnd is when the host's own timeout would have ended the run that a pause
// did end.
func (r Record) hostEnd(timeout time.Duration) (ms int64, ok bool) {
	step := timeout.Milliseconds()
	if r.StartedAt == nil || r.PausedAt == nil || step <= 0 {
		return 0, false
	}
	start := r.StartedAt.UnixMilli()
	run := r.PausedAt.UnixMilli() - start
	if run <= 0 {
		return 0, false
	}
	return start + (run+step-1)/step*step, true
}

// appendDay joins a day to those before it that were the same.
func appendDay(all []Days, d Days) []Days {
	if d.Empty() {
		return all
	}
	whole := d.RunningMs+d.PausedMs == dayLong.Milliseconds()
	if n := len(all); whole && n > 0 && all[n-1].Usage == d.Usage && all[n-1].First.Month() == d.First.Month() {
		all[n-1].Last = d.Last
		return all
	}
	return append(all, d)
}

// Counted gives the record with its time counted up to now if it has come to
// another owner or project than before had: what was used until then is the
// former one's. now is when the change is written.
func (r Record) Counted(before Record, now time.Time) Record {
	if r.Owner == before.Owner && r.Project == before.Project {
		return r
	}
	return r.count(now)
}
