package engine

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

const (
	// usePace is how often a reader is told of a sandbox at most whose use alone
	// has changed.
	usePace = time.Second
	// batchPace lets changes that come one after the other go out together.
	batchPace = 20 * time.Millisecond
	// maxBatch bounds what is rendered at once.
	maxBatch = 100
	// maxPending is how many sandboxes a reader may be behind with.
	maxPending = 10_000
	// maxLeft is how many sandboxes that went are remembered for readers that
	// come again.
	maxLeft = 1_000
	// maxWatchers bounds the readers of one process.
	maxWatchers = 10_000
	// maxOfOne bounds those of one sandbox: its badge's token is read by many.
	maxOfOne = 500
	// beforeAll is a revision that is older than every list: nobody can go on
	// from there.
	beforeAll = 0
)

// watchers are all who are told of changes, as the watch of the store brings
// them. What is kept of each is which sandboxes it is behind with, not what to
// tell: that is made when it is ready for it. So a slow reader costs no more
// than a fast one, and is told of states, not of every step between them.
//
// A reader resumes, at any process, from a revision of the store up to which it
// was told everything. Sandboxes have the revision of their last change; of
// those that went, or went to another owner, the last ones are remembered.
type watchers struct {
	view *store.View
	get  func(id string) *session.Snapshot
	show func(*session.Snapshot) api.Sandbox
	// standstill says why the store's changes do not come; "": they do.
	standstill func() string

	mu      sync.Mutex // guards the following fields
	count   int
	some    map[*watcher]struct{}            // that look at many sandboxes
	one     map[string]map[*watcher]struct{} // that look at one
	left    []departure                      // the oldest first
	forgot  int64                            // up to here departures are forgotten
	touched int64                            // where settings of all last changed, which no record shows
}

// departure is a sandbox that went: for good, or to another owner or project.
type departure struct {
	at                 int64
	id, owner, project string
}

func newWatchers(
	view *store.View, get func(string) *session.Snapshot, show func(*session.Snapshot) api.Sandbox, standstill func() string,
) *watchers {
	return &watchers{
		view: view, get: get, show: show, standstill: standstill,
		some: map[*watcher]struct{}{}, one: map[string]map[*watcher]struct{}{},
	}
}

// Watch implements api.Reader.
func (e *Engine) Watch(ctx context.Context, f api.EventFilter, after int64, resumed bool) (api.Events, error) {
	if err := e.loaded(ctx); err != nil {
		return nil, err
	}
	return e.watchers.add(f, after, resumed)
}

// note follows the view, in the store's order; old or s may be nil. It is called
// by the view and must be quick.
func (ws *watchers) note(id string, old, s *store.Sandbox) {
	at := ws.view.Revision()
	if s != nil {
		at = s.ChangedAt
	}
	useOnly := old != nil && s != nil && old.Revision == s.Revision && slices.Equal(old.Holds, s.Holds)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if old != nil && (s == nil || old.Owner != s.Owner || old.Project != s.Project) {
		ws.unsyncedLeave(departure{at, id, old.Owner, old.Project})
	}
	tell := func(w *watcher) {
		if w.matches(old) || w.matches(s) {
			w.mark(id, at, useOnly)
		}
	}
	for w := range ws.one[id] {
		tell(w)
	}
	for w := range ws.some {
		tell(w)
	}
}

// ws.mu must be held.
func (ws *watchers) unsyncedLeave(d departure) {
	if len(ws.left) == maxLeft {
		ws.forgot = ws.left[0].at
		ws.left = slices.Delete(ws.left, 0, 1)
	}
	ws.left = append(ws.left, d)
}

// touch tells everybody of everything: a setting of all has changed, or contact
// with the store was lost or made, which no record shows. Whoever breaks off
// before all of it was told is to list anew, at this process or another one.
func (ws *watchers) touch() {
	const at = beforeAll
	all, _ := ws.view.List(store.Query{})
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.touched = max(ws.touched, ws.view.Revision())
	for _, s := range all {
		for w := range ws.one[s.SandboxID] {
			if w.matches(s) {
				w.mark(s.SandboxID, at, false)
			}
		}
		for w := range ws.some {
			if w.matches(s) {
				w.mark(s.SandboxID, at, false)
			}
		}
	}
}

