package store_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

// naive counts usage with no keys, no days of more than one, and no etcd: every
// minute of what was, one by one.
type naive map[usedBy]session.Usage

type usedBy struct {
	id, owner string
	day       session.Day
}

func (n naive) add(id, owner string, state session.State, from, to time.Time) {
	for at := from; at.Before(to); at = at.Add(time.Minute) {
		key := usedBy{id, owner, session.DayOf(at)}
		u := n[key]
		switch state {
		case session.Paused:
			u.PausedMs += time.Minute.Milliseconds()
		case session.Running, session.Pausing, session.Resuming:
			u.RunningMs += time.Minute.Milliseconds()
		case session.Killed:
		}
		n[key] = u
	}
}

// used sums up what a store tells.
func (r *rig) used(from, to session.Day, now time.Time) naive {
	r.t.Helper()
	all, err := r.Usage(r.ctx, from, to, now)
	if err != nil {
		r.t.Fatal(err)
	}
	n := naive{}
	for _, u := range all {
		for day := u.First; day <= u.Last; day = day.Next() {
			key := usedBy{u.SandboxID, u.Owner, day}
			sum := n[key].Add(session.Usage{RunningMs: u.RunningMs, PausedMs: u.PausedMs})
			n[key] = sum
		}
	}
	return n
}

func sameUsage(t *testing.T, when string, got, want naive) {
	t.Helper()
	keys := map[usedBy]bool{}
	for _, n := range []naive{got, want} {
		for k := range n {
			keys[k] = true
		}
	}
	for k := range keys {
		if got[k] != want[k] {
			t.Errorf("%s: %+v: %+v, want %+v", when, k, got[k], want[k])
		}
	}
}

// history is a random one of some sandboxes, through processes that die, whose
// clocks are set ahead and back, that lose races and answers, while another folds.
type history struct {
	*rig
	rnd   *rand.Rand
	nodes []*rig
	now   time.Time
	want  naive
	stand map[string]session.Record // as it is stored
	since map[string]time.Time      // counted up to
}

func TestUsage_randomHistories(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			h := &history{
				rig: r, rnd: rand.New(rand.NewPCG(seed, 7)), nodes: []*rig{r, r.beside("node-b")},
				now: time.Now().Add(-300 * 24 * time.Hour).Truncate(time.Minute), want: naive{},
				stand: map[string]session.Record{}, since: map[string]time.Time{},
			}
			first := session.DayOf(h.now.Add(-24 * time.Hour)) // a clock may be behind
			folder := r.NewFolder()
			for step := range 120 {
				h.step()
				if h.rnd.IntN(5) == 0 {
					if _, err := folder.Step(r.ctx, h.now); err != nil {
						t.Fatal(err)
					}
				}
				if step%30 == 29 {
					h.check(first)
				}
			}
			for id, rec := range h.stand { // what is gone has been all the same
				h.end(id, rec)
			}
			h.check(first)
		})
	}
}

// check compares a range of days, at a moment at which some run and some sleep.
func (h *history) check(first session.Day) {
	h.t.Helper()
	now := h.now.Add(90 * time.Minute)
	want := maps.Clone(h.want)
	for id, rec := range h.stand {
		want.add(id, rec.Owner, rec.State, h.since[id], now)
	}
	h.awaitViews()
	node := h.nodes[h.rnd.IntN(len(h.nodes))]
	last := session.DayOf(now).Next() // a clock may have been ahead
	sameUsage(h.t, "all of it", node.used(first, last, now), want)
	from := session.DayOf(first.Start().Add(time.Duration(h.rnd.IntN(100)) * 24 * time.Hour))
	to := session.DayOf(from.Start().Add(time.Duration(h.rnd.IntN(50)) * 24 * time.Hour))
	maps.DeleteFunc(want, func(k usedBy, _ session.Usage) bool { return k.day < from || k.day > to })
	sameUsage(h.t, fmt.Sprintf("from %s to %s", from, to), node.used(from, to, now), want)
}

func (h *history) awaitViews() {
	for id, rec := range h.stand {
		for _, n := range h.nodes {
			n.see(id, "the last step", func(sb *store.Sandbox) bool { return sb.Revision >= rec.Revision })
		}
	}
}

