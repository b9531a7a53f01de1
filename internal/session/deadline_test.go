package session_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

func TestPauseAt_isLastUseAndTimeoutUnlessSomethingKeepsItAwake(t *testing.T) {
	t.Parallel()
	base := session.Snapshot{Record: in(t, session.Running), LastActive: t0}
	own := base
	own.IdleTimeout = session.Duration(3 * time.Second)
	open, present, held, paused := base, base, base, base
	open.Activity.Open = true
	present.Presence = []session.Presence{{Node: "n1", Revision: 3}}
	held.Holds = []session.Hold{{Name: "build"}}
	paused.Record = in(t, session.Paused)
	for name, tt := range map[string]struct {
		s    session.Snapshot
		want time.Time
	}{
		"what holds":                           {base, at(600)},
		"its own is not asked, but what holds": {own, at(600)},
		"a visit is open":                      {open, time.Time{}},
		"a proxy is present":                   {present, time.Time{}},
		"held":                                 {held, time.Time{}},
		"it does not run":                      {paused, time.Time{}},
	} {
		got, ok := tt.s.PauseAt(10 * time.Minute)
		if !got.Equal(tt.want) || ok != !tt.want.IsZero() {
			t.Errorf("%s: PauseAt = %s, %t; want %s", name, got, ok, tt.want)
		}
	}
}

func TestOpDeadline_comparesNoTwoClocks(t *testing.T) {
	t.Parallel()
	s := session.Snapshot{Record: in(t, session.Pausing), Seen: at(5000)} // this process's clock is far ahead
	if got := s.OpDeadline(); !got.Equal(at(5080)) {
		t.Errorf("OpDeadline = %s, want the op's 80 s after it was seen", got)
	}
	idle := session.Snapshot{Record: in(t, session.Running), Seen: at(1)}
	if got := idle.OpDeadline(); !got.IsZero() {
		t.Errorf("without an op OpDeadline = %s", got)
	}
}

func TestLinger_isShortForShortTimeouts(t *testing.T) {
	t.Parallel()
	for idle, want := range map[time.Duration]time.Duration{2 * time.Second: 500 * time.Millisecond, 10 * time.Minute: time.Second} {
		if got := session.Linger(idle); got != want {
			t.Errorf("Linger(%s) = %s, want %s", idle, got, want)
		}
	}
}

func TestDuration_readsWhatPeopleWrite(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		`"90s"`: 90 * time.Second, `"1h30m"`: 90 * time.Minute, `"1d12h"`: 36 * time.Hour, `"1d"`: 24 * time.Hour,
		`90`: 90 * time.Second, `"90"`: 90 * time.Second, `1.5`: 1500 * time.Millisecond, `0`: 0, `"-5s"`: -5 * time.Second,
	} {
		var d session.Duration
		if err := json.Unmarshal([]byte(in), &d); err != nil || time.Duration(d) != want {
			t.Errorf("%s = %s, %v; want %s", in, d, err, want)
		}
	}
}

func TestDuration_refusesTheRest(t *testing.T) {
	t.Parallel()
	for _, in := range []string{`"soon"`, `""`, `true`, `{}`, `"5 minutes"`, `1e300`, `"1e300d"`, `"NaN"`, `"d"`} {
		var d session.Duration
		if err := json.Unmarshal([]byte(in), &d); err == nil {
			t.Errorf("%s was read as %s", in, d)
		}
	}
}

func TestDuration_isWrittenAsItIsRead(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(session.Duration(10 * time.Minute))
	if err != nil || string(b) != `"10m0s"` {
		t.Errorf("written as %s, %v", b, err)
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"1d12h", "90", "10m", "-1d", "1e9d", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := session.ParseDuration(s)
		if err != nil {
			return
		}
		again, err := session.ParseDuration(d.String())
		if err != nil || again != d {
			t.Errorf("%q is %s, which is read as %s, %v", s, d, again, err)
		}
	})
}
