package pauser_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
)

// tell puts how many streams two proxies have open.
func (r *rig) tell(counts ...int) {
	r.t.Helper()
	var all []session.NodeTraffic
	for i, n := range counts {
		value, err := json.Marshal(session.Traffic{Streams: make([]session.Stream, 1), More: n - 1})
		if err != nil {
			r.t.Fatal(err)
		}
		t, err := session.StoredTraffic(string(rune('a'+i)), value)
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, t)
	}
	r.store.change(id, func(s *session.Snapshot) { s.Traffic = all })
}

func (r *rig) wantParked(when string, want int) {
	r.t.Helper()
	if s := r.store.Get(id); s.Parked != want || s.State != session.Paused {
		r.t.Errorf("%s: %d streams are noted in a record that is %s, want %d in PAUSED", when, s.Parked, s.State, want)
	}
}

func TestParked_isWhatIsOpenAtThePause(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.tell(3, 4)
		r.lead()
		time.Sleep(idle + time.Second)
		r.wantParked("idle", 7)

		r.record(session.Running)
		r.tell(2)
		if _, _, err := r.hand(pauser.Options{}); err != nil {
			t.Fatal(err)
		}
		r.wantParked("by hand", 2)

		r.record(session.Running)
		r.tell()
		time.Sleep(idle + time.Second)
		r.wantParked("with none open", 0)
	})
}

// Its pages come again by themselves, whoever has paused it.
func TestParked_countsAlsoWhereSomebodyElsePaused(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.record(session.Running)
		r.tell(5)
		r.list(map[string]session.State{id: session.Paused})
		r.Sweep(t.Context())
		r.wantParked("swept", 5)
	})
}
