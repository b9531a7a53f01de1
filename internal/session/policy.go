package session

import (
	"maps"
	"time"
)

// Policy is what holds for all sandboxes of an owner, or of a project, that
// don't say otherwise themselves.
type Policy struct {
	IdleTimeout    Duration `json:"idleTimeout,omitempty"`    // 0: nothing is said
	MaxIdleTimeout Duration `json:"maxIdleTimeout,omitempty"` // 0: none but the operator's; holds for the sandboxes' own, too
	WakePolicy     string   `json:"wakePolicy,omitempty"`     // "": nothing is said

	UpdatedAt time.Time `json:"updatedAt"`
	UpdatedBy string    `json:"updatedBy"` // such as "token ops"

	// Revision is the mod revision under which the policy was read, 0 if it is
	// not stored. The store fills it in.
	Revision int64 `json:"-"`
}

// Scope says whose a policy is. The names are those of the API's paths.
type Scope string

// The two scopes.
const (
	ScopeOwner   Scope = "owners"
	ScopeProject Scope = "projects"
)

// Valid tells whether s is one of the scopes.
func (s Scope) Valid() bool { return s == ScopeOwner || s == ScopeProject }

// Limits are the operator's, which nobody gets past. Zero values are no limit;
// MinIdleTimeout holds always.
type Limits struct {
	MinIdleTimeout time.Duration
	MaxIdleTimeout time.Duration
}

// Source is where a setting comes from that holds for a sandbox.
type Source string

// The sources, in the order of their weight.
const (
	FromSandbox Source = "sandbox"
	FromProject Source = "project"
	FromOwner   Source = "owner"
	FromDefault Source = "default" // of the configuration
	FromSite    Source = "site"    // of the site that a request comes to
)

// Mark says who set a setting, and when.
type Mark struct {
	By string    `json:"by"`
	At time.Time `json:"at"`
}

// Rules are what decides over a sandbox's settings beside its own record.
type Rules struct {
	IdleTimeout    time.Duration // the configured default
	Limits         Limits
	Project, Owner *Policy // the sandbox's, nil: none
}

// Settings are what holds for a sandbox.
type Settings struct {
	IdleTimeout time.Duration
	IdleSource  Source
	IdleMark    Mark          // of the source; zero where nobody knows
	IdleAsked   time.Duration // what the source says; another than IdleTimeout where a limit is in the way
	IdleLimit   Source        // whose limit that is, FromDefault: the operator's; "": none is

	WakePolicy string // "": the site's
	WakeSource Source
	WakeMark   Mark
}

// Settings gives what holds for a sandbox: what it says itself, else its
// project, else its owner, else the configuration; within the limits.
func (ru Rules) Settings(r Record) Settings {
	s := Settings{IdleAsked: ru.IdleTimeout, IdleSource: FromDefault, WakeSource: FromSite}
	own := word{FromSandbox, r.IdleTimeout, r.WakePolicy, r.SetBy["idleTimeout"], r.SetBy["wakePolicy"]}
	for _, w := range []word{ru.Owner.word(FromOwner), ru.Project.word(FromProject), own} {
		if w.idle > 0 {
			s.IdleAsked, s.IdleSource, s.IdleMark = time.Duration(w.idle), w.from, w.idleMark
		}
		if w.wake != "" {
			s.WakePolicy, s.WakeSource, s.WakeMark = w.wake, w.from, w.wakeMark
		}
	}
	s.IdleTimeout, s.IdleLimit = ru.clamp(s.IdleAsked)
	return s
}

// word is what one source says, and who made it say so.
type word struct {
	from               Source
	idle               Duration
	wake               string
	idleMark, wakeMark Mark
}

func (p *Policy) word(from Source) word {
	if p == nil {
		return word{from: from}
	}
	mark := Mark{By: p.UpdatedBy, At: p.UpdatedAt}
	return word{from, p.IdleTimeout, p.WakePolicy, mark, mark}
}

// Bounds are the shortest and the longest idle timeout that a sandbox may have,
// the longest 0 where there is none, and whose that is, FromDefault: the
// operator's. Where the bounds contradict each other the shortest holds: the
// protocol bears no less.
func (ru Rules) Bounds() (shortest, longest time.Duration, whose Source) {
	shortest = max(ru.Limits.MinIdleTimeout, MinIdleTimeout)
	longest, whose = ru.Limits.MaxIdleTimeout, FromDefault
	for _, w := range []struct {
		p    *Policy
		from Source
	}{{ru.Owner, FromOwner}, {ru.Project, FromProject}} {
		if w.p == nil || w.p.MaxIdleTimeout <= 0 {
			continue
		}
		if m := time.Duration(w.p.MaxIdleTimeout); longest <= 0 || m < longest {
			longest, whose = m, w.from
		}
	}
	if longest > 0 {
		longest = max(longest, shortest)
	}
	return shortest, longest, whose
}

func (ru Rules) clamp(asked time.Duration) (d time.Duration, limit Source) {
	shortest, longest, whose := ru.Bounds()
	switch {
	case asked < shortest:
		return shortest, FromDefault
	case longest > 0 && asked > longest:
		return longest, whose
	}
	return asked, ""
}

// Marked gives the record with a note of who set the named settings.
func (r Record) Marked(by string, now time.Time, names ...string) Record {
	if len(names) == 0 {
		return r
	}
	marks := maps.Clone(r.SetBy)
	if marks == nil {
		marks = make(map[string]Mark, len(names))
	}
	for _, name := range names {
		marks[name] = Mark{By: by, At: now}
	}
	r.SetBy = marks
	return r
}
