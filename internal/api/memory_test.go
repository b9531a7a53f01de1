package api_test

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
)

// memory keeps sandboxes without any host, for what HTTP alone decides. It
// keeps to the contracts of api.Reader and api.Actor.
type memory struct {
	mu       sync.Mutex // guards the following fields
	records  map[string]api.Sandbox
	atHost   map[string]string // IDs that only a host knows, with their owners
	revision int64
	calls    []string // the changes that were asked for, such as "pause ia"
	fail     error    // what every change fails with
	lastList api.Filter
	lastOpts api.PauseOptions
	policyBook
	usageBook
	lastHistory api.HistoryQuery
	lastNew     e2b.NewSandbox
	status      api.Status
	traffic     []api.NodeTraffic
	why         api.Why
	work        func(context.Context) error // what a create waits for
	badgeKey    []byte
	runs        []session.Run
	answers     map[api.AnswerKey][]byte
	lasts       time.Duration    // of the last answer
	mostAnswers int              // of one caller; 0: no bound
	events      chan []api.Event // what streams tell; nil: what there is, and no more
	watched     api.EventFilter
	resumed     int64 // where the last stream was resumed; -1: it was not
}

var day = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func newMemory() *memory {
	return &memory{
		records: map[string]api.Sandbox{},
		atHost:  map[string]string{},

		answers:  map[api.AnswerKey][]byte{},
		badgeKey: []byte("a key that every proxy knows, of 32"),
		status: api.Status{
			Node: "n1", Leader: api.Leader{Node: "n1", Me: true}, Store: api.Health{OK: true},
			Hosts:     []api.HostHealth{{Name: "local", Health: api.Health{OK: true}, Freezer: "cgroup"}},
			Sandboxes: map[session.State]int{session.Running: 1}, Uptime: session.Duration(time.Minute),
		},
	}
}

// put stores a sandbox of this owner and project, running.
func (m *memory) put(id, owner, project string) api.Sandbox {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unsyncedPut(id, owner, project)
}

// keep stores a sandbox of this owner, running, with a hold called badge.
func (m *memory) keep(id, owner string) {
	sb := m.put(id, owner, "")
	sb.Holds = []session.Hold{{Name: "badge", ExpiresAt: day}}
	m.records[id] = sb
}

func (m *memory) unsyncedPut(id, owner, project string) api.Sandbox {
	m.revision++
	r := session.New(id, "local", session.Running, "created", day)
	r.Owner, r.Project, r.IdleTimeout, r.Revision = owner, project, session.Duration(10*time.Minute), m.revision
	at := day.Add(10 * time.Minute)
	sb := api.Sandbox{Record: r, IdleTimeoutFrom: session.FromSandbox, WakePolicyFrom: session.FromSite, LastActivity: &r.Since, ActivityKind: "request", PauseAt: &at}
	m.records[id] = sb
	return sb
}

func (m *memory) Get(_ context.Context, id string) (api.Sandbox, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	sb, ok := m.records[id]
	if !ok {
		return api.Sandbox{}, api.ErrNotFound
	}
	return sb, nil
}

func (m *memory) List(_ context.Context, f api.Filter) (api.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastList = f
	var all []api.Sandbox
	for _, sb := range m.records {
		if matches(sb, f) {
			all = append(all, sb)
		}
	}
	slices.SortFunc(all, func(a, b api.Sandbox) int { return strings.Compare(a.SandboxID, b.SandboxID) })
	if len(all) > f.Limit {
		return api.Page{Sandboxes: all[:f.Limit], Next: all[f.Limit-1].SandboxID}, nil
	}
	return api.Page{Sandboxes: all}, nil
}

func matches(sb api.Sandbox, f api.Filter) bool {
	return (len(f.States) == 0 || slices.Contains(f.States, sb.State)) &&
		(f.Owner == "" || sb.Owner == f.Owner) &&
		(f.Project == "" || sb.Project == f.Project) &&
		(f.Host == "" || sb.Host == f.Host) &&
		f.Matches(sb.Record) &&
		(!f.Claimed || sb.Owner != "" || sb.Project != "") &&
		sb.SandboxID > f.After
}