// told is the revision up to which readers were told of everything: another
// process can go on from there. While the store is away it could not, as it may
// tell another tale of what did not change.
func (ws *watchers) told() int64 {
	if ws.standstill() != "" {
		return beforeAll
	}
	return ws.view.Told()
}

// add lets a reader in. It is among those that are told before it looks at what
// has changed already: what comes between is told twice, and not never.
func (ws *watchers) add(f api.EventFilter, after int64, resumed bool) (*watcher, error) {
	at := ws.view.Told()
	w := &watcher{
		all: ws, filter: f, at: ws.told(), wake: make(chan struct{}, 1),
		pending: map[string]debt{}, toldAt: map[string]time.Time{},
	}
	ws.mu.Lock()
	if ws.count == maxWatchers || f.Sandbox != "" && len(ws.one[f.Sandbox]) >= maxOfOne {
		ws.mu.Unlock()
		return nil, &api.UnavailableError{Reason: "too many streams of events are open"}
	}
	ws.unsyncedEnlist(w)
	tooOld := after < max(ws.view.Listed(), ws.forgot) || ws.touched != 0 && after <= ws.touched
	left := slices.Clone(ws.left)
	ws.mu.Unlock()
	switch {
	case resumed && (tooOld || after > at):
		w.lose()
	case resumed:
		w.at = after
		w.catchUp(after, left)
	case f.Sandbox != "":
		if s, ok := ws.view.Get(f.Sandbox); ok && w.matches(s) {
			w.mark(f.Sandbox, at, false)
		}
	}
	return w, nil
}

// ws.mu must be held.
func (ws *watchers) unsyncedEnlist(w *watcher) {
	ws.count++
	id := w.filter.Sandbox
	if id == "" {
		ws.some[w] = struct{}{}
		return
	}
	if ws.one[id] == nil {
		ws.one[id] = map[*watcher]struct{}{}
	}
	ws.one[id][w] = struct{}{}
}

func (ws *watchers) remove(w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.count--
	delete(ws.some, w)
	id := w.filter.Sandbox
	delete(ws.one[id], w)
	if len(ws.one[id]) == 0 {
		delete(ws.one, id)
	}
}

// watcher is one reader: api.Events.
type watcher struct {
	all    *watchers
	filter api.EventFilter
	at     int64         // where it begins
	taken  time.Time     // when something was last looked for
	wake   chan struct{} // gets a value when there is more to tell

	mu      sync.Mutex // guards the following fields
	pending map[string]debt
	toldAt  map[string]time.Time // of the last second
	swept   time.Time            // when toldAt was last rid of what is older
	lost    bool                 // it is too far behind
}

// debt is what a reader has not been told of a sandbox yet.
type debt struct {
	first, last int64 // the revisions of the changes
	due         time.Time
}

func (w *watcher) matches(s *store.Sandbox) bool {
	return s != nil && w.filter.Matches(s.SandboxID, s.Owner, s.Project)
}

// mark notes a change.
func (w *watcher) mark(id string, at int64, useOnly bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost {
		return
	}
	due := time.Now()
	if useOnly {
		if paced := w.toldAt[id].Add(usePace); paced.After(due) {
			due = paced
		}
	}
	d, known := w.pending[id]
	switch {
	case !known && len(w.pending) == maxPending:
		w.unsyncedLose()
		return
	case !known:
		d = debt{first: at, last: at, due: due}
	default:
		d.first, d.last = min(d.first, at), max(d.last, at)
	}
	if !known || due.Before(d.due) {
		d.due = due
		w.signal()
	}
	w.pending[id] = d
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// lose gives up telling the changes: the reader is to list anew.
func (w *watcher) lose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unsyncedLose()
}

// w.mu must be held.
func (w *watcher) unsyncedLose() {
	w.lost = true
	clear(w.pending)
	w.signal()
}

