package activity_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandman-proxy/sandman/internal/activity"
	"github.com/sandman-proxy/sandman/internal/session"
)

func TestVisit_dormantAfterTheIdleTimeoutByItsKind(t *testing.T) {
	for _, c := range []struct {
		name   string
		become func(v *activity.Visit)
		counts bool // after being quiet for the idle timeout
	}{
		{"a request whose answer has not begun", func(*activity.Visit) {}, true},
		{"an answer", func(v *activity.Visit) { v.Answer() }, false},
		{"a stream", func(v *activity.Visit) { v.Stream("websocket") }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				v := r.visit()
				c.become(v)
				for range 5 { // bytes that move keep it counting
					time.Sleep(idle * 9 / 10)
					if !v.Bump() {
						t.Fatal("Bump within the idle timeout: dormant, want counting")
					}
				}
				time.Sleep(idle - time.Millisecond)
				r.wantPresent("right before the idle timeout", true)
				time.Sleep(300 * time.Millisecond)
				r.wantPresent("right after the idle timeout", c.counts)
				if got := v.Bump(); got != c.counts {
					t.Errorf("Bump after the idle timeout: %t, want %t", got, c.counts)
				}
				v.End()
			})
		})
	}
}

func TestVisit_dormantStreamCountsAgainThroughEnter(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := r.visit()
		v.Stream("websocket")
		time.Sleep(idle + time.Second)
		r.wantInUse("dormant", 0, 0)
		if l := r.store.left(); len(l) != 1 || l[0].quiet < idle || l[0].kind != "websocket" {
			t.Errorf("LEAVEs: %+v, want one of kind websocket that tells of %s of silence", l, idle)
		}
		if v.Bump() {
			t.Error("Bump of a dormant stream: true, want false")
		}
		r.enter(v)
		r.wantInUse("after ENTER", 0, 1)
		r.wantPresent("after ENTER", true)
		v.End()
		r.wantInUse("after its end", 0, 0)
	})
}

func TestEnd_ofAStreamIsNoActivity(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := r.visit()
		v.Stream("websocket")
		time.Sleep(5 * time.Second)
		v.End()
		synctest.Wait()
		if l := r.store.left(); len(l) != 1 || l[0].quiet != 5*time.Second {
			t.Errorf("LEAVEs: %+v, want one at once that tells of 5s of silence", l)
		}
	})
}

func TestVisit_thatHasEndedNeverCountsAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v, other := r.visit(), r.visit()
		v.End()
		at, _, _ := r.Last(id)
		time.Sleep(time.Second)
		if v.Bump() {
			t.Error("Bump after End: true, want false")
		}
		if v.Try() {
			t.Error("Try after End: true, want false")
		}
		v.Force()
		v.Answer()
		if err := v.Enter(t.Context(), 1); err != nil {
			t.Errorf("Enter after End: %v, want nil", err)
		}
		r.wantInUse("one visit has ended", 1, 0)
		if now, _, _ := r.Last(id); now != at {
			t.Errorf("bytes after End are activity %s later, want none", now.Sub(at))
		}
		other.End()
		r.wantInUse("both have ended", 0, 0)
	})
}

func TestDrain_letsRequestsEndAndStreamsGo(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		request, answer, stream := r.visit(), r.visit(), r.visit()
		answer.Answer()
		stream.Stream("websocket")
		r.Drain(id)
		r.wantInUse("draining", 2, 0)
		if stream.Bump() {
			t.Error("Bump of a stream while draining: true, want false, so that its message waits")
		}
		if r.Begin(id, "request").Try() {
			t.Error("Try while draining: true, want false")
		}
		request.End()
		synctest.Wait()
		r.wantPresent("an answer is in flight", true)
		answer.End()
		synctest.Wait()
		r.wantPresent("nothing is in flight: no linger", false)
		stream.End()
	})
}

