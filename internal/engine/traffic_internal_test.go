package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
	"github.com/sandman-proxy/sandman/internal/wake"
)

func TestRefused_keepsTheLastOnes(t *testing.T) {
	t.Parallel()
	r := newRecords()
	r.set("s", session.Paused)
	for i := range session.MaxRefused + 5 {
		r.Refused("s", session.Refusal{What: fmt.Sprint("GET /", i), Reason: "prefetch"})
	}
	for range 3 {
		r.Refused("s", session.Refusal{What: "GET /7", Reason: "prefetch", At: time.Unix(9, 0)})
	}
	r.Refused("s", session.Refusal{What: "GET /7", Reason: "bot", Asker: "bot"})
	got := r.Traffic("s").Refused
	if len(got) != session.MaxRefused {
		t.Fatalf("%d are kept, want %d", len(got), session.MaxRefused)
	}
	again, last := got[len(got)-2], got[len(got)-1]
	if again.What != "GET /7" || again.Count != 4 || !again.At.Equal(time.Unix(9, 0)) {
		t.Errorf("the same again is %+v, want it counted 4 times under its last time", again)
	}
	if last.Reason != "bot" || last.Count != 1 || last.At.IsZero() {
		t.Errorf("the last one is %+v", last)
	}
	if want := map[string]uint64{"prefetch": 28, "bot": 1}; !maps.Equal(r.Refusals(), want) {
		t.Errorf("counted %v, want %v", r.Refusals(), want)
	}
}

func TestRefused_strangersFillNoMemory(t *testing.T) {
	t.Parallel()
	r := newRecords()
	const many = maxTold + 100
	for i := range many {
		r.Refused(fmt.Sprint("guessed", i), session.Refusal{What: "GET /", Reason: "bot"})
		r.Repeated(fmt.Sprint("guessed", i), session.Repeat{What: "ping"})
		r.Refused("", session.Refusal{Reason: fmt.Sprint("invented", i)})
	}
	if len(r.places) != 0 || len(r.told) != 0 || len(r.soon) != 0 || len(r.refusals) > maxReasons {
		t.Errorf("%d places, %d told, %d reasons are kept of what nobody knows", len(r.places), len(r.told), len(r.refusals))
	}
	for i := range many {
		id := fmt.Sprint("known", i)
		r.set(id, session.Paused)
		r.Refused(id, session.Refusal{What: "GET /", Reason: "bot", At: time.Unix(int64(i), 0)})
	}
	told := 0
	for i := range many {
		if n := len(r.Traffic(fmt.Sprint("known", i)).Refused); n > 0 {
			told++
			if i < many-maxTold {
				t.Fatalf("that of sandbox %d is kept, which is older than others", i)
			}
		}
	}
	if told != maxTold {
		t.Errorf("those of %d sandboxes are kept, want %d", told, maxTold)
	}
}

func TestRepeated_replacesWhatWasKnown(t *testing.T) {
	t.Parallel()
	r := newRecords()
	r.set("s", session.Running)
	for i := range 3 * session.MaxRepeats {
		r.Repeated("s", session.Repeat{Kind: "message", Path: "/ws", What: "ping", Count: 20 + i})
		r.Repeated("s", session.Repeat{Kind: "request", What: fmt.Sprint("GET /", i/2)})
	}
	got := r.Traffic("s").Repeats
	i := slices.IndexFunc(got, func(r session.Repeat) bool { return r.What == "ping" })
	if len(got) != session.MaxRepeats || i < 0 || got[i].Count != 20+3*session.MaxRepeats-1 {
		t.Errorf("%+v", got)
	}
}

// written is a store that the traffic is written to.
type written struct {
	mu    sync.Mutex
	calls []map[string]session.Traffic
	at    []time.Time
	fail  error
}

func (w *written) put(_ context.Context, all []store.TrafficOf) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	call := map[string]session.Traffic{}
	for _, t := range all {
		call[t.ID] = t.Traffic
	}
	w.calls, w.at = append(w.calls, call), append(w.at, time.Now())
	return w.fail
}

// since gives what was written since the last call.
func (w *written) since() []map[string]session.Traffic {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

// publishing runs f while what streams tell is written, by a clock of its own.
func publishing(t *testing.T, f func(t *testing.T, r *records, w *written)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, w := newRecords(), new(written)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.publish(ctx, w.put, zap.NewNop()) }()
		f(t, r, w)
		cancel()
		<-done
	})
}

