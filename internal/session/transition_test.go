package session_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

var t0 = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }

func op(kind session.OpKind) session.Op {
	return session.Op{ID: "op1", Kind: kind, Phase: session.PhaseCalling, Node: "n1", StartedAt: t0, Deadline: at(80)}
}

// in gives a record in the state, by allowed steps alone.
func in(t *testing.T, state session.State) session.Record {
	t.Helper()
	r := session.New("iabc", "local", session.Running, "created", t0)
	steps := map[session.State][]func(session.Record) (session.Record, error){
		session.Pausing: {sleep},
		session.Paused:  {sleep, settle(session.Paused)},
		session.Resuming: {sleep, settle(session.Paused), func(r session.Record) (session.Record, error) {
			return r.Wake(op(session.OpResume), "request", at(30))
		}},
		session.Killed: {settle(session.Killed)},
	}
	for _, step := range steps[state] {
		var err error
		if r, err = step(r); err != nil {
			t.Fatal(err)
		}
	}
	if r.State != state {
		t.Fatalf("the record is %s, want %s", r.State, state)
	}
	return r
}

func sleep(r session.Record) (session.Record, error) {
	return r.Sleep(op(session.OpPause), "idle", at(10))
}

func settle(to session.State) func(session.Record) (session.Record, error) {
	return func(r session.Record) (session.Record, error) { return r.Settle(to, "the host says so", at(20)) }
}

func TestTransitions_allowedAndNotAllowed(t *testing.T) {
	t.Parallel()
	steps := []struct {
		name string
		do   func(session.Record) (session.Record, error)
		from []session.State // where it is allowed
		to   session.State
	}{
		{"sleep", sleep, []session.State{session.Running}, session.Pausing},
		{
			"wake", func(r session.Record) (session.Record, error) { return r.Wake(op(session.OpResume), "", at(40)) },
			[]session.State{session.Running, session.Pausing, session.Paused, session.Resuming},
			session.Resuming,
		},
		{
			"settle RUNNING", settle(session.Running),
			[]session.State{session.Pausing, session.Paused, session.Resuming, session.Killed},
			session.Running,
		},
		{
			"settle PAUSED", settle(session.Paused),
			[]session.State{session.Running, session.Pausing, session.Resuming, session.Killed},
			session.Paused,
		},
		{
			"settle KILLED", settle(session.Killed),
			[]session.State{session.Running, session.Pausing, session.Paused, session.Resuming},
			session.Killed,
		},
		{"settle PAUSING", settle(session.Pausing), nil, ""},
		{"settle RESUMING", settle(session.Resuming), nil, ""},
	}
	for _, step := range steps {
		for _, from := range session.States() {
			t.Run(step.name+" from "+string(from), func(t *testing.T) {
				t.Parallel()
				before := in(t, from)
				after, err := step.do(before)
				if !slices.Contains(step.from, from) {
					if !errors.Is(err, session.ErrTransition) || after.State != from {
						t.Errorf("gave %s, %v; want ErrTransition and the record as it was", after.State, err)
					}
					return
				}
				if err != nil || after.State != step.to {
					t.Errorf("gave %s, %v; want %s", after.State, err, step.to)
				}
				if after.State.Busy() != (after.Op != nil) {
					t.Errorf("%s has op %v", after.State, after.Op)
				}
			})
		}
	}
}

func TestSettle_countsTimePausesAndWakes(t *testing.T) {
	t.Parallel()
	r := in(t, session.Resuming) // 10 s running, 10 s pausing, 10 s paused
	r, err := r.Settle(session.Running, "request: GET /", at(33))
	if err != nil {
		t.Fatal(err)
	}
	want := session.Totals{RunningMs: 23_000, PausedMs: 10_000, Pauses: 1, Wakes: 1}
	if r.Totals != want {
		t.Errorf("totals %+v, want %+v", r.Totals, want)
	}
	if !r.StartedAt.Equal(at(33)) || !r.PausedAt.Equal(at(20)) {
		t.Errorf("started %s, paused %s", r.StartedAt, r.PausedAt)
	}
}

