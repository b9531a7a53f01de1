package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
)

// Sandbox is a session as the API shows it: its record and what is known
// around it. IdleTimeout and WakePolicy are those that hold, also where the
// record has none.
type Sandbox struct {
	session.Record
	IdleTimeoutFrom session.Source `json:"idleTimeoutFrom"` // whose IdleTimeout holds
	WakePolicyFrom  session.Source `json:"wakePolicyFrom"`  // likewise; FromSite: the site decides
	LastActivity    *time.Time     `json:"lastActivity"`    // nil: none is known
	ActivityKind    string         `json:"activityKind"`
	PauseAt         *time.Time     `json:"pauseAt"`      // nil: something keeps it awake, or it does not run
	AwakeBecause    []string       `json:"awakeBecause"` // in words, empty where nothing does
	// StoreAway says that the session store is out of reach: nothing is paused,
	// and this is how it stood when it was last heard of.
	StoreAway bool `json:"storeAway,omitempty"`

	Holds       []session.Hold `json:"holds"` // that keep it awake
	OpenStreams OpenStreams    `json:"openStreams"`
}

// OpenStreams counts the long connections of a sandbox, through all proxies.
type OpenStreams struct {
	Active  int `json:"active" doc:"They keep the sandbox awake."`
	Dormant int `json:"dormant" doc:"They don't: they have carried nothing that counts for the idle timeout."`
	Parked  int `json:"parked" doc:"They wait for the sandbox, which sleeps."`
}

// Filter says which sandboxes a list holds. Empty fields don't filter.
type Filter struct {
	States  []session.State
	Owner   string
	Project string
	Host    string
	// Claimed leaves out the sandboxes that have neither owner nor project.
	Claimed bool
	// Query is to stand in the ID, the owner, the project, the template or the
	// metadata, in small or large letters. "" is in all.
	Query string
	// Limit is the length of the page, at least 1.
	Limit int
	// After is the ID behind which the page begins, whether or not a sandbox
	// of this ID exists still.
	After string
}

// Matches tells whether a record has the filter's Query in it.
func (f Filter) Matches(r session.Record) bool {
	if f.Query == "" {
		return true
	}
	query := strings.ToLower(f.Query)
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), query) }
	if has(r.SandboxID) || has(r.Owner) || has(r.Project) || has(r.Template) {
		return true
	}
	for name, value := range r.Metadata {
		if has(name) || has(value) {
			return true
		}
	}
	return false
}

// Page is a part of a list, ordered by ID, so that what comes and goes
// meanwhile makes no other sandbox appear twice or not at all.
type Page struct {
	Sandboxes []Sandbox
	// Next is the last ID of this page, "" where no sandbox follows.
	Next string
}

// HistoryLine is a transition and the revision of the record that it replaced,
// which orders the lines and names them.
type HistoryLine struct {
	Revision int64 `json:"revision"`
	session.Transition
}

// HistoryQuery says which lines are asked for. Its zero fields but Limit don't
// filter.
type HistoryQuery struct {
	Limit  int             // at most so many, at least 1
	Before int64           // only lines of smaller revisions
	To     []session.State // only transitions to these states
	Since  time.Time       // only what took place then or later
	Until  time.Time       // only what took place before
}

// Reader answers from what this process knows; it changes nothing and does not
// wait for a host.
type Reader interface {
	// Get returns a sandbox, also a killed one while its record is kept, or
	// [ErrNotFound].
	Get(ctx context.Context, id string) (Sandbox, error)
	List(ctx context.Context, f Filter) (Page, error)
	// History returns the lines that are asked for, the newest first.
	History(ctx context.Context, id string, q HistoryQuery) ([]HistoryLine, error)
	// OpenStreams tells, by the proxy, what streams a sandbox has open and what
	// was refused; no proxy without any.
	OpenStreams(ctx context.Context, id string) ([]NodeTraffic, error)
	// Why explains a sandbox's state.
	Why(ctx context.Context, id string) (Why, error)
	// Watch begins to tell of the changes of the sandboxes that match, those
	// after a revision where it is resumed. A filter for one sandbox begins with
	// how that is, unless it is resumed.
	Watch(ctx context.Context, f EventFilter, after int64, resumed bool) (Events, error)
	// LeaderRuns gives what the pauser has done, the newest first.
	LeaderRuns(ctx context.Context) ([]session.Run, error)
	// BadgeKey gives the key that badge tokens are signed with, the same at every
	// proxy.
	BadgeKey(ctx context.Context) ([]byte, error)
	// Status never fails: what is out of reach is part of the answer.
	Status(ctx context.Context) Status
	PolicyReader
	SavingsReader
}

