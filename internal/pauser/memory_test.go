package pauser_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sandman-proxy/sandman/internal/pauser"
	"github.com/sandman-proxy/sandman/internal/session"
)

const (
	id   = "sb1"
	idle = 10 * time.Second
	// settle is the settle period after a loss of contact.
	settle = 12 * time.Second
)

var (
	errAway = errors.New("the store is away")
	errHost = errors.New("the host fails")
)

// memory is a store with the compares of the real one, and its own watch.
type memory struct {
	mu        sync.Mutex // guards the following fields
	sessions  map[string]*session.Snapshot
	changed   chan struct{} // closed at each change
	watchers  []func(string)
	rev       int64
	epoch     uint64
	settledAt time.Time
	abandoned bool
	away      bool             // there is no contact
	invalid   bool             // ops may not call the host
	fail      map[string]error // calls that fail without effect
	lost      map[string]bool  // calls whose Txn lands once, with its answer lost
	takes     map[string]time.Duration
	calls     map[string]int
	between   func() // runs between a verdict and its SLEEP
}

func newMemory() *memory {
	return &memory{
		sessions: map[string]*session.Snapshot{}, changed: make(chan struct{}), fail: map[string]error{},
		lost: map[string]bool{}, takes: map[string]time.Duration{}, calls: map[string]int{}, between: func() {},
	}
}

// set changes what the store is like.
func (m *memory) set(f func(m *memory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

// change writes what is around a session, as proxies do; a new activity has a
// new revision.
func (m *memory) change(id string, f func(s *session.Snapshot)) {
	m.mu.Lock()
	s := *m.sessions[id]
	was := s.Activity
	f(&s)
	m.rev++
	if s.Activity != was {
		s.ActivityRevision = m.rev
	}
	m.unsyncedPublish(id, &s)
	watchers := slices.Clone(m.watchers)
	m.mu.Unlock()
	for _, w := range watchers {
		w(id)
	}
}

func (m *memory) unsyncedPublish(id string, s *session.Snapshot) {
	if s == nil {
		delete(m.sessions, id)
	} else {
		m.sessions[id] = s
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

// put writes a record as if somebody else had.
func (m *memory) put(r session.Record) {
	m.mu.Lock()
	m.rev++
	r.Revision = m.rev
	s := &session.Snapshot{Record: r, Seen: time.Now(), LastActive: time.Now()}
	if old := m.sessions[r.SandboxID]; old != nil {
		s.Activity, s.ActivityRevision, s.Presence, s.Holds = old.Activity, old.ActivityRevision, old.Presence, old.Holds
		s.Traffic = old.Traffic
		if r.State != session.Running || old.State == session.Running {
			s.LastActive = old.LastActive
		}
	}
	m.unsyncedPublish(r.SandboxID, s)
	watchers := slices.Clone(m.watchers)
	m.mu.Unlock()
	for _, w := range watchers {
		w(r.SandboxID)
	}
}

// lose is a loss of contact: no verdict is good for the settle period.
func (m *memory) lose(settle time.Duration) {
	m.set(func(m *memory) { m.epoch++; m.settledAt = time.Now().Add(settle) })
}

func (m *memory) Get(id string) *session.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessions[id]
}

func (m *memory) All() []*session.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.sessions))
}

