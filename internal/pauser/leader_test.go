package pauser_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
)

func TestLead_pausesAtTheDeadlineAndNotBefore(t *testing.T) {
	for _, timeout := range []time.Duration{2 * time.Second, 10 * time.Second, 10 * time.Minute, 30 * time.Hour} {
		t.Run(timeout.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				rec := session.New(id, "h", session.Running, "created", time.Now())
				rec.IdleTimeout = session.Duration(timeout)
				r.store.put(rec)
				r.lead()
				time.Sleep(timeout / 2)
				r.use()
				time.Sleep(3 * timeout)
				r.wantCalls("while it is used", 0)
				r.leave()
				left := time.Now()
				time.Sleep(timeout + time.Second)
				r.wantState("after the idle timeout", session.Paused)
				calls := r.host.calls()
				if len(calls) != 1 {
					t.Fatalf("%d pause calls, want 1", len(calls))
				}
				if late := calls[0].Sub(left.Add(timeout)); late < 0 || late > 100*time.Millisecond {
					t.Errorf("paused %s after the deadline, want within 100ms and never before", late)
				}
				if why := r.store.Get(id).Reason; why != "idle for "+session.Span(timeout) {
					t.Errorf("the reason is %q, want it to tell the idle timeout", why)
				}
			})
		})
	}
}

func TestLead_neverPausesWhatIsKeptAwake(t *testing.T) {
	for _, c := range []struct {
		name string
		keep func(s *session.Snapshot)
	}{
		{"by presence", func(s *session.Snapshot) { s.Presence = []session.Presence{{Node: "n2"}} }},
		{"by a hold", func(s *session.Snapshot) { s.Holds = []session.Hold{{Name: "build"}} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.record(session.Running)
				r.store.change(id, c.keep)
				r.lead()
				time.Sleep(time.Hour)
				r.wantCalls("an hour", 0)
				r.store.change(id, func(s *session.Snapshot) { s.Presence, s.Holds = nil, nil })
				time.Sleep(time.Second)
				r.wantState("it is kept awake no more", session.Paused)
			})
		})
	}
}

func TestLead_countsALapseAsActivity(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.lead()
		r.use()
		time.Sleep(time.Hour)
		r.lapse()
		lapsed := time.Now()
		time.Sleep(idle + time.Second)
		calls := r.host.calls()
		if len(calls) != 1 || calls[0].Sub(lapsed) < idle {
			t.Errorf("pause calls at %v, want one, an idle timeout after the lapse at %v", calls, lapsed)
		}
		if n := r.store.count("lapsed"); n != 1 {
			t.Errorf("%d LAPSED, want 1", n)
		}
	})
}

func TestLead_sparesWhatIsUsedBetweenVerdictAndSleep(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(r *rig)
	}{
		{"a visit", func(r *rig) { r.use() }},
		{"a visit that is over again", func(r *rig) { r.use(); r.leave() }},
		{"a hold", func(r *rig) {
			r.store.change(id, func(s *session.Snapshot) { s.Holds = []session.Hold{{Name: "build"}} })
		}},
		{"a wake elsewhere", func(r *rig) { r.store.put(r.store.Get(id).Record) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.record(session.Running)
				r.store.set(func(m *memory) {
					m.between = func() { m.set(func(m *memory) { m.between = func() {} }); c.do(r) }
				})
				r.lead()
				time.Sleep(idle + 10*time.Millisecond)
				r.wantCalls("right after the deadline", 0)
			})
		})
	}
}

// Whatever comes between the SLEEP and the call, the call is not sent, and the
// session is not left PAUSING.
func TestLead_givesUpWhatIsNoLongerItsOwn(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(m *memory)
	}{
		{"contact is lost", func(m *memory) {
			m.between = func() {
				m.lose(time.Minute)
				m.set(func(m *memory) { m.between = func() {} })
			}
		}},
		{"SLEEP takes too long", func(m *memory) { m.takes["sleep"] = pauser.DefaultCallWithin + 1 }},
		{"SLEEP is not answered", func(m *memory) { m.lost["sleep"] = true }},
		{"the lease has ended", func(m *memory) { m.invalid = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.record(session.Running)
				r.store.set(c.set)
				r.lead()
				time.Sleep(idle + 5*time.Second)
				r.wantCalls("after the deadline", 0)
				r.wantState("after the deadline", session.Running)
			})
		})
	}
}