// catchUp marks all that has changed after a revision.
func (w *watcher) catchUp(after int64, left []departure) {
	query := store.Query{Owner: cmp.Or(w.filter.Bound, w.filter.Owner), Project: w.filter.Project}
	present, _ := w.all.view.List(query)
	for _, s := range present {
		if s.ChangedAt > after && w.matches(s) {
			w.mark(s.SandboxID, s.ChangedAt, false)
		}
	}
	for _, d := range left {
		if d.at > after && w.filter.Matches(d.id, d.owner, d.project) {
			w.mark(d.id, d.at, false)
		}
	}
}

// At implements api.Events.
func (w *watcher) At() int64 { return w.at }

// Close implements api.Events.
func (w *watcher) Close() { w.all.remove(w) }

// Next implements api.Events.
func (w *watcher) Next(ctx context.Context) ([]api.Event, error) {
	if err := w.rest(ctx, batchPace-time.Since(w.taken)); err != nil {
		return nil, err
	}
	for {
		w.taken = time.Now()
		batch, wait := w.take(w.all.told(), w.taken)
		if len(batch) > 0 {
			return batch, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-w.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (w *watcher) rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// owed is a debt that is being paid.
type owed struct {
	id string
	debt
}

// take gives what is due, or how long nothing will be. Everybody was told of
// every change up to the given revision.
func (w *watcher) take(told int64, now time.Time) ([]api.Event, time.Duration) {
	w.mu.Lock()
	if w.lost {
		w.lost = false
		w.mu.Unlock()
		return []api.Event{{Kind: api.EventReset, ID: told}}, 0
	}
	due, held, next := w.unsyncedDue(now)
	w.mu.Unlock()
	events := make([]api.Event, len(due))
	for i := len(due) - 1; i >= 0; i-- { // what comes later is not told yet
		events[i] = w.render(due[i].id)
		events[i].ID = max(beforeAll, min(due[i].last, told, held-1))
		held = min(held, due[i].first)
	}
	return events, next
}

// unsyncedDue takes the debts that are due out, those of the oldest changes
// first; held is the oldest change among the others, next how long none of them
// will be due. w.mu must be held.
func (w *watcher) unsyncedDue(now time.Time) (due []owed, held int64, next time.Duration) {
	next = time.Hour
	for id, d := range w.pending {
		if wait := d.due.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		due = append(due, owed{id, d})
	}
	slices.SortFunc(due, func(a, b owed) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.id, b.id)) })
	due = due[:min(len(due), maxBatch)]
	w.unsyncedForget(now)
	for _, d := range due {
		delete(w.pending, d.id)
		w.toldAt[d.id] = now
	}
	held = math.MaxInt64
	for _, d := range w.pending {
		held = min(held, d.first)
	}
	return due, held, next
}

// unsyncedForget keeps toldAt to what matters; w.mu must be held.
func (w *watcher) unsyncedForget(now time.Time) {
	if now.Sub(w.swept) < usePace {
		return
	}
	w.swept = now
	for id, at := range w.toldAt {
		if now.Sub(at) > usePace {
			delete(w.toldAt, id)
		}
	}
}

// render tells of a sandbox as it is now.
func (w *watcher) render(id string) api.Event {
	s := w.all.get(id)
	if s == nil || !w.filter.Matches(id, s.Owner, s.Project) {
		return api.Event{Kind: api.EventGone, SandboxID: id}
	}
	return api.Event{Kind: api.EventSandbox, SandboxID: id, Sandbox: w.all.show(s)}
}

// openStreams sums up the streams of a sandbox. A proxy names those first that
// keep it awake, and only counts what is beyond its limit.
func openStreams(state session.State, n api.StreamCounts) api.OpenStreams {
	open := api.OpenStreams{Active: n.Active, Dormant: n.Dormant, Parked: n.Parked}
	switch {
	case state != session.Running:
		open.Parked += n.Unnamed
	case n.Dormant == 0:
		open.Active += n.Unnamed
	default:
		open.Dormant += n.Unnamed
	}
	return open
}

var _ api.Events = (*watcher)(nil)
