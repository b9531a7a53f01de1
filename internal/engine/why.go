package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// OpenStreams implements api.Reader. What this process has itself is told as it
// is now.
func (e *Engine) OpenStreams(ctx context.Context, id string) ([]api.NodeTraffic, error) {
	if err := e.loaded(ctx); err != nil {
		return nil, err
	}
	s := e.get(id)
	if s == nil {
		return nil, api.ErrNotFound
	}
	return e.traffic(s), nil
}

// traffic is what all proxies tell of a session, by their names.
func (e *Engine) traffic(s *session.Snapshot) []api.NodeTraffic {
	all := []api.NodeTraffic{{Node: e.store.Node(), Traffic: e.streams.Traffic(s.SandboxID)}}
	for _, t := range s.Traffic {
		if t.Node != e.store.Node() {
			all = append(all, api.NodeTraffic{Node: t.Node, Traffic: t.Traffic()})
		}
	}
	all = slices.DeleteFunc(all, func(t api.NodeTraffic) bool { return t.Empty() })
	slices.SortFunc(all, func(a, b api.NodeTraffic) int { return strings.Compare(a.Node, b.Node) })
	return all
}

// Why implements api.Reader. Where the history can't be read the rest is told.
func (e *Engine) Why(ctx context.Context, id string) (api.Why, error) {
	if err := e.loaded(ctx); err != nil {
		return api.Why{}, err
	}
	s := e.get(id)
	if s == nil {
		return api.Why{}, api.ErrNotFound
	}
	now, sb, told := time.Now(), e.show(s), e.traffic(s)
	w := api.Why{
		SandboxID: id, StoreAway: sb.StoreAway, State: s.State, Since: s.Since, Reason: s.Reason, PauseAt: sb.PauseAt, LastError: s.LastError,
		KeptAwakeBy: []api.Keeper{}, Settings: settings(e.rules(s.Record).Settings(s.Record)), Streams: countStreams(told),
		Parked: s.Parked, ReconnectWakes: s.ReconnectsOn(now), Refused: refused(told), Repeats: repeats(told),
	}
	if s.State == session.Running {
		w.KeptAwakeBy = append(w.KeptAwakeBy, e.keepers(s)...)
	}
	lines, err := e.store.History(ctx, id, store.HistoryQuery{})
	if err == nil {
		w.LastPause, w.LastWake = lastOf(lines)
	}
	w.Words = explanation{Why: w, now: now, last: sb.LastActivity, kind: sb.ActivityKind, historyLost: err != nil}.words()
	return w, nil
}

// keepers are what keeps a running sandbox from its deadline. Without the store
// nobody pauses it, whatever else is known.
func (e *Engine) keepers(s *session.Snapshot) []api.Keeper {
	var all []api.Keeper
	if why := e.standstill(); why != "" {
		all = append(all, api.Keeper{Kind: api.KeptByStore, Count: 1, Words: why})
	}
	all = append(all, e.ownKeepers(s.SandboxID)...)
	for _, p := range s.Presence {
		if p.Node != e.store.Node() {
			all = append(all, keeperAt(s, p.Node))
		}
	}
	for _, h := range s.Holds {
		all = append(all, api.Keeper{
			Kind: api.KeptByHold, Count: 1, What: h.Name, Reason: h.Reason, By: h.By, Until: &h.ExpiresAt,
			Words: holdWords(h),
		})
	}
	if len(all) == 0 && s.Open() {
		all = append(all, api.Keeper{
			Kind: api.KeptByProxy, Count: 1, Node: s.Activity.Node, What: s.Activity.Kind, Words: "a visit has just ended",
		})
	}
	return all
}

// holdWords say of a hold all that is known: its author, and what for.
func holdWords(h session.Hold) string {
	words := holdName(h.Name, h.ExpiresAt)
	if h.By != "" {
		words += ", set by " + h.By
	}
	if reason := strings.TrimRight(h.Reason, ". "); reason != "" {
		words += ": " + reason
	}
	return words
}

func holdName(name string, until time.Time) string {
	return fmt.Sprintf("hold %q until %s", name, clock(until))
}

func (e *Engine) ownKeepers(id string) []api.Keeper {
	requests, streams := e.visits.InUse(id)
	_, what, _ := e.visits.Last(id)
	var all []api.Keeper
	for _, c := range []struct {
		kind, name string
		n          int
	}{{api.KeptByRequest, "request", requests}, {api.KeptByStream, "open stream", streams}} {
		if c.n > 0 {
			all = append(all, api.Keeper{
				Kind: c.kind, Count: c.n, Node: e.store.Node(), What: what, Words: plural(c.n, c.name) + " through this proxy",
			})
		}
	}
	return all
}