func (m *memory) Until(ctx context.Context, id string, cond func(*session.Snapshot) bool) (*session.Snapshot, error) {
	for {
		m.mu.Lock()
		s, changed := m.sessions[id], m.changed
		m.mu.Unlock()
		if cond(s) {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (m *memory) Watch(changed func(string)) (stop func()) {
	m.mu.Lock()
	m.watchers = append(m.watchers, changed)
	ids := slices.Collect(maps.Keys(m.sessions))
	m.mu.Unlock()
	for _, id := range ids {
		changed(id)
	}
	return func() { m.set(func(m *memory) { m.watchers = nil }) }
}

// write is a Txn on a session; ok is the rest of its compares.
func (m *memory) write(ctx context.Context, call string, next session.Record, ok func(*session.Snapshot) bool) (session.Record, error) {
	m.mu.Lock()
	m.calls[call]++
	takes := m.takes[call]
	m.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return next, ctx.Err()
	}
	if err := m.compare(call, next, ok); err != nil {
		return next, err
	}
	m.put(next)
	m.mu.Lock()
	defer m.mu.Unlock()
	next = m.sessions[next.SandboxID].Record
	if m.lost[call] {
		delete(m.lost, call)
		return next, errAway
	}
	return next, nil
}

func (m *memory) compare(call string, next session.Record, ok func(*session.Snapshot) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail[call]; err != nil {
		return err
	}
	var rev int64
	s := m.sessions[next.SandboxID]
	if s != nil {
		rev = s.Revision
	}
	if rev != next.Revision || (ok != nil && !ok(s)) {
		return session.ErrConflict
	}
	return nil
}

func (m *memory) Lapsed(ctx context.Context, s *session.Snapshot) error {
	m.mu.Lock()
	m.calls["lapsed"]++
	now := m.sessions[s.SandboxID]
	ok := now.ActivityRevision == s.ActivityRevision && len(now.Presence) == 0
	m.mu.Unlock()
	if !ok {
		return session.ErrConflict
	}
	m.change(s.SandboxID, func(s *session.Snapshot) { s.Activity.Open, s.LastActive = false, time.Now() })
	return ctx.Err()
}

func (m *memory) begin(ctx context.Context, call string, next session.Record, ok func(*session.Snapshot) bool) (pauser.Op, error) {
	own, err := m.write(ctx, call, next, ok)
	switch {
	case errors.Is(err, session.ErrConflict):
		return nil, err
	case err != nil:
		own = next
	}
	return &op{m: m, own: own}, err
}

func (m *memory) Drain(ctx context.Context, next session.Record) (pauser.Op, error) {
	return m.begin(ctx, "drain", next, nil)
}

func (m *memory) Sleep(ctx context.Context, next session.Record, activity int64) (pauser.Op, error) {
	m.mu.Lock()
	between := m.between
	m.mu.Unlock()
	between()
	return m.begin(ctx, "sleep", next, func(s *session.Snapshot) bool {
		return s.ActivityRevision == activity && len(s.Presence) == 0 && len(s.Holds) == 0
	})
}

func (m *memory) Settle(ctx context.Context, next session.Record) error {
	_, err := m.write(ctx, "settle", next, nil)
	return err
}

func (m *memory) Adopt(ctx context.Context, r session.Record) error {
	_, err := m.write(ctx, "adopt", r, nil)
	return err
}

func (m *memory) Remove(_ context.Context, s *session.Snapshot) error {
	m.set(func(m *memory) { m.unsyncedPublish(s.SandboxID, nil) })
	return nil
}

func (m *memory) Abandoned(*session.Snapshot) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.abandoned
}

// SettledAt moves on while there is no contact.
func (m *memory) SettledAt() (time.Time, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		m.settledAt = time.Now().Add(settle)
	}
	return m.settledAt, m.epoch
}

func (m *memory) InReach() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.away
}

func (m *memory) count(call string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[call]
}

type op struct {
	m   *memory
	own session.Record
}

func (o *op) Valid() bool {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	return !o.m.invalid
}

func (o *op) Advance(ctx context.Context, phase session.Phase, activity int64) error {
	return o.retry(func() error {
		next, err := o.own.Advance(phase)
		if err != nil {
			return err
		}
		next, err = o.m.write(ctx, string(phase), next, func(s *session.Snapshot) bool {
			return phase != session.PhaseCalling || s.ActivityRevision == activity && len(s.Presence) == 0
		})
		if err == nil {
			o.own = next
		}
		return err
	})
}

func (o *op) End(ctx context.Context, step func(session.Record) (session.Record, error)) error {
	return o.retry(func() error {
		next, err := step(o.own)
		if err != nil {
			return err
		}
		_, err = o.m.write(ctx, "end", next, nil)
		return err
	})
}

func (o *op) retry(write func() error) error {
	for {
		err := write()
		s := o.m.Get(o.own.SandboxID)
		if !errors.Is(err, session.ErrConflict) || s == nil || !s.SameOp(o.own) || s.Revision == o.own.Revision {
			return err
		}
		o.own = s.Record
	}
}

// host is a sandbox host whose answers are the test's.
type host struct {
	mu       sync.Mutex // guards the following fields
	takes    time.Duration
	fails    error
	state    session.State
	asked    error // what State answers
	paused   map[string][]time.Time
	atOnce   int // pause calls under way
	most     int
	ends     time.Time     // end of the run
	most1    time.Duration // longest run that is granted, 0: any
	behind   time.Duration // what its clock is behind in what it says of its ends
	extended int
	lists    map[string]pauser.List
	during   func() // runs while the lists are made
}

func (h *host) set(f func(h *host)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
}

func (h *host) Pause(ctx context.Context, rec session.Record) error {
	h.mu.Lock()
	if h.paused == nil {
		h.paused = map[string][]time.Time{}
	}
	h.paused[rec.SandboxID] = append(h.paused[rec.SandboxID], time.Now())
	h.atOnce++
	h.most = max(h.most, h.atOnce)
	takes, fails := h.takes, h.fails
	h.mu.Unlock()
	defer h.set(func(h *host) { h.atOnce-- })
	select {
	case <-time.After(takes):
		return fails
	case <-ctx.Done():
		return ctx.Err()
	}
}

// calls gives the times of the pause calls.
func (h *host) calls() []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.paused[id]
}

func (h *host) State(context.Context, session.Record) (session.State, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state, h.asked
}

func (h *host) Remaining(context.Context, session.Record) (time.Duration, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Until(h.ends) - h.behind, nil
}

func (h *host) Extend(_ context.Context, _ session.Record, d time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.most1 > 0 {
		d = min(d, h.most1)
	}
	h.ends = time.Now().Add(d)
	h.extended++
	return nil
}

func (h *host) Lists(context.Context) map[string]pauser.List {
	h.mu.Lock()
	lists, during := h.lists, h.during
	h.mu.Unlock()
	if during != nil {
		during()
	}
	return lists
}