func (m *memory) History(_ context.Context, id string, q api.HistoryQuery) ([]api.HistoryLine, error) {
	m.lastHistory = q
	var lines []api.HistoryLine
	for revision := int64(5); revision > 0 && len(lines) < q.Limit; revision-- {
		if q.Before == 0 || revision < q.Before {
			lines = append(lines, api.HistoryLine{Revision: revision, Transition: session.Transition{
				At: day, From: session.Running, To: session.Pausing, Reason: "idle for 10m0s", Node: "n1", Op: id,
			}})
		}
	}
	return lines, nil
}

func (m *memory) OpenStreams(context.Context, string) ([]api.NodeTraffic, error) {
	return m.traffic, nil
}

func (m *memory) Why(_ context.Context, id string) (api.Why, error) {
	why := m.why
	if why.Words == nil {
		why = api.Why{
			State: session.Running, Words: []string{"It runs."}, KeptAwakeBy: []api.Keeper{}, Settings: []api.Setting{},
			Refused: []api.Refused{}, Repeats: []api.Repeat{},
		}
	}
	why.SandboxID = id
	return why, nil
}

func (m *memory) Watch(_ context.Context, f api.EventFilter, after int64, resumed bool) (api.Events, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watched, m.resumed = f, after
	if !resumed {
		m.resumed = -1
	}
	if m.events != nil {
		return &told{more: m.events}, nil
	}
	var all []api.Event
	for id, sb := range m.records {
		if f.Matches(id, sb.Owner, sb.Project) {
			all = append(all, api.Event{Kind: api.EventSandbox, ID: sb.Revision, SandboxID: id, Sandbox: sb})
		}
	}
	more := make(chan []api.Event, 1)
	more <- all
	close(more)
	return &told{more: more}, nil
}

// told is api.Events from a channel.
type told struct{ more chan []api.Event }

func (t *told) At() int64 { return 7 }
func (t *told) Close()    {}

func (t *told) Next(ctx context.Context) ([]api.Event, error) {
	select {
	case batch, ok := <-t.more:
		if !ok {
			return nil, io.EOF
		}
		return batch, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *memory) LeaderRuns(context.Context) ([]session.Run, error) {
	return m.runs, m.fail
}

func (m *memory) Claim(_ context.Context, key api.AnswerKey, value []byte, lasts time.Duration) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if former, ok := m.answers[key]; ok {
		return former, nil
	}
	theirs := 0
	for of := range m.answers {
		if of.Caller == key.Caller {
			theirs++
		}
	}
	if m.mostAnswers > 0 && theirs >= m.mostAnswers {
		return nil, api.ErrTooManyAnswers
	}
	m.answers[key], m.lasts = value, lasts
	return nil, nil
}

func (m *memory) Keep(_ context.Context, key api.AnswerKey, value []byte, lasts time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers[key], m.lasts = value, lasts
	return nil
}

func (m *memory) Release(_ context.Context, key api.AnswerKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.answers, key)
	return nil
}

func (m *memory) BadgeKey(context.Context) ([]byte, error) {
	if m.badgeKey == nil {
		return nil, &api.UnavailableError{Reason: "no store"}
	}
	return m.badgeKey, nil
}

func (m *memory) Status(context.Context) api.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// change notes a call and does it, unless it is to fail.
func (m *memory) change(call, id string, do func(*api.Sandbox) error) (api.Sandbox, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, call+" "+id)
	if m.fail != nil {
		return api.Sandbox{}, m.fail
	}
	sb, ok := m.records[id]
	if !ok {
		return api.Sandbox{}, api.ErrNotFound
	}
	if sb.State == session.Killed {
		return api.Sandbox{}, api.ErrKilled
	}
	if err := do(&sb); err != nil {
		return api.Sandbox{}, err
	}
	m.revision++
	sb.Revision = m.revision
	m.records[id] = sb
	return sb, nil
}

func (m *memory) moveTo(call, id string, state session.State, reason string) (sb api.Sandbox, changed bool, err error) {
	sb, err = m.change(call, id, func(sb *api.Sandbox) error {
		changed = sb.State != state
		if changed {
			sb.State, sb.Reason, sb.PauseAt = state, reason, nil
		}
		return nil
	})
	return sb, changed, err
}