func TestDrain_holdsForAnEnterThatIsAnsweredLate(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.store.slowly(func(call string) (a, b time.Duration, err error) {
			if call == "enter" {
				return 0, time.Second, nil
			}
			return 0, 0, nil
		})
		request, stream := r.Begin(id, "request"), r.visit()
		stream.Stream("websocket")
		time.Sleep(idle + linger + time.Second) // the stream is dormant, presence gone
		errs := make(chan error, 2)
		go func() { errs <- request.Enter(t.Context(), 1) }()
		again := make(chan error, 1)
		go func() { again <- stream.Enter(t.Context(), 1) }()
		time.Sleep(500 * time.Millisecond)
		r.Drain(id) // their ENTER has landed and is not answered
		if err := <-errs; err != nil {
			t.Errorf("Enter of a request, landed before the pause began: %v, want nil", err)
		}
		if err := <-again; !errors.Is(err, session.ErrConflict) {
			t.Errorf("Enter of a stream's message: %v, want a conflict: it waits for the end of the pause", err)
		}
		r.wantInUse("the request is served", 1, 0)
		r.wantPresent("the request is served", true)
		request.End()
		synctest.Wait()
		r.wantPresent("the request has ended", false)
		stream.End()
	})
}

func TestDrain_parksAConnectionThatIsUpgradedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := r.visit()
		r.Drain(id)
		v.Stream("websocket")
		synctest.Wait()
		r.wantInUse("upgraded while draining", 0, 0)
		r.wantPresent("upgraded while draining", false)
		v.End()
	})
}

func TestResume_endsWhatDrainBegan(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := r.visit()
		r.Cut(id)
		r.Resume(id)
		next := r.Begin(id, "request")
		if !next.Try() {
			t.Error("Try after the pause was given up: false, want true")
		}
		cut := false
		next.OnCut(func() { cut = true })
		if cut {
			t.Error("a request after the pause was given up is cut, want it served")
		}
		v.End()
		next.End()
	})
}

func TestCut_endsRequestsAlsoThoseThatComeLate(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		request, stream, late := r.visit(), r.visit(), r.visit()
		stream.Stream("websocket")
		cuts := map[string]int{}
		request.OnCut(func() { cuts["request"]++ })
		stream.OnCut(func() { cuts["stream"]++ })
		r.Cut(id)
		late.OnCut(func() { cuts["late"]++ })
		if cuts["request"] != 1 || cuts["late"] != 1 || cuts["stream"] != 0 {
			t.Errorf("cuts: %v, want the request and the one that came late once, the stream never", cuts)
		}
		request.End()
		late.End()
		synctest.Wait()
		r.wantPresent("all requests have ended", false)
		stream.End()
	})
}

func TestFlush_writesEachSandboxOnceWithinTheResolution(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := r.visit()
		v.Stream("websocket")
		time.Sleep(2 * time.Second)
		before := len(r.store.flushed())
		for range 35 { // 3.5 s of a byte each 100 ms
			v.Bump()
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		flushes := r.store.flushed()[before:]
		if n := len(flushes); n < 3 || n > 4 {
			t.Errorf("%d flushes of 3.5s of use, want one a second", n)
		}
		for _, f := range flushes {
			if len(f) != 1 || f[0].Kind != "websocket" || f[0].Quiet > time.Second {
				t.Errorf("a flush wrote %+v, want the websocket's last byte, at most 1s old", f)
			}
		}
		v.End()
	})
}

// A store that hangs must not keep the tracker from noticing lost presence: the
// leader gives it no more than an idle timeout to be put again.
func TestFlush_thatHangsDoesNotStopTheLookout(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.store.slowly(func(call string) (a, b time.Duration, err error) {
			if call == "flush" {
				return time.Hour, 0, nil
			}
			return 0, 0, nil
		})
		v := r.visit()
		v.Stream("websocket")
		time.Sleep(1500 * time.Millisecond) // the flush hangs
		r.Drain(id)
		r.Resume(id)
		synctest.Wait()
		r.enter(v)
		time.Sleep(idle + 300*time.Millisecond)
		r.wantInUse("quiet for the idle timeout", 0, 0)
		v.End()
	})
}