func TestLead_settlesAnewAfterALossOfContact(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.lead()
		time.Sleep(idle - time.Second)
		r.store.lose(12 * time.Second)
		lost := time.Now()
		time.Sleep(time.Minute)
		calls := r.host.calls()
		if len(calls) != 1 || calls[0].Sub(lost) < 12*time.Second || calls[0].Sub(lost) > 13*time.Second {
			t.Errorf("pause calls at %v, want one right after the settle period that ends 12s after %v", calls, lost)
		}
	})
}

func TestLead_doesNotHammerAStoreThatFails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.store.set(func(m *memory) { m.fail["sleep"], m.fail["end"] = errAway, session.ErrConflict })
		r.lead()
		time.Sleep(idle + 10*time.Second)
		if n := r.store.count("sleep"); n < 10 || n > 60 {
			t.Errorf("%d SLEEPs were tried in 10s, want some, and no storm", n)
		}
		r.store.set(func(m *memory) { clear(m.fail) })
		time.Sleep(time.Second)
		r.wantState("the store is back", session.Paused)
	})
}

func TestLead_believesThePauseCallOnlyWhereItIsClear(t *testing.T) {
	for _, c := range []struct {
		name  string
		fails error
		state session.State // what the host says when it is asked
		asked error
		want  session.State
		calls int // in the first minute
	}{
		{"done", nil, session.Paused, nil, session.Paused, 1},
		{"404", pauser.ErrGone, "", nil, session.Killed, 1},
		{"failed after it was done", errHost, session.Paused, nil, session.Paused, 1},
		{"failed, and runs", errHost, session.Running, nil, session.Running, 4}, // it is idle again after 10 s, and backs off
		{"failed, and gone", errHost, "", pauser.ErrGone, session.Killed, 1},
		{"failed, and no answer", errHost, "", errHost, session.Running, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.host.set(func(h *host) { h.fails, h.state, h.asked = c.fails, c.state, c.asked })
				r.record(session.Running)
				r.lead()
				time.Sleep(time.Minute)
				r.wantState("after a minute", c.want)
				if n := len(r.host.calls()); n < 1 || n > c.calls {
					t.Errorf("%d pause calls in a minute, want 1 to %d: it backs off", n, c.calls)
				}
				if e := r.store.Get(id).LastError; (e != nil) != (c.want == session.Running) {
					t.Errorf("lastError is %+v, want one exactly if it runs on", e)
				}
			})
		})
	}
}

// The clock of the node that failed may be an hour ahead.
func TestLead_believesOnlyTheSpanOfABackoff(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := session.New(id, "h", session.Running, "created", time.Now())
		ahead := time.Now().Add(time.Hour)
		rec.LastError = &session.OpError{Op: session.OpPause, At: ahead, RetryAt: ahead.Add(20 * time.Second), Failures: 3}
		r.store.put(rec)
		r.lead()
		time.Sleep(19 * time.Second)
		r.wantCalls("during the back-off", 0)
		time.Sleep(2 * time.Second)
		r.wantCalls("after the back-off", 1)
	})
}

func TestLead_believesNoBackoffThatSandmanWouldNotHaveMade(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		rec := session.New(id, "h", session.Running, "created", time.Now())
		rec.LastError = &session.OpError{Op: session.OpPause, RetryAt: time.Now()} // since the year 1
		r.store.put(rec)
		r.lead()
		time.Sleep(5*time.Minute + time.Second)
		r.wantCalls("after the longest back-off", 1)
	})
}

func TestLead_settlesOpsThatNobodyWorksOn(t *testing.T) {
	for _, c := range []struct {
		from  session.State
		told  session.State
		asked error
		want  session.State
	}{
		{session.Pausing, session.Paused, nil, session.Paused},
		{session.Pausing, session.Running, nil, session.Running},
		{session.Resuming, session.Running, nil, session.Running},
		{session.Resuming, session.Paused, nil, session.Paused},
		{session.Pausing, "", pauser.ErrGone, session.Killed},
		{session.Resuming, "", errHost, session.Resuming},
	} {
		t.Run(fmt.Sprintf("%s, the host says %s %v", c.from, c.told, c.asked), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.host.set(func(h *host) { h.state, h.asked = c.told, c.asked })
				r.record(c.from)
				r.lead()
				time.Sleep(5 * time.Second)
				r.wantState("its owner is alive", c.from)
				r.store.set(func(m *memory) { m.abandoned = true })
				time.Sleep(2 * time.Second)
				r.wantState("its owner is gone", c.want)
				r.wantCalls("it was another's op", 0)
			})
		})
	}
}

