package session_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

const hostTimeout = 5 * time.Minute

func ms(d time.Duration) int64 { return d.Milliseconds() }

func TestDaysUsed_splitsAtMidnightUTC(t *testing.T) {
	t.Parallel()
	r := session.New("s", "h", session.Running, "", time.Date(2026, 11, 23, 23, 0, 0, 0, time.FixedZone("", -3600))) // midnight UTC
	r.Owner = "alice"
	got := session.DaysUsed(r, t0, hostTimeout)
	want := []session.Days{{First: "2026-11-24", Last: "2026-11-24", Usage: session.Usage{Owner: "alice", RunningMs: ms(12 * time.Hour)}}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	r.Since = t0.Add(-24 * time.Hour)
	got = session.DaysUsed(r, t0.Add(time.Millisecond), hostTimeout)
	if len(got) != 2 || got[0].First != "2026-11-23" || got[0].RunningMs != ms(12*time.Hour) || got[1].RunningMs != ms(12*time.Hour)+1 {
		t.Errorf("%+v", got)
	}
}

func TestDaysUsed_aLongSleepIsFewDays(t *testing.T) {
	t.Parallel()
	r := session.New("s", "h", session.Paused, "", t0)
	for years := range 3 {
		now := t0.AddDate(years, 0, 0).Add(90 * 24 * time.Hour)
		all := session.DaysUsed(r, now, hostTimeout)
		if len(all) > 20 {
			t.Errorf("%d years: %d days, more than a Txn takes", years, len(all))
		}
		var sum int64
		var days int
		for _, d := range all {
			if d.First.Month() != d.Last.Month() || d.Count() < 1 {
				t.Errorf("%+v is not of one month", d)
			}
			days += d.Count()
			sum += d.PausedMs * int64(d.Count())
		}
		if want := min(ms(now.Sub(t0)), ms(session.KeepUsage)); sum != want {
			t.Errorf("%d years: %d ms on %d days, want %d", years, sum, days, want)
		}
	}
}

func TestUsageBetween_whatIsCounted(t *testing.T) {
	t.Parallel()
	run := session.New("s", "h", session.Running, "", t0)
	for _, c := range []struct {
		name            string
		step            func(session.Record) session.Record
		running, paused time.Duration
	}{
		{"a transition", func(r session.Record) session.Record { r, _ = r.Settle(session.Paused, "", at(60)); return r }, time.Minute, 0},
		{"a clock that was set back", func(r session.Record) session.Record { r, _ = r.Settle(session.Paused, "", at(-60)); return r }, 0, 0},
		{"a setting", func(r session.Record) session.Record {
			before := r
			r.IdleTimeout = 5
			return r.Counted(before, at(60))
		}, 0, 0},
		{"another owner", func(r session.Record) session.Record {
			before := r
			r.Owner = "alice"
			return r.Counted(before, at(60))
		}, time.Minute, 0},
		{"another owner, by a clock that was set back", func(r session.Record) session.Record {
			before := r
			r.Owner = "alice"
			return r.Counted(before, at(-60))
		}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var sum session.Usage
			for _, d := range session.UsageBetween(run, c.step(run), hostTimeout) {
				sum = sum.Add(d.Usage)
			}
			if sum.RunningMs != ms(c.running) || sum.PausedMs != ms(c.paused) {
				t.Errorf("%+v, want %s and %s", sum, c.running, c.paused)
			}
		})
	}
}

func TestDaysUsed_hostsOwnTimeout(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ran, slept, want time.Duration // want: of the sleep, by a host timeout of 5 minutes
	}{
		{time.Minute, time.Hour, 4 * time.Minute},
		{5 * time.Minute, time.Hour, 0},
		{11 * time.Minute, time.Hour, 4 * time.Minute},
		{time.Minute, time.Minute, time.Minute}, // it is woken before that
		{0, time.Hour, 0},
	} {
		r := session.New("s", "h", session.Running, "", t0)
		r, err := r.Settle(session.Paused, "", t0.Add(c.ran))
		if err != nil {
			t.Fatal(err)
		}
		var sum session.Usage
		// in two parts, as where the owner changes in between
		middle := r
		middle.Owner = "alice"
		middle = middle.Counted(r, t0.Add(c.ran+c.slept/2))
		for _, d := range append(session.UsageBetween(r, middle, hostTimeout), session.DaysUsed(middle, t0.Add(c.ran+c.slept), hostTimeout)...) {
			sum = sum.Add(d.Usage)
		}
		if sum.PausedMs != ms(c.slept) || sum.HostMs != ms(c.want) {
			t.Errorf("ran %s, slept %s: %+v, want %s by the host", c.ran, c.slept, sum, c.want)
		}
	}
}

// TestUsage_eachMomentOnce takes random steps by clocks that are up to 22 hours
// apart, and compares what each adds with a high-water mark of the times that
// they showed.
func TestUsage_eachMomentOnce(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		h := newLedger(t, rnd)
		for range 40 {
			h.time = h.time.Add(time.Duration(rnd.Int64N(ms(20*time.Hour))) * time.Millisecond)
			clock := h.time.Add(time.Duration(rnd.Int64N(ms(22*time.Hour))-ms(11*time.Hour)) * time.Millisecond)
			h.step(clock)
			if t.Failed() {
				t.Fatalf("seed %d: at %s, the border was %s", seed, clock, h.high)
			}
		}
	}
}

// ledger is a sandbox's history, and beside it how each moment up to high was
// spent by the rule alone.
type ledger struct {
	t          *testing.T
	rnd        *rand.Rand
	r          session.Record
	time, high time.Time
	want       map[string]session.Usage // by owner
	days       map[session.Day]int64
	got        map[string]session.Usage
}