func TestPublish_writesAtOnceThenOnceASecond(t *testing.T) {
	publishing(t, func(t *testing.T, r *records, w *written) {
		r.set("s", session.Running)
		first := newTab("/first")
		r.Add("s", first, Page{})
		if got := w.since(); len(got) != 1 || got[0]["s"].Open() != 1 {
			t.Fatalf("written: %+v, want the first stream at once", got)
		}
		for i := range 100 { // for 1 s
			s := newTab("/")
			r.Add("s", s, Page{})
			r.Add(fmt.Sprint("s", i), newTab("/"), Page{})
			if i%2 == 0 {
				r.Remove("s", s)
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Millisecond)
		got := w.since()
		if len(got) != 1 || len(got[0]) < 100 || got[0]["s"].Open() < 50 {
			t.Errorf("%d writes within a second, want 1 with all 101 sandboxes", len(got))
		}
		time.Sleep(2 * time.Second)
		if got := w.since(); len(got) > 1 {
			t.Errorf("%d writes though nothing has changed since the first of them", len(got))
		}
		time.Sleep(time.Hour)
		if got := w.since(); len(got) != 0 {
			t.Errorf("%d writes though nothing changes", len(got))
		}
	})
}

func TestPublish_takesBackWhatHasEnded(t *testing.T) {
	publishing(t, func(t *testing.T, r *records, w *written) {
		s := newTab("/")
		r.Add("s", s, Page{})
		w.since()
		brief := newTab("/")
		r.Add("brief", brief, Page{})
		r.Remove("brief", brief)
		r.Remove("s", s)
		time.Sleep(2 * time.Second)
		got := w.since()
		if _, there := got[0]["s"]; len(got) != 1 || !there || !got[0]["s"].Empty() || len(got[0]) != 1 {
			t.Errorf("written: %+v, want that nothing is open, and none of what came and went between", got)
		}
		if len(r.places) != 0 {
			t.Errorf("%d places are kept", len(r.places))
		}
	})
}

func TestPublish_repeatsWhatFailedAndWhatIsLost(t *testing.T) {
	publishing(t, func(t *testing.T, r *records, w *written) {
		w.fail = errors.New("the store is away")
		s := newTab("/")
		r.Add("s", s, Page{})
		time.Sleep(5*time.Second + time.Millisecond)
		w.mu.Lock()
		w.fail = nil
		w.mu.Unlock()
		if got := w.since(); len(got) != 6 {
			t.Errorf("%d tries in 5 s, want one each second", len(got))
		}
		time.Sleep(time.Second)
		if got := w.since(); len(got) != 1 || got[0]["s"].Open() != 1 {
			t.Errorf("written: %+v, want the stream", got)
		}
		r.lost("s")
		r.lost("never told")
		time.Sleep(time.Second)
		if got := w.since(); len(got) != 1 || got[0]["s"].Open() != 1 {
			t.Errorf("written after it was lost: %+v, want the stream again", got)
		}
		r.Remove("s", s)
		time.Sleep(time.Second)
		w.since()
		r.lost("s") // our own doing
		time.Sleep(time.Hour)
		if got := w.since(); len(got) != 0 {
			t.Errorf("written of what has ended: %+v", got)
		}
	})
}

func TestPublish_noticesDormancy(t *testing.T) {
	publishing(t, func(t *testing.T, r *records, w *written) {
		s := newTab("/")
		r.Add("s", s, Page{})
		w.since()
		s.become(session.StreamDormant)
		time.Sleep(reviewEvery + time.Second)
		if got := w.since(); len(got) != 1 || got[0]["s"].Streams[0].State != session.StreamDormant {
			t.Errorf("written: %+v, want a dormant stream", got)
		}
	})
}

// Forgotten tabs try for ever.
func TestPublish_countsSeldom(t *testing.T) {
	publishing(t, func(t *testing.T, r *records, w *written) {
		r.set("s", session.Paused)
		for range 3600 {
			r.Refused("s", session.Refusal{What: "GET /ws", Reason: "budget"})
			time.Sleep(time.Second)
		}
		got := w.since()
		if len(got) > 62 {
			t.Errorf("%d writes in an hour, want about one a minute", len(got))
		}
		if n := got[len(got)-1]["s"].Refused[0].Count; n < 3500 {
			t.Errorf("the last write counts %d of 3600", n)
		}
	})
}

func TestTraffic_showsTheActiveOnesFirstAndCountsTheRest(t *testing.T) {
	t.Parallel()
	r := newRecords()
	for i := range session.MaxStreams + 30 {
		s := newTab(fmt.Sprint("/", i))
		s.info.State = session.StreamDormant
		if i%10 == 0 {
			s.info.State = session.StreamActive
		}
		r.Add("s", s, Page{})
	}
	got := r.Traffic("s")
	if len(got.Streams) != session.MaxStreams || got.More != 30 || got.Open() != 80 {
		t.Fatalf("%d streams and %d more, want %d and 30", len(got.Streams), got.More, session.MaxStreams)
	}
	for i, s := range got.Streams {
		if active := s.State == session.StreamActive; active != (i < 8) {
			t.Errorf("stream %d is %s, want the 8 active ones first", i, s.State)
		}
	}
}

// Whatever the policy refuses can be explained.
func TestCodes_haveAdviceForEveryAsker(t *testing.T) {
	t.Parallel()
	asleep := session.New("s", "h", session.Paused, "", time.Now())
	asleep.Parked = 1
	seen := map[string]bool{}
	for _, rule := range []wake.Rule{wake.WakeIntent, wake.WakeManual} {
		for a := wake.Program; a <= wake.WorkerScript; a++ {
			err := wake.Policy{Rule: rule}.For(a)(asleep)
			if refused, is := errors.AsType[*wake.RefusedError](err); is {
				seen[refused.Code] = true
				if codes[refused.Code].because == "" || codes[refused.Code].change == "" {
					t.Errorf("no words for %q, which refuses a %s", refused.Code, a)
				}
			}
		}
	}
	if len(seen) < 7 {
		t.Errorf("the policy refuses by %d codes only: %v", len(seen), seen)
	}
}
