package session_test

import (
	"fmt"
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

// TestUsage_isWhatTheTotalsSay takes random steps, of which clocks are set back
// now and then, and sums up what each adds.
func TestUsage_isWhatTheTotalsSay(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		now := t0
		r := session.New("s", "h", session.Running, "", now)
		var sum session.Usage
		add := func(all []session.Days) {
			for _, d := range all {
				for range d.Count() {
					sum = sum.Add(d.Usage)
				}
			}
		}
		for range 30 {
			now = now.Add(time.Duration(rnd.Int64N(ms(72*time.Hour))) * time.Millisecond)
			if r.CountedTo.IsZero() { // else more is counted already than the totals will know of
				now = now.Add(-6 * time.Hour)
			}
			next := r
			switch rnd.IntN(3) {
			case 0:
				next.Owner = fmt.Sprint(rnd.IntN(3))
				next = next.Counted(r, now)
			default:
				to := []session.State{session.Running, session.Paused, session.Killed}[rnd.IntN(3)]
				next, _ = r.Settle(to, "", now)
			}
			add(session.UsageBetween(r, next, hostTimeout))
			r = next
		}
		end, err := r.Settle(session.Killed, "", now.Add(time.Hour))
		if err != nil {
			end, _ = r.Settle(session.Paused, "", now.Add(time.Hour))
		}
		add(session.UsageBetween(r, end, hostTimeout))
		if sum.RunningMs != end.Totals.RunningMs || sum.PausedMs != end.Totals.PausedMs {
			t.Fatalf("seed %d: usage %+v, totals %+v", seed, sum, end.Totals)
		}
	}
}
