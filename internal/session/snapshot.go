package session

import (
	"errors"
	"time"
)

// ErrConflict is wrapped by the errors of all writes whose compares did not
// hold: somebody else was quicker. The caller looks again and decides anew.
var ErrConflict = errors.New("the session has changed meanwhile")

// Snapshot is a record with all that is known around it at one moment. It is
// shared between goroutines and never changed.
type Snapshot struct {
	Record
	Activity         Activity
	ActivityRevision int64     // mod revision of the stored activity, 0: none
	LastActive       time.Time // latest sign of use by this process's monotonic clock; only moves forward
	Seen             time.Time // when this process saw this revision of the record, likewise
	Presence         []Presence
	Holds            []Hold
	Traffic          []NodeTraffic // by node
}

// Presence says that a proxy may be forwarding.
type Presence struct {
	Node     string
	Revision int64
}

// Open tells whether somebody is visiting: a proxy is present, or one was and
// nobody has closed its visit.
func (s *Snapshot) Open() bool { return len(s.Presence) > 0 || s.Activity.Open }

// Streams is how many streams are open through all proxies.
func (s *Snapshot) Streams() int {
	open := 0
	for _, t := range s.Traffic {
		open += t.Open
	}
	return open
}

// TrafficOf gives a node's traffic; ok is false where it has told none.
func (s *Snapshot) TrafficOf(node string) (t NodeTraffic, ok bool) {
	for _, t := range s.Traffic {
		if t.Node == node {
			return t, true
		}
	}
	return NodeTraffic{}, false
}

// PauseAt is when the session becomes idle, by this process's clock, under the
// idle timeout that holds for it: Rules.Settings says which, never the record
// alone. ok is false while something keeps it awake, or when it does not run.
func (s *Snapshot) PauseAt(idle time.Duration) (at time.Time, ok bool) {
	if s.State != Running || s.Open() || len(s.Holds) > 0 {
		return time.Time{}, false
	}
	return s.LastActive.Add(idle), true
}

// OpDeadline is when the op of a busy session may be settled by others, by
// this process's clock: the op's own span, counted from when it was seen here,
// so that no two clocks are compared.
func (s *Snapshot) OpDeadline() time.Time {
	if s.Op == nil {
		return time.Time{}
	}
	return s.Seen.Add(s.Op.Deadline.Sub(s.Op.StartedAt))
}