func (h *history) step() {
	h.now = h.now.Add(time.Duration(h.rnd.IntN(600)) * time.Minute)
	if h.rnd.IntN(20) == 0 {
		h.now = h.now.Add(40 * 24 * time.Hour / 4)
	}
	id := fmt.Sprintf("s%d", h.rnd.IntN(4))
	rec, known := h.stand[id]
	node := h.nodes[h.rnd.IntN(len(h.nodes))]
	at := h.now
	switch h.rnd.IntN(10) {
	case 0:
		at = at.Add(-time.Duration(h.rnd.IntN(180)) * time.Minute) // this one's clock was set back
	case 1:
		at = at.Add(time.Duration(h.rnd.IntN(1200)) * time.Minute) // ahead, and the next one's is right
	}
	switch {
	case !known:
		rec = session.New(id, "h", session.Running, "made", at)
		rec.Owner = "first"
		next, err := node.Adopt(h.ctx, rec)
		h.took(at, next, err)
	case h.rnd.IntN(12) == 0:
		h.restart()
	case h.rnd.IntN(4) == 0:
		next := rec
		next.Owner = fmt.Sprintf("owner%d", h.rnd.IntN(2))
		next, err := node.Configure(h.ctx, next.Counted(rec, at))
		h.took(at, next, err)
	default:
		states := slices.DeleteFunc([]session.State{session.Running, session.Paused, session.Killed, session.Paused, session.Running},
			func(s session.State) bool { return s == rec.State })
		next, err := rec.Settle(states[h.rnd.IntN(len(states))], "as it is", at)
		if err != nil {
			h.t.Fatal(err)
		}
		stored, err := node.Settle(h.ctx, next)
		h.took(at, stored, err)
		// whoever comes too late with the same step, or repeats it because the
		// answer was lost, adds nothing
		if _, err := node.Settle(h.ctx, next); !errors.Is(err, store.ErrConflict) {
			h.t.Fatalf("the same step twice: %v", err)
		}
	}
}

// took notes a step in the naive model: what the latest clock has shown so far
// is counted.
func (h *history) took(at time.Time, next session.Record, err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
	id := next.SandboxID
	before, known := h.stand[id]
	h.stand[id] = next
	switch {
	case !known:
		h.since[id] = at
	case before.Owner == next.Owner && before.State == next.State: // a setting
	case at.After(h.since[id]):
		h.want.add(id, before.Owner, before.State, h.since[id], at)
		h.since[id] = at
	}
}

// restart lets a process die and another take its place.
func (h *history) restart() {
	h.nodes[1].stop()
	h.nodes[1] = h.beside(fmt.Sprintf("node-%d", h.rnd.Int64()))
}

// end forgets a sandbox.
func (h *history) end(id string, rec session.Record) {
	if rec.State != session.Killed {
		at := h.now.Add(time.Hour)
		next, err := rec.Settle(session.Killed, "", at)
		if err != nil {
			h.t.Fatal(err)
		}
		next, err = h.Settle(h.ctx, next)
		h.took(at, next, err)
		rec = h.stand[id]
	}
	if err := h.Remove(h.ctx, id, rec.Revision); err != nil {
		h.t.Fatal(err)
	}
	delete(h.stand, id)
	for _, n := range h.nodes {
		n.eventually("it is gone", func() bool { _, ok := n.View().Get(id); return !ok })
	}
}

// usageKeys lists what is stored.
func (r *rig) usageKeys() []string {
	r.t.Helper()
	resp, err := r.etcd.Get(r.ctx, r.key("usage/"), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		r.t.Fatal(err)
	}
	var all []string
	for _, kv := range resp.Kvs {
		all = append(all, string(kv.Key)[len(r.prefix):])
	}
	return all
}