func TestLead_pausesManyWithoutMoreThan64CallsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host.set(func(h *host) { h.takes = time.Second })
		for i := range 200 {
			r.store.put(session.New(fmt.Sprint("sb", i), "h", session.Running, "created", time.Now()))
		}
		r.lead()
		time.Sleep(idle + 5*time.Second)
		synctest.Wait()
		for _, s := range r.store.All() {
			if s.State != session.Paused {
				t.Fatalf("%s is %s after 4 rounds of 64, want PAUSED", s.SandboxID, s.State)
			}
		}
		if r.host.most != 64 {
			t.Errorf("at most %d calls at once, want 64", r.host.most)
		}
	})
}

func TestLead_returnsWhileAPauseGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host.set(func(h *host) { h.takes = 10 * time.Second })
		r.record(session.Running)
		r.lead()
		time.Sleep(idle + time.Second)
		r.wantState("the call is under way", session.Pausing)
		began := time.Now()
		r.retire()
		if took := time.Since(began); took != 0 {
			t.Errorf("Lead returned %s after its term, want at once", took)
		}
		r.Wait()
		if took := time.Since(began); took != 9*time.Second {
			t.Errorf("Wait took %s, want 9s: the rest of the call", took)
		}
		r.wantState("after the call", session.Paused)
	})
}

func TestWait_leavesAPauseThatTakesTooLongToOthers(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host.set(func(h *host) { h.takes = time.Hour })
		r.record(session.Running)
		r.lead()
		time.Sleep(idle + time.Second)
		r.retire()
		began := time.Now()
		r.Wait()
		if took := time.Since(began); took != pauser.DefaultGrace {
			t.Errorf("Wait took %s, want the grace of %s", took, pauser.DefaultGrace)
		}
		r.wantState("nobody knows what the host does", session.Pausing)
		if _, err := r.Pause(t.Context(), id, pauser.Options{}); err == nil {
			t.Error("Pause after Wait, while it is PAUSING: nil, want an error")
		}
		r.record(session.Running)
		if _, err := r.Pause(t.Context(), id, pauser.Options{}); err == nil {
			t.Error("Pause after Wait, while it is RUNNING: nil, want an error")
		}
	})
}

func TestLead_keepsTheHostsEndAhead(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host.set(func(h *host) { h.ends = time.Now().Add(30 * time.Second) })
		r.record(session.Running)
		r.use()
		r.lead()
		least := time.Hour
		for range 600 {
			time.Sleep(time.Second)
			left, _ := r.host.Remaining(t.Context(), session.Record{})
			least = min(least, left)
		}
		if least < 10*time.Second {
			t.Errorf("the host would have ended the run in %s while it is used, want at least 10s left at any time", least)
		}
	})
}

// A host may grant less than it is asked for.
func TestLead_asksAgainInTimeWhereTheHostGrantsLess(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host.set(func(h *host) { h.ends, h.most1 = time.Now().Add(10*time.Second), 20*time.Second })
		r.record(session.Running)
		r.use()
		r.lead()
		for range 300 {
			time.Sleep(time.Second)
			if left, _ := r.host.Remaining(t.Context(), session.Record{}); left < time.Second {
				t.Fatalf("the host would have ended the run in %s while it is used, want it extended before", left)
			}
		}
	})
}

// A host whose clock is an hour behind what it says of itself grants only what
// is over already.
func TestLead_doesNotAskForEverWhereClocksDisagree(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.host.set(func(h *host) { h.ends, h.behind = time.Now(), time.Hour })
		r.record(session.Running)
		r.use()
		r.lead()
		const span = time.Hour
		time.Sleep(span)
		r.host.set(func(h *host) {
			if most := int(span / (40 * time.Second)); h.extended < 20 || h.extended > most {
				t.Errorf("asked %d times in %s, want it often enough, and at most %d times", h.extended, span, most)
			}
		})
	})
}