func (m *memory) Pause(_ context.Context, id string, o api.PauseOptions) (api.Sandbox, bool, error) {
	sb, changed, err := m.moveTo("pause", id, session.Paused, "paused by hand: "+o.By)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastOpts = o
	return sb, changed, err
}

func (m *memory) Resume(_ context.Context, id, by string) (api.Sandbox, bool, error) {
	return m.moveTo("resume", id, session.Running, "resumed by hand: "+by)
}

func (m *memory) Register(_ context.Context, id, owner string) (api.Sandbox, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, "register "+id)
	if m.fail != nil {
		return api.Sandbox{}, false, m.fail
	}
	if sb, ok := m.records[id]; ok {
		if owner != "" && sb.Owner != owner {
			return api.Sandbox{}, false, api.ErrNotFound
		}
		return sb, false, nil
	}
	theirs, ok := m.atHost[id]
	if !ok || (owner != "" && theirs != "" && theirs != owner) {
		return api.Sandbox{}, false, api.ErrNotFound
	}
	if theirs == "" {
		theirs = owner
	}
	return m.unsyncedPut(id, theirs, ""), true, nil
}

func (m *memory) Create(ctx context.Context, n e2b.NewSandbox, owner string) (api.Sandbox, error) {
	if m.work != nil {
		if err := m.work(ctx); err != nil {
			return api.Sandbox{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, "create "+n.TemplateID)
	m.lastNew = n
	if m.fail != nil {
		return api.Sandbox{}, m.fail
	}
	if owner == "" {
		owner = n.Metadata["userId"]
	}
	return m.unsyncedPut("inew", owner, n.Metadata["projectId"]), nil
}

func (m *memory) Update(_ context.Context, id string, p api.Patch, ifMatch int64) (api.Sandbox, error) {
	return m.change("update", id, func(sb *api.Sandbox) error {
		if ifMatch != 0 && ifMatch != sb.Revision {
			return session.ErrConflict
		}
		if p.IdleTimeout.Set {
			sb.IdleTimeout = p.IdleTimeout.Value
		}
		if p.IdleTimeout.Null {
			sb.IdleTimeout = session.Duration(10 * time.Minute)
		}
		if p.WakePolicy.Set {
			sb.WakePolicy = p.WakePolicy.Value
		}
		if p.Owner.Set {
			sb.Owner = p.Owner.Value
		}
		if p.Project.Set {
			sb.Project = p.Project.Value
		}
		return nil
	})
}

func (m *memory) Used(_ context.Context, id, kind string) error {
	_, err := m.change("use "+kind, id, running)
	return err
}

func running(sb *api.Sandbox) error {
	if sb.State != session.Running {
		return api.ErrNotRunning
	}
	return nil
}

func (m *memory) Hold(_ context.Context, id string, o api.HoldOptions) (session.Hold, error) {
	h := session.Hold{Name: o.Name, Reason: o.Reason, By: o.By, ExpiresAt: day.Add(o.For)}
	_, err := m.change("hold "+o.Name, id, func(sb *api.Sandbox) error {
		if err := running(sb); err != nil && !o.Wake {
			return err
		}
		if o.Name == "one-too-many" {
			return api.ErrTooManyHolds
		}
		sb.State = session.Running
		sb.Holds = append(without(sb.Holds, o.Name), h)
		return nil
	})
	return h, err
}

func without(holds []session.Hold, name string) []session.Hold {
	return slices.DeleteFunc(slices.Clone(holds), func(h session.Hold) bool { return h.Name == name })
}

func (m *memory) EndHold(_ context.Context, id, name string) error {
	_, err := m.change("end-hold "+name, id, func(sb *api.Sandbox) error {
		sb.Holds = without(sb.Holds, name)
		return nil
	})
	return err
}

func (m *memory) Kill(_ context.Context, id, by string) error {
	_, _, err := m.moveTo("kill", id, session.Killed, "killed by hand: "+by)
	return err
}

// changes returns the changes that were asked for since the last call.
func (m *memory) changes() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	calls := m.calls
	m.calls = nil
	return calls
}