func TestSettle_aPauseThatCameToNothingIsNoNewRun(t *testing.T) {
	t.Parallel()
	r, err := in(t, session.Pausing).Settle(session.Running, "still in use", at(12))
	if err != nil {
		t.Fatal(err)
	}
	if !r.StartedAt.Equal(t0) || r.Totals.Wakes != 0 || r.Totals.Pauses != 0 {
		t.Errorf("started %s with totals %+v, want the run of %s to go on", r.StartedAt, r.Totals, t0)
	}
}

func TestSettle_aClockSetBackTakesNothingAway(t *testing.T) {
	t.Parallel()
	r, err := in(t, session.Paused).Settle(session.Running, "", at(-3600))
	if err != nil || r.Totals.PausedMs != 0 {
		t.Errorf("paused for %d ms, %v; want 0", r.Totals.PausedMs, err)
	}
}

func TestFail_leavesTheStateBeforeAndCounts(t *testing.T) {
	t.Parallel()
	r, err := in(t, session.Resuming).Fail("no capacity", 2*time.Second, at(31))
	if err != nil || r.State != session.Paused || r.Op != nil {
		t.Fatalf("a failed resume leaves %s, op %v, %v", r.State, r.Op, err)
	}
	if r.Totals.Pauses != 1 || !r.PausedAt.Equal(at(20)) {
		t.Errorf("it counts as a pause: %+v, paused at %s", r.Totals, r.PausedAt)
	}
	again, err := r.Wake(op(session.OpResume), "", at(40))
	if err != nil {
		t.Fatal(err)
	}
	if again, err = again.Fail("no capacity", 4*time.Second, at(41)); err != nil {
		t.Fatal(err)
	}
	want := session.OpError{At: at(41), Op: session.OpResume, Message: "no capacity", RetryAt: at(45), Failures: 2}
	if *again.LastError != want {
		t.Errorf("last error %+v, want %+v", *again.LastError, want)
	}
	if r.LastError.Failures != 1 {
		t.Error("the earlier record was changed in place")
	}
}

func TestFail_aResumeLeavesTheSleepAsItWas(t *testing.T) {
	t.Parallel()
	slept := in(t, session.Paused)
	r := slept
	for i := range 3 {
		resuming, err := r.Wake(op(session.OpResume), "request: GET /", at(30+10*i))
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 { // somebody takes it over whose owner is gone
			if resuming, err = resuming.Wake(op(session.OpResume), "request: GET /b", at(31+10*i)); err != nil {
				t.Fatal(err)
			}
		}
		if r, err = resuming.Fail("no capacity", time.Second, at(32+10*i)); err != nil {
			t.Fatal(err)
		}
		if !r.Since.Equal(slept.Since) || r.Reason != slept.Reason {
			t.Fatalf("it sleeps since %s because of %q, want %s and %q", r.Since, r.Reason, slept.Since, slept.Reason)
		}
		line := session.Between(resuming, r, "n1")
		if !line.At.Equal(at(32+10*i)) || line.Reason != "resume failed: no capacity" || line.To != session.Paused {
			t.Errorf("the history says %+v", line)
		}
	}
	r, err := r.Settle(session.Running, "", at(60))
	if err != nil {
		t.Fatal(err)
	}
	// 10 s running, 10 s pausing, and 3 times 2 s resuming; 10 s, 8 s, 8 s, 8 s asleep
	want := session.Totals{RunningMs: 26_000, PausedMs: 34_000, Pauses: 1, Wakes: 1}
	if r.Totals != want {
		t.Errorf("totals %+v, want %+v", r.Totals, want)
	}
}

func TestFail_ofWhatWasNotKnownToSleepIsAPause(t *testing.T) {
	t.Parallel()
	for state, reason := range map[session.State]string{session.Running: "found paused at its host", session.Pausing: "idle"} {
		resuming, err := in(t, state).Wake(op(session.OpResume), "request: GET /", at(30))
		if err != nil {
			t.Fatal(err)
		}
		r, err := resuming.Fail("no capacity", time.Second, at(32))
		if err != nil || r.Reason != reason || !r.Since.Equal(at(32)) || !r.PausedAt.Equal(at(32)) || r.Totals.Pauses != 1 {
			t.Errorf("from %s: %q since %s, paused at %s, %d pauses, %v", state, r.Reason, r.Since, r.PausedAt, r.Totals.Pauses, err)
		}
	}
}

