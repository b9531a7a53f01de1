package engine_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

func (n *node) why(id string) api.Why {
	n.w.t.Helper()
	why, err := n.Why(n.w.t.Context(), id)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return why
}

// wantWords fails where no sentence holds all the parts.
func wantWords(t *testing.T, why api.Why, parts ...string) {
	t.Helper()
	if !slices.ContainsFunc(why.Words, func(words string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(words, part) })
	}) {
		t.Errorf("no sentence says %q in\n%s", parts, strings.Join(why.Words, "\n"))
	}
}

func TestWhy_awake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start(nil), w.start(nil)
	id := a.create()
	a.setIdle(id, time.Hour)
	b.await(id, session.Running)
	a.eventually("nothing keeps it awake", func() bool { return a.why(id).PauseAt != nil })
	why := a.why(id)
	if len(why.KeptAwakeBy) != 0 || why.LastPause != nil || why.LastWake != nil || why.State != session.Running {
		t.Errorf("a sandbox that nobody uses: %+v", why)
	}
	wantWords(t, why, "It has been running for ", ", since ", " UTC. Created.")
	wantWords(t, why, "Nothing keeps it awake: it will be paused in ", ", at ", " UTC. It has not been used since it was first seen, ")
	wantWords(t, why, "It is paused 1h after its last use (set for this sandbox")
	if s := why.Settings[0]; s.Name != "idleTimeout" || s.Value != "1h0m0s" || s.Source != api.SetHere {
		t.Errorf("the idle timeout is %+v", s)
	}

	first, second := a.request(id), a.request(id)
	defer first.end()
	defer second.end()
	why = a.why(id)
	if len(why.KeptAwakeBy) != 1 || why.PauseAt != nil {
		t.Fatalf("kept awake by %+v, want the requests", why.KeptAwakeBy)
	}
	if k := why.KeptAwakeBy[0]; k.Kind != api.KeptByRequest || k.Count != 2 || k.Node != a.Node() || k.What != "request" {
		t.Errorf("kept awake by %+v, want 2 requests through %s", k, a.Node())
	}
	wantWords(t, why, "It is kept awake by 2 requests through this proxy.")

	b.eventually("the other proxy knows of it", func() bool { return len(b.why(id).KeptAwakeBy) == 1 })
	why = b.why(id)
	if k := why.KeptAwakeBy[0]; k.Kind != api.KeptByProxy || k.Node != a.Node() || k.What != "request" {
		t.Errorf("seen by another proxy: %+v", k)
	}
	sb, err := b.Get(t.Context(), id)
	if err != nil || !slices.Equal(sb.AwakeBecause, []string{"in use through proxy " + a.Node()}) {
		t.Errorf("awakeBecause %q, %v", sb.AwakeBecause, err)
	}
}

func TestWhy_asleep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	id := n.sleeping()
	n.request(id).end()
	n.open(id, 2)
	n.await(id, session.Paused)
	why := n.why(id)
	if why.LastPause == nil || why.LastPause.Reason != "idle for 3s" || why.LastWake == nil || why.LastWake.Reason != "request: GET /" {
		t.Errorf("paused last by %+v, woken by %+v; want idle, and the request", why.LastPause, why.LastWake)
	}
	if why.Streams != (api.StreamCounts{Parked: 2}) || why.Parked != 2 || why.PauseAt != nil || len(why.KeptAwakeBy) != 0 {
		t.Errorf("streams %+v, %d at the pause, kept awake by %v until %v", why.Streams, why.Parked, why.KeptAwakeBy, why.PauseAt)
	}
	wantWords(t, why, "It has been asleep for ", ", since ", " UTC. Idle for 3s.")
	wantWords(t, why, "It was last woken at", " UTC: request: GET /.")
	for _, words := range why.Words { // what it says first it does not say again
		if strings.HasPrefix(words, "It was last paused") {
			t.Errorf("also %q", words)
		}
	}
	wantWords(t, why, "Open now: 2 streams (2 waiting until it runs).")
	wantWords(t, why, "2 streams were open when it was last paused; their pages reconnect by themselves.")
	wantWords(t, why, "The next request from a person or a program wakes it, unless its site says otherwise.")

	policy := api.Patch{WakePolicy: api.Optional[string]{Set: true, Value: "manual"}}
	if _, err := n.Update(t.Context(), id, policy, 0); err != nil {
		t.Fatal(err)
	}
	why = n.why(id)
	wantWords(t, why, "No request wakes it")
	if s := why.Settings[1]; s.Name != "wakePolicy" || s.Value != "manual" || s.Source != api.SetHere {
		t.Errorf("the wake policy is %+v", s)
	}
}

