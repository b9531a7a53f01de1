package noise_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/noise"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// every tells r of a message n times, at a period with a deviation that goes to and fro.
func every(r *noise.Repeats, m noise.Message, n int, period, deviation time.Duration) time.Time {
	now := noon
	for i := range n {
		at := now
		if i%2 == 1 {
			at = now.Add(deviation)
		}
		r.Message("/ws", m, at)
		now = now.Add(period)
	}
	return now.Add(-period)
}

func TestRepeats_suggestsWhatATimerSends(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name              string
		n                 int
		period, deviation time.Duration
		want              bool
	}{
		{"a keep-alive", 20, 25 * time.Second, 100 * time.Millisecond, true},
		{"once too few", 19, 25 * time.Second, 0, false},
		{"a jitter of 2 %", 40, 10 * time.Second, 100 * time.Millisecond, true},
		{"a jitter of 4 %", 40, 10 * time.Second, 210 * time.Millisecond, false},
		{"a held key", 400, 33 * time.Millisecond, 0, false},
		{"just under 2 s", 40, 1999 * time.Millisecond, 0, false},
		{"2 s", 40, 2 * time.Second, 0, true},
		{"a person", 60, 3 * time.Second, 400 * time.Millisecond, false},
	}
	for _, tt := range tests {
		var r noise.Repeats
		end := every(&r, text("beat"), tt.n, tt.period, tt.deviation)
		got := r.Suggested(end)
		if (len(got) == 1) != tt.want {
			t.Errorf("%s: %+v", tt.name, got)
			continue
		}
		if !tt.want {
			continue
		}
		if g := got[0]; g.Count != tt.n || (g.Every-tt.period).Abs() > tt.period/50 || g.Rule.Payload != "beat" || g.Rule.Path != "/ws" {
			t.Errorf("%s: %+v", tt.name, g)
		}
		if got := r.Suggested(end.Add(3 * tt.period)); len(got) != 0 {
			t.Errorf("%s: still there although it has stopped: %+v", tt.name, got)
		}
	}
}

func TestRepeats_theSuggestedRuleWorks(t *testing.T) {
	t.Parallel()
	for _, m := range []noise.Message{text("beat"), text("0x"), text("\xff"), bin("\x00\x01"), text(""), text(`{"a":"ü"}`)} {
		var r noise.Repeats
		got := r.Suggested(every(&r, m, 30, 5*time.Second, 0))
		if len(got) != 1 {
			t.Fatalf("%q: %+v", m.Payload, got)
		}
		if v := newSet(t, got[0].Rule).Stream(get("/ws"), "").Judge(m); v != noise.Noise {
			t.Errorf("%q by %+v: %v", m.Payload, got[0].Rule, v)
		}
	}
}

func TestRepeats_requestsAreTheSameWhateverTheirQuery(t *testing.T) {
	t.Parallel()
	var r noise.Repeats
	for i := range 25 {
		r.Request("GET", "/poll", noon.Add(time.Duration(i)*10*time.Second))
		r.Request("POST", "/poll", noon.Add(time.Duration(i*i)*time.Second))
	}
	got := r.Suggested(noon.Add(24 * 10 * time.Second))
	if len(got) != 1 || got[0].Rule.Path != "/poll" || len(got[0].Rule.Methods) != 1 || got[0].Rule.Methods[0] != "GET" {
		t.Fatalf("got %+v", got)
	}
	if _, isNoise := newSet(t, got[0].Rule).Request(get("/poll?_=1")); !isNoise {
		t.Error("the suggested rule does not match")
	}
}

func TestRepeats_oneMissedBeatBeginsAnew(t *testing.T) {
	t.Parallel()
	var r noise.Repeats
	end := every(&r, text("beat"), 30, 5*time.Second, 0)
	later := end.Add(20 * time.Second)
	r.Message("/ws", text("beat"), later)
	if got := r.Suggested(later); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestRepeats_aTimerIsFoundAmongMuchElse(t *testing.T) {
	t.Parallel()
	var r noise.Repeats
	now := noon
	for i := range 25 {
		now = noon.Add(time.Duration(i) * 30 * time.Second)
		r.Message("/ws", text("beat"), now)
		for k := range 20 { // a person: ever new messages, far more than are kept
			r.Message("/ws", text(fmt.Sprint(i, k)), now.Add(time.Duration(k+1)*time.Second))
		}
	}
	if got := r.Suggested(now); len(got) != 1 || got[0].Count != 25 {
		t.Errorf("got %+v", got)
	}
}

func TestRepeats_watchingCostsNoMemoryPerMessage(t *testing.T) {
	var r noise.Repeats
	m, now := text("key"), noon
	allocs := testing.AllocsPerRun(1000, func() {
		now = now.Add(1700 * time.Millisecond)
		r.Message("/ws", m, now)
	})
	if allocs > 0 {
		t.Errorf("%v allocations for a message", allocs)
	}
}
