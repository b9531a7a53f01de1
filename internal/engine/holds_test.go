package engine_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
)

func TestHold_keepsAwakeUntilItEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start(nil), w.start(nil)
	id := a.sleeping()
	b.await(id, session.Paused)
	h, err := b.Hold(t.Context(), id, api.HoldOptions{Name: "training", For: time.Hour, Reason: "a model", By: "token ops", Wake: true})
	if err != nil {
		t.Fatal(err)
	}
	sb, err := b.Get(t.Context(), id)
	if err != nil || sb.State != session.Running || len(sb.Holds) != 1 || !sb.Holds[0].Same(h) || sb.PauseAt != nil {
		t.Fatalf("%+v, %v", sb, err)
	}
	r := a.watch(api.EventFilter{Sandbox: id})
	r.until("it is held", func(e api.Event) bool { return len(e.Sandbox.Holds) == 1 })
	select {
	case <-time.After(idle + 2*time.Second):
	case <-t.Context().Done():
	}
	if state := a.State(id); state != session.Running {
		t.Fatalf("it is %s in spite of a hold", state)
	}
	if err := a.EndHold(t.Context(), id, "training"); err != nil {
		t.Fatal(err)
	}
	if sb, _ := a.Get(t.Context(), id); len(sb.Holds) != 0 {
		t.Errorf("%+v", sb.Holds)
	}
	r.untilState(id, session.Paused)
}

func TestHold_isReplacedAndBounded(t *testing.T) {
	t.Parallel()
	n := newWorld(t).start(nil)
	id := n.create()
	put := func(name string, d time.Duration) error {
		_, err := n.Hold(t.Context(), id, api.HoldOptions{Name: name, For: d})
		return err
	}
	for i := range 50 {
		if err := put(fmt.Sprint("h", i), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := put("one more", time.Hour); !errors.Is(err, api.ErrTooManyHolds) {
		t.Errorf("got %v", err)
	}
	if err := put("h7", 2*time.Hour); err != nil {
		t.Error(err)
	}
	sb, _ := n.Get(t.Context(), id)
	for _, h := range sb.Holds {
		if long := time.Until(h.ExpiresAt) > time.Hour; long != (h.Name == "h7") {
			t.Errorf("%+v", h)
		}
	}
	if len(sb.Holds) != 50 {
		t.Errorf("%d holds", len(sb.Holds))
	}
}

func TestUsed_countsAndWakesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	id := n.create()
	before, _ := n.Get(t.Context(), id)
	if err := n.Used(t.Context(), id, "build"); err != nil {
		t.Fatal(err)
	}
	after, _ := n.Get(t.Context(), id)
	if after.ActivityKind != "build" || !after.LastActivity.After(*before.LastActivity) {
		t.Errorf("%+v, then %+v", before, after)
	}
	n.await(id, session.Paused) // after its idle time, all the same
	for what, err := range map[string]error{
		"a use": n.Used(t.Context(), id, "build"),
		"a hold": func() error {
			_, err := n.Hold(t.Context(), id, api.HoldOptions{Name: "activity", For: time.Hour})
			return err
		}(),
	} {
		if !errors.Is(err, api.ErrNotRunning) {
			t.Errorf("%s of one that sleeps: %v", what, err)
		}
	}
	if calls := w.made(id, "connect"); len(calls) > 0 {
		t.Errorf("it was woken: %+v", calls)
	}
	if err := n.Used(t.Context(), "inone", "build"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("of one that isn't there: %v", err)
	}
}

// TestBadgeKey_isOneOfAllProxies has two ask for it at the same time.
func TestBadgeKey_isOneOfAllProxies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start(nil), w.start(nil)
	keys := make(chan []byte, 2)
	for _, n := range []*node{a, b} {
		go func() {
			key, err := n.BadgeKey(t.Context())
			if err != nil {
				t.Error(err)
			}
			keys <- key
		}()
	}
	if one, other := <-keys, <-keys; string(one) != string(other) || len(one) < 32 {
		t.Errorf("%x and %x", one, other)
	}
	if s := a.Status(t.Context()); s.BrokenRecords > 0 {
		t.Errorf("the view takes it for a session's: %+v", s)
	}
}