// Actor changes sandboxes. Its methods return when the change is done; ctx
// bounds only the waiting: a call to a host that has begun goes on without the
// caller. Besides what is said at each method they return [ErrNotFound],
// [ErrKilled], an [UnavailableError], an [e2b.Error] or session.ErrConflict.
type Actor interface {
	Answers
	// Pause puts a sandbox to sleep by hand. Changed is false where it slept
	// already. Without force it fails with an [InUseError] while the sandbox is
	// in use.
	Pause(ctx context.Context, id string, o PauseOptions) (sb Sandbox, changed bool, err error)
	// Resume makes a sandbox run. Changed is false where it ran already. By
	// says who asked, for the record's reason.
	Resume(ctx context.Context, id, by string) (sb Sandbox, changed bool, err error)
	// Register takes in a sandbox that a host knows; created is false where it
	// was known already. Owner is whom the caller is bound to, or "": where it
	// is set, a known sandbox must be this owner's, and a new one must be by its
	// metadata, or have no owner there and become this owner's. Anything else is
	// [ErrNotFound], and nothing is written.
	Register(ctx context.Context, id, owner string) (sb Sandbox, created bool, err error)
	// Create starts a sandbox at the host and registers it. Its owner is owner,
	// or where that is "" the one that the metadata names; where it is set, the
	// project that they name may be [ErrForeignProject]. A nil Timeout of n
	// is chosen to outlast the idle timeout, a nil AutoPause means true.
	Create(ctx context.Context, n e2b.NewSandbox, owner string) (Sandbox, error)
	// Update changes settings. With ifMatch other than 0 it fails with
	// session.ErrConflict unless that is the record's revision; with a
	// [LimitError] where an idle timeout could not hold, and with
	// [ErrForeignProject] where whom the patch is Bound to may not change the
	// project so.
	Update(ctx context.Context, id string, p Patch, ifMatch int64) (Sandbox, error)
	// Used notes a use of this kind, now. It fails with [ErrNotRunning] where
	// the sandbox does not run.
	Used(ctx context.Context, id, kind string) error
	// Hold keeps a sandbox awake until the hold ends, and gives it as it is
	// stored. It may fail with [ErrNotRunning] or [ErrTooManyHolds].
	Hold(ctx context.Context, id string, o HoldOptions) (session.Hold, error)
	// EndHold ends a hold. One that isn't there is no error.
	EndHold(ctx context.Context, id, name string) error
	// Kill ends a sandbox for good, at the host and in the record. By says who
	// asked, such as "token ops".
	Kill(ctx context.Context, id, by string) error
	PolicyActor
}

// PauseOptions are those of a pause by hand.
type PauseOptions struct {
	// Force ends what is in flight after the drain time instead of giving up.
	Force bool
	// By says who asked, such as "token ops", for the record's reason.
	By string
}

// Patch changes a sandbox's settings. Only what is Set changes anything; a
// zero Value takes the setting back to its default.
type Patch struct {
	IdleTimeout Optional[session.Duration] `json:"idleTimeout,omitzero"`
	WakePolicy  Optional[string]           `json:"wakePolicy,omitzero"`
	Owner       Optional[string]           `json:"owner,omitzero"`
	Project     Optional[string]           `json:"project,omitzero"`
	// By says who asks, such as "token ops".
	By string `json:"-"`
	// Bound is the owner whom who asks is bound to, "": none.
	Bound string `json:"-"`
}

// Names are those of the settings that the patch changes.
func (p Patch) Names() []string {
	var names []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"idleTimeout", p.IdleTimeout.Set}, {"wakePolicy", p.WakePolicy.Set}, {"owner", p.Owner.Set}, {"project", p.Project.Set},
	} {
		if f.set {
			names = append(names, f.name)
		}
	}
	return names
}

// Status is how this process and what it depends on are doing.
type Status struct {
	Node          string                `json:"node"`
	Leader        Leader                `json:"leader"`
	Store         Health                `json:"store"`
	Hosts         []HostHealth          `json:"hosts" nullable:"false"`
	Sandboxes     map[session.State]int `json:"sandboxes,omitempty"`
	BrokenRecords int                   `json:"brokenRecords,omitempty"` // stored, but unreadable
	Uptime        session.Duration      `json:"uptime"`
}

// Leader is who puts idle sandboxes to sleep.
type Leader struct {
	Node string `json:"node,omitempty"` // "" while there is none
	Me   bool   `json:"me"`             // this process is it
}

// Health is whether something works, and if not, why.
type Health struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

// HostHealth is that of a configured sandbox host.
type HostHealth struct {
	Name string `json:"name"`
	Health
	Freezer string `json:"freezer,omitempty"` // how a local host pauses, such as "cgroup" or "signals"
}

var (
	// ErrNotFound: no such sandbox, or none that the caller may know of.
	ErrNotFound = errors.New("sandbox not found")
	// ErrKilled: the sandbox was there, and is gone for good.
	ErrKilled = errors.New("sandbox killed")
)

// InUseError says that a sandbox can't be paused without cutting somebody off.
type InUseError struct {
	What []string // what is in flight, in words
}

func (e *InUseError) Error() string { return "sandbox in use: " + strings.Join(e.What, ", ") }

// UnavailableError says that something that the work needs can't be reached at
// the moment; the same request may succeed later.
type UnavailableError struct {
	Reason     string        // shown to the caller
	RetryAfter time.Duration // 0: not known
}

func (e *UnavailableError) Error() string { return fmt.Sprintf("unavailable: %s", e.Reason) }

// E2BBackend is what the E2B pass-through needs to keep the record true. The
// errors are those of [Actor].
type E2BBackend interface {
	// Created takes in a sandbox that the host has just made for a caller.
	// Template is what the caller asked for; nil metadata are not known here,
	// the host has them.
	Created(ctx context.Context, sb e2b.Sandbox, template string, metadata map[string]string) error
	// Use makes a sandbox run and keeps it from being paused until release is
	// called, which happens exactly once if err is nil. Woke tells that it did
	// not run before. Timeout is the lifetime that the caller asked for, by who
	// asked.
	Use(ctx context.Context, id string, timeout time.Duration, by string) (release func(), woke bool, err error)
	// Pause is that of [Actor].
	Pause(ctx context.Context, id string, o PauseOptions) (sb Sandbox, changed bool, err error)
	// TimeoutSet notes that a caller has changed the end of a sandbox's run.
	TimeoutSet(ctx context.Context, id string) error
	// Killing notes that the host is about to be asked to kill a sandbox, so that
	// whoever finds it gone knows why.
	Killing(ctx context.Context, id string)
	// Killed notes the host's word that a sandbox is gone.
	Killed(ctx context.Context, id string) error
}
