package session

import (
	"maps"
	"time"
)

// Record is one session as it is stored, in JSON under one key. It is written
// at transitions and when settings change, never by traffic.
//
// A Record is a value: transitions give a new one, and what it points to
// (Metadata, SetBy, Op, LastError) is never changed in place.
type Record struct {
	SandboxID string            `json:"sandboxID"`
	Host      string            `json:"host"` // name of the configured host that runs it
	Owner     string            `json:"owner,omitempty"`
	Project   string            `json:"project,omitempty"`
	Template  string            `json:"template,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`

	State State `json:"state"`
	// Reason and Since are why and when the last transition took place. A resume
	// that fails is none here: they are the sleep's then, which goes on.
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`

	IdleTimeout Duration `json:"idleTimeout,omitempty"` // what is asked for it, 0: nothing; Rules.Settings says what holds
	WakePolicy  string   `json:"wakePolicy,omitempty"`  // "": the site's default
	// SetBy says who set the settings above, owner and project, by their names.
	// Of what was never set by hand it says nothing.
	SetBy map[string]Mark `json:"setBy,omitempty"`

	CreatedAt time.Time  `json:"createdAt"`
	StartedAt *time.Time `json:"startedAt,omitempty"` // start of the current or last run
	PausedAt  *time.Time `json:"pausedAt,omitempty"`  // the last pause

	Op             *Op            `json:"op,omitempty"`        // set exactly in Pausing and Resuming
	LastError      *OpError       `json:"lastError,omitempty"` // until an op of the same kind succeeds
	Killing        Killing        `json:"killing,omitzero"`    // a kill that the host is asked for
	Parked         int            `json:"parked,omitempty"`    // streams that were open at the last pause
	ReconnectWakes ReconnectWakes `json:"reconnectWakes,omitzero"`
	Totals         Totals         `json:"totals"`
	// CountedTo is up to when all time is in usage and totals already; zero: up
	// to Since. It is later where owner or project have changed since, or where
	// the clock of a step before was ahead of this one's.
	CountedTo time.Time `json:"countedTo,omitzero"`

	// Revision is the mod revision under which the record was read, 0 if it
	// is not stored: what a Txn compares. The store fills it in.
	Revision int64 `json:"-"`
}

// OpKind says what an op does at the host.
type OpKind string

// The two kinds of ops.
const (
	OpPause  OpKind = "pause"
	OpResume OpKind = "resume"
)

// Phase is how far a pause has come.
type Phase string

// The phases of a pause. The leader's own pauses begin with PhaseCalling;
// one that was asked for by hand first drains.
const (
	PhaseDraining Phase = "draining" // waiting for what is in flight
	PhaseCutting  Phase = "cutting"  // ending what is in flight
	PhaseCalling  Phase = "calling"  // the host's call is being made
)

// Op is the work that a busy session waits for. It belongs to the one
// goroutine that put it there and is known by its ID alone: not even the same
// node may finish it. Deadline is for the others, who may settle the op once
// it has passed; the owner goes by its monotonic clock.
type Op struct {
	ID        string    `json:"id"`
	Kind      OpKind    `json:"kind"`
	Phase     Phase     `json:"phase,omitempty"`
	Node      string    `json:"node"`
	StartedAt time.Time `json:"startedAt"`
	Deadline  time.Time `json:"deadline"`
	Sleep     Sleep     `json:"sleep,omitzero"` // what a resume is to end: it goes on if that fails
}

// Sleep is why a sandbox sleeps, and since when; Since is zero where it was not
// known to sleep yet.
type Sleep struct {
	Since  time.Time `json:"since,omitzero"`
	Reason string    `json:"reason"`
}

// Killing is a kill that was asked for at At: whoever finds the sandbox gone soon
// after, in whatever process, finds what came of it, and tells of Reason.
type Killing struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// OpError is how the last op failed. No op of this kind is begun before
// RetryAt, and Failures counts those in a row.
type OpError struct {
	At       time.Time `json:"at"`
	Op       OpKind    `json:"op"`
	Message  string    `json:"message"`        // the host's own words, with its address
	Kind     Failure   `json:"kind,omitempty"` // of a resume
	RetryAt  time.Time `json:"retryAt"`
	Failures int       `json:"failures"`
}

// Failure is what went wrong at a host, in a word for those who must not be told
// its address; "" where it was none of these.
type Failure string

// The kinds of failures.
const (
	FailUnreachable  Failure = "unreachable"  // no answer came
	FailTimeout      Failure = "timeout"      // none came in time
	FailRefused      Failure = "refused"      // it answered that it won't
	FailBroken       Failure = "broken"       // it answered that it can't
	FailGone         Failure = "gone"         // it answered that there is no such sandbox
	FailUnconfigured Failure = "unconfigured" // no host of that name is configured
)

// ReconnectWakes counts the wakes that pages' own reconnects caused on one
// day, as YYYY-MM-DD in UTC.
type ReconnectWakes struct {
	Day   string `json:"day,omitempty"`
	Count int    `json:"count,omitempty"`
}

// Totals sum up a session's life, as far as it is counted: see
// Record.CountedTo. Time in Pausing and Resuming is running
// time: the host bills for it.
type Totals struct {
	RunningMs int64 `json:"runningMs"`
	PausedMs  int64 `json:"pausedMs"`
	Pauses    int   `json:"pauses"`
	Wakes     int   `json:"wakes"`
}

// New gives the record of a sandbox that the host knows, in the state that
// the host reports (Running or Paused). It is not stored yet.
func New(id, host string, state State, reason string, now time.Time) Record {
	r := Record{SandboxID: id, Host: host, State: state, Reason: reason, Since: now, CreatedAt: now}
	if state == Paused {
		r.PausedAt = &now
	} else {
		r.StartedAt = &now
	}
	return r
}

// WithMetadata gives the record with the host's metadata, and with owner and
// project taken from the named keys of it where they are not set already.
func (r Record) WithMetadata(md map[string]string, ownerKey, projectKey string) Record {
	r.Metadata = maps.Clone(md)
	if r.Owner == "" {
		r.Owner = md[ownerKey]
	}
	if r.Project == "" {
		r.Project = md[projectKey]
	}
	return r
}