func TestFailGone_countsOnWhereItIsFoundAgain(t *testing.T) {
	t.Parallel()
	r := in(t, session.Paused)
	for i := range 3 {
		var err error
		if r, err = r.Wake(op(session.OpResume), "request: GET /", at(30)); err == nil {
			r, err = r.FailGone("gone", time.Second<<i, at(31))
		}
		if err != nil || r.State != session.Killed || r.Failures(session.OpResume) != i+1 || !r.LastError.RetryAt.Equal(at(31+1<<i)) {
			t.Fatalf("%s with %+v, %v; want KILLED and failure %d", r.State, r.LastError, err, i+1)
		}
		to := []session.State{session.Running, session.Paused, session.Running}[i]
		if r, err = r.Settle(to, "known at the host again", at(32)); err != nil || r.Failures(session.OpResume) != i+1 {
			t.Fatalf("found again: %+v, %v; want the failures kept", r.LastError, err)
		}
	}
	r, err := sleep(r)
	if err == nil {
		r, err = r.Settle(session.Paused, "idle", at(50))
	}
	if err != nil || r.LastError != nil {
		t.Errorf("a pause that succeeded leaves the error of a resume before its run: %+v, %v", r.LastError, err)
	}
}

func TestFail_aPauseLeavesItRunning(t *testing.T) {
	t.Parallel()
	r, err := in(t, session.Pausing).Fail("500", time.Second, at(11))
	if err != nil || r.State != session.Running || r.Failures(session.OpPause) != 1 || r.Failures(session.OpResume) != 0 {
		t.Errorf("%s, %d failed pauses, %v", r.State, r.Failures(session.OpPause), err)
	}
	if _, err := r.Fail("500", time.Second, at(12)); !errors.Is(err, session.ErrTransition) {
		t.Errorf("failing without an op gives %v", err)
	}
}

func TestSettle_onlySuccessOfTheSameKindClearsTheError(t *testing.T) {
	t.Parallel()
	r, err := in(t, session.Pausing).Fail("500", time.Second, at(11))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = r.Wake(op(session.OpResume), "", at(12)); err != nil {
		t.Fatal(err)
	}
	if r, err = r.Settle(session.Running, "", at(13)); err != nil || r.LastError == nil {
		t.Fatalf("a resume cleared the error of a pause: %v", err)
	}
	if r, err = sleep(r); err != nil {
		t.Fatal(err)
	}
	if r, err = r.Settle(session.Paused, "", at(21)); err != nil || r.LastError != nil {
		t.Errorf("a pause that succeeded leaves error %+v, %v", r.LastError, err)
	}
}

func TestAdvance_changesThePhaseOfThatOpOnly(t *testing.T) {
	t.Parallel()
	before := in(t, session.Pausing)
	after, err := before.Advance(session.PhaseCutting)
	if err != nil || after.Op.Phase != session.PhaseCutting || !after.SameOp(before) {
		t.Errorf("phase %s, %v", after.Op.Phase, err)
	}
	if before.Op.Phase != session.PhaseCalling {
		t.Error("the earlier record was changed in place")
	}
	if _, err := in(t, session.Resuming).Advance(session.PhaseCutting); !errors.Is(err, session.ErrTransition) {
		t.Errorf("a resume has advanced: %v", err)
	}
}

func TestSameOp(t *testing.T) {
	t.Parallel()
	own := in(t, session.Pausing)
	other := own
	o := op(session.OpPause)
	o.ID = "op2"
	other.Op = &o
	settings := own
	settings.IdleTimeout, settings.Revision = 5, 7
	for name, tt := range map[string]struct {
		r    session.Record
		want bool
	}{"settings changed": {settings, true}, "another op": {other, false}, "settled": {in(t, session.Paused), false}} {
		if got := tt.r.SameOp(own); got != tt.want {
			t.Errorf("%s: SameOp = %t, want %t", name, got, tt.want)
		}
	}
}