func TestWhy_refusalsAndRepeatsSayWhatWouldChangeThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	id := n.sleeping()
	at := time.Now().UTC().Truncate(time.Second)
	for i, reason := range []string{"favicon", "manual", "reconnect-budget", engine.ReasonNoise, engine.ReasonStillOpen, "of-a-later-version"} {
		n.Streams().Refused(id, session.Refusal{At: at.Add(time.Duration(i) * time.Second), Asker: "somebody", What: "GET /" + reason, Reason: reason})
	}
	n.Streams().Repeated(id, session.Repeat{At: at, Kind: "message", Path: "/ws", What: `"ping"`, Every: session.Duration(5 * time.Second), Count: 40, Rule: `payload "ping"`})
	why := n.why(id)
	if len(why.Refused) != 6 || why.Refused[5].Reason != "favicon" {
		t.Fatalf("refused: %+v, want six, the newest first", why.Refused)
	}
	seen := map[string]bool{}
	for _, r := range why.Refused {
		if r.Node != n.Node() || r.Change == "" || !strings.Contains(r.Words, "GET /"+r.Reason+" (somebody) did not wake it (at ") {
			t.Errorf("%+v", r)
		}
		seen[r.Change] = true
	}
	if len(seen) != 5 { // that of an unknown code is as for a favicon
		t.Errorf("%d kinds of advice, want 5: %v", len(seen), seen)
	}
	wantWords(t, why, "reconnect_wakes")
	wantWords(t, why, `message "ping" at /ws comes every 5s, 40 times`, `add this rule to the site's noise: payload "ping"`)
}

// Why is asked when something is wrong.
func TestWhy_withTheStoreAway(t *testing.T) {
	t.Parallel()
	own, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	n := newWorldOn(t, own.Client()).start(nil)
	id := n.create()
	if err := own.Close(); err != nil {
		t.Fatal(err)
	}
	why := n.why(id)
	wantWords(t, why, "It has been running for ")
	wantWords(t, why, "Its history can't be read now.")
	n.wantStandstill(id)
	n.close()
}

// wantStandstill fails where a sandbox looks as if it would be paused, though
// the store is away.
func (n *node) wantStandstill(id string) {
	t := n.w.t
	t.Helper()
	const away = "the session store can't be reached: nothing is paused until it is back"
	told := n.watch(api.EventFilter{Sandbox: id}).until("the store is away", func(e api.Event) bool { return e.Sandbox.StoreAway })
	if told.ID != 0 || told.Sandbox.PauseAt != nil {
		t.Errorf("an event to go on from at %d tells of a pause at %v, want one that nobody goes on from, and no pause", told.ID, told.Sandbox.PauseAt)
	}
	sb, err := n.Get(t.Context(), id)
	if err != nil || sb.PauseAt != nil || !slices.Contains(sb.AwakeBecause, away) {
		t.Errorf("paused at %v, awake because %q, %v", sb.PauseAt, sb.AwakeBecause, err)
	}
	why := n.why(id)
	if why.PauseAt != nil || !why.StoreAway || len(why.KeptAwakeBy) == 0 || why.KeptAwakeBy[0].Kind != api.KeptByStore || why.KeptAwakeBy[0].Words != away {
		t.Errorf("paused at %v, kept awake by %+v", why.PauseAt, why.KeptAwakeBy)
	}
	wantWords(t, why, "The session store can't be reached: nothing is paused until it is back.")
	for name, read := range map[string]func() error{
		"history": func() error { _, err := n.History(t.Context(), id, api.HistoryQuery{Limit: 1}); return err },
		"runs":    func() error { _, err := n.LeaderRuns(t.Context()); return err },
		"usage":   func() error { _, err := n.Usage(t.Context(), "2026-01-01", "2026-01-02"); return err },
	} {
		var unavailable *api.UnavailableError
		if err := read(); !errors.As(err, &unavailable) || unavailable.Reason != away {
			t.Errorf("reading the %s: %v", name, err)
		}
	}
}

func TestWhy_holdsWithAuthorAndReason(t *testing.T) {
	t.Parallel()
	n := newWorld(t).start(nil)
	id := n.create()
	for _, o := range []api.HoldOptions{
		{Name: "training", By: "token ops", Reason: "the nightly run, until it is done."},
		{Name: "badge", By: "badge of " + id},
		{Name: "old"}, // of a version that noted neither
	} {
		o.For = time.Hour
		if _, err := n.Hold(t.Context(), id, o); err != nil {
			t.Fatal(err)
		}
	}
	why := n.why(id)
	until := map[string]string{}
	for _, k := range why.KeptAwakeBy {
		if k.Kind == api.KeptByHold {
			until[k.What] = k.Until.UTC().Format("2006-01-02 15:04:05 UTC")
		}
	}
	for name, rest := range map[string]string{
		"training": ", set by token ops: the nightly run, until it is done.",
		"badge":    ", set by badge of " + id + ".",
		"old":      ".",
	} {
		if want := fmt.Sprintf("It is kept awake by the hold %q until %s", name, until[name]) + rest; !slices.Contains(why.Words, want) {
			t.Errorf("no sentence is %q in\n%s", want, strings.Join(why.Words, "\n"))
		}
	}
	k := why.KeptAwakeBy[slices.IndexFunc(why.KeptAwakeBy, func(k api.Keeper) bool { return k.What == "training" })]
	if k.By != "token ops" || k.Reason != "the nightly run, until it is done." {
		t.Errorf("as values: %+v", k)
	}
	if sb, err := n.Get(t.Context(), id); err != nil || !slices.Contains(sb.AwakeBecause, fmt.Sprintf("hold %q until %s", "training", until["training"])) {
		t.Errorf("in short: %q, %v", sb.AwakeBecause, err)
	}
}