// inUse begins what is said of use that is not known more closely.
const inUse = "in use"

// keeperAt is what is known of the use through another proxy.
func keeperAt(s *session.Snapshot, node string) api.Keeper {
	k := api.Keeper{Kind: api.KeptByProxy, Count: 1, Node: node, Words: inUse + " through proxy " + node}
	if s.Activity.Node == node {
		k.What = s.Activity.Kind
	}
	stored, _ := s.TrafficOf(node)
	if active := countStreams([]api.NodeTraffic{{Traffic: stored.Traffic()}}).Active; active > 0 {
		k.Kind, k.Count = api.KeptByStream, active
		k.Words += ": " + plural(active, "active stream")
	}
	return k
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func countStreams(told []api.NodeTraffic) (n api.StreamCounts) {
	for _, t := range told {
		n.Unnamed += max(0, t.More)
		for _, s := range t.Streams {
			switch s.State {
			case session.StreamDormant:
				n.Dormant++
			case session.StreamParked:
				n.Parked++
			default:
				n.Active++
			}
		}
	}
	return n
}

// The codes of refusals beside those of the wake policy.
const (
	// ReasonNoise: a rule or a preset says that no person sent it.
	ReasonNoise = "noise"
	// ReasonStillOpen: a stream of the same page is parked, and its client there.
	ReasonStillOpen = "still-open"
)

const changeToAny = "To let every request wake it, set its wakePolicy, or the site's wake, to any."

// codes says what a refusal means, and what would change it.
var codes = map[string]struct{ because, change string }{
	wake.CodeManual: {
		"it is woken by hand only", "Resume it by hand, or set its wakePolicy, or the site's wake, to intent.",
	},
	wake.CodeBudget: {
		"pages that were left open have woken it as often today as they may",
		"Open the page again to wake it. To let open pages wake it more often, raise the site's reconnect_wakes.",
	},
	ReasonNoise: {
		"a rule or a preset says that no person sends it", "If people do send it, remove the rule or the preset from the site's configuration.",
	},
	ReasonStillOpen: {
		"the same page has a stream open, whose next message wakes it", "Nothing needs to change: use the page.",
	},
	"prefetch":      {"a browser loads it in advance, in case somebody wants it", changeToAny},
	"favicon":       {"a browser loads a page's icon by itself", changeToAny},
	"cross-site":    {"another site's page embeds it", changeToAny},
	"bot":           {"a crawler or a monitor sent it", changeToAny},
	"worker-script": {"a browser checks by itself for a new version of a service worker", changeToAny},
}

// refused are the refusals of all proxies, the newest first.
func refused(told []api.NodeTraffic) []api.Refused {
	all := []api.Refused{}
	for _, t := range told {
		for _, r := range t.Refused {
			code, known := codes[r.Reason]
			if !known {
				code.because, code.change = r.Reason, changeToAny
			}
			what := r.What
			if r.Asker != "" {
				what += " (" + r.Asker + ")"
			}
			when := "at "
			if r.Count > 1 {
				when = times(r.Count) + ", last at "
			}
			all = append(all, api.Refused{
				Node: t.Node, Refusal: r, Change: code.change,
				Words: fmt.Sprintf("%s did not wake it (%s%s): %s.", what, when, clock(r.At), code.because),
			})
		}
	}
	slices.SortStableFunc(all, func(a, b api.Refused) int { return b.At.Compare(a.At) })
	return all
}

func repeats(told []api.NodeTraffic) []api.Repeat {
	all := []api.Repeat{}
	for _, t := range told {
		for _, r := range t.Repeats {
			what := r.Kind + " " + r.What
			if r.Path != "" {
				what += " at " + r.Path
			}
			words := fmt.Sprintf("The %s comes every %s, %s so far, like clockwork, and counts as use.", what, session.Span(time.Duration(r.Every)), times(r.Count))
			if r.Rule != "" {
				words += " If no person sends it, add this rule to the site's noise: " + r.Rule
			}
			all = append(all, api.Repeat{Node: t.Node, Repeat: r, Words: words})
		}
	}
	slices.SortStableFunc(all, func(a, b api.Repeat) int { return b.At.Compare(a.At) })
	return all
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