func TestBetween_namesTheOpThatBeginsOrEnds(t *testing.T) {
	t.Parallel()
	pausing, paused := in(t, session.Pausing), in(t, session.Paused)
	want := session.Transition{At: at(20), From: session.Pausing, To: session.Paused, Reason: "the host says so", Node: "n2", Op: "op1"}
	if got := session.Between(pausing, paused, "n2"); got != want {
		t.Errorf("Between = %+v, want %+v", got, want)
	}
}

func TestWithMetadata_takesOwnerAndProjectWhereNoneIsSet(t *testing.T) {
	t.Parallel()
	md := map[string]string{"userId": "ann", "projectId": "p1"}
	r := session.New("iabc", "local", session.Running, "", t0)
	got := r.WithMetadata(md, "userId", "projectId")
	if got.Owner != "ann" || got.Project != "p1" {
		t.Errorf("owner %q, project %q", got.Owner, got.Project)
	}
	r.Owner = "bob"
	if got := r.WithMetadata(md, "userId", "projectId"); got.Owner != "bob" {
		t.Errorf("the metadata has replaced owner bob by %q", got.Owner)
	}
	md["userId"] = "eve"
	if got.Metadata["userId"] != "ann" {
		t.Error("the record shares the caller's map")
	}
}

func TestReconnects_areCountedByTheDayInUTC(t *testing.T) {
	t.Parallel()
	evening := time.Date(2026, 3, 1, 20, 0, 0, 0, time.FixedZone("west", -5*60*60)) // the 2nd in UTC
	r := in(t, session.Paused)
	r = r.CountReconnect(evening).CountReconnect(evening.Add(time.Hour))
	if want := (session.ReconnectWakes{Day: "2026-03-02", Count: 2}); r.ReconnectWakes != want || r.ReconnectsOn(evening) != 2 {
		t.Errorf("counted %+v, of which %d today; want %+v", r.ReconnectWakes, r.ReconnectsOn(evening), want)
	}
	next := evening.Add(23 * time.Hour)
	if got := r.ReconnectsOn(next); got != 0 {
		t.Errorf("%d wakes on a day that has just begun", got)
	}
	r = r.CountReconnect(next)
	if want := (session.ReconnectWakes{Day: "2026-03-03", Count: 1}); r.ReconnectWakes != want {
		t.Errorf("on the next day: %+v, want %+v", r.ReconnectWakes, want)
	}
	if r = r.UncountReconnect().UncountReconnect(); r.ReconnectWakes.Count != 0 {
		t.Errorf("count %d after more was taken back than there was", r.ReconnectWakes.Count)
	}
}

// A kill that was asked for explains that a sandbox is gone, for as long as it may
// be the cause, and whatever happens to it meanwhile.
func TestToBeKilled(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		asked, gone int
		steps       []func(session.Record) (session.Record, error)
		want        string
	}{
		"at once":                {asked: 15, gone: 15, want: "killed by hand: ops"},
		"after a pause":          {asked: 5, gone: 30, steps: []func(session.Record) (session.Record, error){sleep, settle(session.Paused)}, want: "killed by hand: ops"},
		"by another's clock":     {asked: 15, gone: 5, want: "killed by hand: ops"},
		"long after":             {asked: 15, gone: 75, want: "gone"},
		"long after, and a step": {asked: -50, gone: 12, steps: []func(session.Record) (session.Record, error){sleep}, want: "gone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := in(t, session.Running).ToBeKilled("killed by hand: ops", at(tt.asked))
			for _, step := range tt.steps {
				var err error
				if r, err = step(r); err != nil {
					t.Fatal(err)
				}
			}
			r, err := r.Settle(session.Killed, "gone", at(tt.gone))
			if err != nil || r.Reason != tt.want || r.Killing != (session.Killing{}) {
				t.Errorf("it is %s because of %q, %v, and keeps %+v; want %q", r.State, r.Reason, err, r.Killing, tt.want)
			}
			if r, err = r.Settle(session.Running, "found", at(tt.gone+1)); err != nil || r.Reason != "found" {
				t.Errorf("found again it is %s because of %q, %v", r.State, r.Reason, err)
			}
		})
	}
}
