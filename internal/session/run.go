package session

import (
	"fmt"
	"time"
)

// RunKind says what a run was.
type RunKind string

// The two kinds of runs.
const (
	RunSweep RunKind = "sweep" // every record was compared with its host's list
	RunPass  RunKind = "pass"  // what came due within a minute
)

// Run is something that the leader did, as it is stored.
type Run struct {
	ID         string    `json:"id"` // in the order of their starts
	Kind       RunKind   `json:"kind"`
	Node       string    `json:"node"`
	StartedAt  time.Time `json:"startedAt"`
	DurationMs int64     `json:"durationMs"`
	Looked     int       `json:"looked"`  // sandboxes that were looked at
	Paused     int       `json:"paused"`  // found or put to sleep
	Resumed    int       `json:"resumed"` // found to run
	Killed     int       `json:"killed"`  // found to be gone
	Failed     int       `json:"failed"`
	Errors     []string  `json:"errors"` // what failed, without naming a sandbox
}

// Named gives the run with its ID.
func (r Run) Named() Run {
	r.ID = fmt.Sprintf("%013d-%s-%s", r.StartedAt.UnixMilli(), r.Kind, r.Node)
	return r
}

// Tried is how many changes the run made or failed to make.
func (r Run) Tried() int { return r.Paused + r.Resumed + r.Killed + r.Failed }
