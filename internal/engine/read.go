package engine

import (
	"context"
	"slices"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

// loadWait is how long callers wait for the sessions after a start.
const loadWait = 5 * time.Second

// loaded returns once all sessions are known. Before that "no such sandbox"
// would be a lie.
func (e *Engine) loaded(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, loadWait)
	defer cancel()
	err := e.view.Ready(wait)
	if err != nil && ctx.Err() == nil {
		return &api.UnavailableError{Reason: "the session store has not been read yet", RetryAfter: time.Second}
	}
	return err
}

// Get implements api.Reader.
func (e *Engine) Get(ctx context.Context, id string) (api.Sandbox, error) {
	if err := e.loaded(ctx); err != nil {
		return api.Sandbox{}, err
	}
	s := e.get(id)
	if s == nil {
		return api.Sandbox{}, api.ErrNotFound
	}
	return e.show(s), nil
}

// show tells what is known of a session as people ask for it.
func (e *Engine) show(s *session.Snapshot) api.Sandbox {
	holds := e.rules(s.Record).Settings(s.Record)
	timeout := holds.IdleTimeout
	sb := api.Sandbox{Record: s.Record, ActivityKind: s.Activity.Kind, AwakeBecause: []string{}, Holds: append([]session.Hold{}, s.Holds...)}
	sb.IdleTimeout, sb.IdleTimeoutFrom = session.Duration(timeout), holds.IdleSource
	sb.WakePolicy, sb.WakePolicyFrom = holds.WakePolicy, holds.WakeSource
	sb.OpenStreams = openStreams(s.State, countStreams(e.traffic(s)))
	if at, kind := e.lastActivity(s); !at.IsZero() {
		sb.LastActivity, sb.ActivityKind = &at, kind
	}
	if e.standstill() != "" {
		sb.StoreAway = true
		e.toldAway.Store(true)
	}
	if s.State == session.Running {
		sb.AwakeBecause = append(sb.AwakeBecause, e.awakeBecause(s)...)
	}
	// what is served here keeps it awake before the store says so
	if at, ok := s.PauseAt(timeout); ok && len(sb.AwakeBecause) == 0 {
		at = time.Now().Add(time.Until(at)).Round(0) // people read it by the wall clock, which may have been set
		sb.PauseAt = &at
	}
	return sb
}

// lastActivity is the stored time, or this process's own where that is later. A
// stored one that is yet to come is from before a clock was set back.
func (e *Engine) lastActivity(s *session.Snapshot) (time.Time, string) {
	at, kind := s.Activity.LastActivity, s.Activity.Kind
	if own, what, ok := e.visits.Last(s.SandboxID); ok && (own.After(at) || at.After(time.Now())) {
		return own, what
	}
	return at, kind
}

// awakeBecause says in words what keeps a running sandbox from its deadline, in
// as few as a list has room for.
func (e *Engine) awakeBecause(s *session.Snapshot) []string {
	keepers := e.keepers(s)
	because := make([]string, len(keepers))
	for i, k := range keepers {
		because[i] = k.Words
		if k.Kind == api.KeptByHold {
			because[i] = holdName(k.What, *k.Until)
		}
	}
	return because
}

// List implements api.Reader.
func (e *Engine) List(ctx context.Context, f api.Filter) (api.Page, error) {
	if err := e.loaded(ctx); err != nil {
		return api.Page{}, err
	}
	page := api.Page{Sandboxes: []api.Sandbox{}}
	query := store.Query{Owner: f.Owner, Project: f.Project, Host: f.Host, After: f.After}
	if len(f.States) == 1 {
		query.State = f.States[0]
	}
	all, _ := e.view.List(query)
	for _, sb := range all {
		if !shows(f, sb.Record) {
			continue
		}
		if len(page.Sandboxes) == f.Limit {
			page.Next = page.Sandboxes[f.Limit-1].SandboxID
			break
		}
		page.Sandboxes = append(page.Sandboxes, e.show(&sb.Snapshot))
	}
	return page, nil
}

func shows(f api.Filter, r session.Record) bool {
	if f.Claimed && r.Owner == "" && r.Project == "" {
		return false
	}
	return (len(f.States) == 0 || slices.Contains(f.States, r.State)) && f.Matches(r)
}

// History implements api.Reader.
func (e *Engine) History(ctx context.Context, id string, q api.HistoryQuery) ([]api.HistoryLine, error) {
	if err := e.loaded(ctx); err != nil {
		return nil, err
	}
	if e.get(id) == nil {
		return nil, api.ErrNotFound
	}
	lines, err := e.store.History(ctx, id, store.HistoryQuery(q))
	if err != nil {
		return nil, e.unread(err)
	}
	out := make([]api.HistoryLine, len(lines))
	for i, l := range lines {
		out[i] = api.HistoryLine{Revision: l.Revision, Transition: l.Transition}
	}
	return out, nil
}

// Status implements api.Reader.
func (e *Engine) Status(ctx context.Context) api.Status {
	s := api.Status{
		Node:          e.store.Node(),
		Leader:        api.Leader{Me: e.leading.Load()},
		Sandboxes:     make(map[session.State]int),
		BrokenRecords: len(e.view.Broken()),
		Uptime:        session.Duration(time.Since(e.started).Round(time.Second)),
	}
	_, ok := e.view.Contact()
	if ok {
		s.Leader.Node = e.leader(ctx)
	}
	s.Store.Error = e.storeTrouble(ctx, ok)
	s.Store.OK = s.Store.Error == ""
	all, _ := e.view.List(store.Query{})
	for _, sb := range all {
		s.Sandboxes[sb.State]++
	}
	for _, h := range e.cfg.Hosts {
		s.Hosts = append(s.Hosts, e.hostHealth(h))
	}
	return s
}

// storeTrouble says what is the matter with the store, and what can be done; ""
// if nothing is.
func (e *Engine) storeTrouble(ctx context.Context, contact bool) string {
	own := e.cfg.Trouble()
	switch {
	case contact && own == nil:
		return ""
	case contact:
		return own.Error()
	case own != nil:
		return own.Error() + "; nothing is paused meanwhile"
	case e.view.Full():
		return store.ErrNoSpace.Error() + "; nothing is paused until it takes writes again"
	}
	trouble := storeAway
	if why := e.noContact(ctx); why != nil {
		trouble += ": " + why.Error()
	}
	return trouble
}

// leaderWait is how long the status waits for the store to say who leads.
const leaderWait = time.Second

func (e *Engine) leader(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	node, err := e.store.Leader(ctx)
	if err != nil {
		return "" // as if there were none: nothing is paused without the store
	}
	return node
}

// hostHealth is what a host last answered to this process, and, where it leads,
// what came of its last comparison with the records.
func (e *Engine) hostHealth(h Host) api.HostHealth {
	health := api.HostHealth{Name: h.Name(), Freezer: h.Freezer()}
	health.Error = e.hosts.health.last(h.Name()).failure
	if health.Error == "" && e.leading.Load() {
		health.Error = e.pauser.LastSweep().Errors[h.Name()]
	}
	health.OK = health.Error == ""
	return health
}