func newLedger(t *testing.T, rnd *rand.Rand) *ledger {
	return &ledger{
		t: t, rnd: rnd, r: session.New("s", "h", session.Running, "", t0), time: t0, high: t0,
		want: map[string]session.Usage{}, got: map[string]session.Usage{}, days: map[session.Day]int64{},
	}
}

func (h *ledger) step(clock time.Time) {
	next := h.next(clock)
	told := session.DaysUsed(h.r, clock, hostTimeout)
	for _, d := range session.UsageBetween(h.r, next, hostTimeout) {
		for day := d.First; day <= d.Last; day = day.Next() {
			h.days[day] += d.RunningMs + d.PausedMs
			if h.days[day] > ms(24*time.Hour) {
				h.t.Errorf("%s has %s", day, time.Duration(h.days[day])*time.Millisecond)
			}
			u := h.got[d.Owner].Add(session.Usage{RunningMs: d.RunningMs, PausedMs: d.PausedMs})
			h.got[d.Owner] = u
		}
	}
	if next.Owner != h.r.Owner || next.State != h.r.State || next.Since != h.r.Since { // else it is a setting, which counts nothing
		h.spend(clock)
		if counted := session.UsageBetween(h.r, next, hostTimeout); fmt.Sprint(told) != fmt.Sprint(counted) {
			h.t.Errorf("told %+v, and then counted %+v", told, counted)
		}
	}
	h.r = next
	var sum session.Usage
	for _, u := range h.got {
		sum = sum.Add(u)
	}
	if sum.RunningMs != next.Totals.RunningMs || sum.PausedMs != next.Totals.PausedMs {
		h.t.Errorf("usage %+v, totals %+v", sum, next.Totals)
	}
	if !maps.Equal(h.got, h.want) {
		h.t.Errorf("usage %+v, want %+v", h.got, h.want)
	}
}

// spend moves the mark up to clock, if that is later.
func (h *ledger) spend(clock time.Time) {
	if !clock.After(h.high) {
		return
	}
	u, d := h.want[h.r.Owner], ms(clock.Sub(h.high))
	switch h.r.State {
	case session.Running, session.Pausing, session.Resuming:
		u.RunningMs += d
	case session.Paused:
		u.PausedMs += d
	case session.Killed:
	}
	if u != (session.Usage{}) {
		h.want[h.r.Owner] = u
	}
	h.high = clock
}

// next takes some step: of the state, of the owner, of neither.
func (h *ledger) next(clock time.Time) session.Record {
	next := h.r
	var err error
	switch h.rnd.IntN(6) {
	case 0:
		next.Owner = fmt.Sprint(h.rnd.IntN(3))
		return next.Counted(h.r, clock)
	case 1:
		next.WakePolicy = "any"
		return next.Counted(h.r, clock)
	case 2:
		next, err = h.r.Sleep(op(session.OpPause), "", clock)
	case 3:
		next, err = h.r.Wake(op(session.OpResume), "", clock)
	case 4:
		next, err = h.r.Fail("", time.Second, clock)
	default:
		to := []session.State{session.Running, session.Paused, session.Killed}[h.rnd.IntN(3)]
		next, err = h.r.Settle(to, "", clock)
	}
	if err != nil { // not allowed from here
		return h.r
	}
	return next
}

// TestUsage_clocksAheadAndBack has one sandbox's clock be set wrong and right
// again, and look at what is counted in all.
func TestUsage_clocksAheadAndBack(t *testing.T) {
	t.Parallel()
	const h = time.Hour
	for _, c := range []struct {
		name    string
		clocks  []time.Duration // of the steps, since t0: to sleep, to run, and so on
		running time.Duration
		paused  time.Duration
	}{
		{"right", []time.Duration{h, 2 * h, 3 * h}, 2 * h, h},
		{"an hour ahead, and back", []time.Duration{2 * h, h, 3 * h}, 3 * h, 0},
		{"an hour back, and right again", []time.Duration{2 * h, h, 4 * h}, 4 * h, 0},
		{"ahead for one step, back for good", []time.Duration{5 * h, 2 * h, 3 * h, 4 * h, 6 * h}, 6 * h, 0},
		{"23 hours ahead, and made up for", []time.Duration{24 * h, h, 25 * h}, 25 * h, 0},
		{"a day ahead: it goes on from there", []time.Duration{25 * h, h, 2 * h}, 26 * h, 0},
		{"a year ahead", []time.Duration{8760 * h, h, 3 * h, 4 * h}, 8762 * h, h},
		{"a year back", []time.Duration{h, -8760 * h, -8759 * h, -8758 * h}, 2 * h, h},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := session.New("s", "h", session.Running, "", t0)
			var sum session.Usage
			for i, clock := range c.clocks {
				next, err := r.Settle([]session.State{session.Paused, session.Running}[i%2], "", t0.Add(clock))
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range session.UsageBetween(r, next, hostTimeout) {
					for range d.Count() {
						sum = sum.Add(d.Usage)
					}
				}
				r = next
			}
			if sum.RunningMs != ms(c.running) || sum.PausedMs != ms(c.paused) {
				t.Errorf("%+v, want %s and %s", sum, c.running, c.paused)
			}
			if sum.RunningMs != r.Totals.RunningMs || sum.PausedMs != r.Totals.PausedMs {
				t.Errorf("%+v, and in all %+v", sum, r.Totals)
			}
		})
	}
}