// busy takes transitions, one a minute, from a time on.
func (r *rig) busy(id string, from time.Time, steps int) {
	r.t.Helper()
	rec, err := r.Adopt(r.ctx, session.New(id, "h", session.Running, "", from))
	for i := range steps {
		if err != nil {
			r.t.Fatal(err)
		}
		rec, err = rec.Settle([]session.State{session.Paused, session.Running}[i%2], "", from.Add(time.Duration(i+1)*time.Minute))
		if err == nil {
			rec, err = r.Settle(r.ctx, rec)
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.see(id, "the last step", func(sb *store.Sandbox) bool { return sb.Revision >= rec.Revision })
}

func TestFolder_mergesDaysThatAreOver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other := r.beside("node-b")
	today := session.DayOf(time.Now()).Start()
	r.busy("old", today.Add(-30*time.Hour), 250) // more than one Txn takes
	r.busy("new", today.Add(time.Hour), 6)
	before := r.used(session.DayOf(today.Add(-48*time.Hour)), session.DayOf(today), today.Add(12*time.Hour))
	if n := len(r.usageKeys()); n < 250 {
		t.Fatalf("%d keys before folding", n)
	}
	folders := []*store.Folder{r.NewFolder(), other.NewFolder()} // of a leader, and of one that doesn't know that it is none
	for range 4 {
		done := make(chan error, len(folders))
		for _, f := range folders {
			go func() { _, err := f.Step(r.ctx, today.Add(12*time.Hour)); done <- err }()
		}
		for range folders {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	var old, fresh int
	for _, key := range r.usageKeys() {
		if session.Day(key[len("usage/"):len("usage/")+10]) < session.DayOf(today) {
			old++
		} else {
			fresh++
		}
	}
	if old != 1 || fresh != 6 {
		t.Errorf("%d keys of days that are over, want 1; %d of today, want 6", old, fresh)
	}
	sameUsage(t, "folded", r.used(session.DayOf(today.Add(-48*time.Hour)), session.DayOf(today), today.Add(12*time.Hour)), before)
}

func TestFolder_dropsWhatIsTooOld(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	now := time.Now()
	for _, key := range []string{"2020-01-05/s/1", "2020-01/s/1-2020-01-07", "2020-02-01/s/1"} {
		r.put("usage/"+key, `{"first":"2020-01-05","last":"2020-01-05","parts":[{"runningMs":1}]}`)
	}
	r.busy("s", now.Add(-10*24*time.Hour), 1)
	kept := len(r.usageKeys()) - 3
	if _, err := r.NewFolder().Step(r.ctx, now); err != nil {
		t.Fatal(err)
	}
	if keys := r.usageKeys(); len(keys) != kept || kept == 0 {
		t.Errorf("%q are left, want %d", keys, kept)
	}
}

func TestUsage_isNotInTheView(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 50 {
		r.put(fmt.Sprintf("usage/2026-11-01/s/%d", i), "{}") // as the watch brings it
	}
	other := r.beside("node-b") // as the list does
	r.owned("s", "", "")
	for _, n := range []*rig{r, other} {
		n.see("s", "what came after it", func(*store.Sandbox) bool { return true })
		if known := n.View().Known(); known > 10 {
			t.Errorf("the view knows %d keys", known)
		}
		if broken := n.View().Broken(); len(broken) > 0 {
			t.Errorf("%+v", broken)
		}
	}
}

func TestUsage_afterACompaction(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	from := time.Now().Add(-time.Hour)
	r.busy("s", from, 3)
	now := from.Add(30 * time.Minute)
	days := func() naive { return r.used(session.DayOf(from), session.DayOf(now), now) }
	before := days()
	// somebody else's keys, which our watch is not told of
	resp, err := r.etcd.Put(r.ctx, "/elsewhere", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.etcd.Compact(r.ctx, resp.Header.Revision); err != nil {
		t.Fatal(err)
	}
	sameUsage(t, "compacted", days(), before)
	if len(before) == 0 {
		t.Error("nothing was used")
	}
}

func TestRemove_keepsTheUsage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	from := time.Now().Add(-time.Hour)
	rec, err := r.Adopt(r.ctx, session.New("s", "h", session.Running, "", from))
	if err != nil {
		t.Fatal(err)
	}
	rec, err = rec.Settle(session.Killed, "gone", from.Add(10*time.Minute))
	if err == nil {
		rec, err = r.Settle(r.ctx, rec)
	}
	if err == nil {
		err = r.Remove(r.ctx, "s", rec.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.eventually("the view knows that it is removed", func() bool { _, ok := r.View().Get("s"); return !ok })
	var ms int64
	for _, u := range r.used(session.DayOf(from), session.DayOf(time.Now()), time.Now()) {
		ms += u.RunningMs
	}
	if ms != (10 * time.Minute).Milliseconds() {
		t.Errorf("%d ms of it are told, want 10 minutes", ms)
	}
}
