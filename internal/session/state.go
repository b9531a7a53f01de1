package session

import (
	"errors"
	"fmt"
	"slices"
)

// State is where a session stands. The names are those of the API.
type State string

// The five states. Pausing and Resuming have an Op: somebody is at work on
// the host, and everybody else waits for the end of it.
const (
	Running  State = "RUNNING"
	Pausing  State = "PAUSING"
	Paused   State = "PAUSED"
	Resuming State = "RESUMING"
	Killed   State = "KILLED"
)

// States lists all states in the order of a session's life.
func States() []State { return []State{Running, Pausing, Paused, Resuming, Killed} }

// Valid tells whether s is one of the five states.
func (s State) Valid() bool { return slices.Contains(States(), s) }

// Busy tells whether an op is under way in this state.
func (s State) Busy() bool { return s == Pausing || s == Resuming }

// ErrTransition is wrapped by the error of every transition that is not
// allowed from the state that the record is in.
var ErrTransition = errors.New("transition not allowed")

// follows says which states may follow which. Resuming follows Resuming and
// Pausing only when a dead owner's op is taken over, and follows Running only
// when the host has said "paused" to a request.
var follows = map[State][]State{
	Running:  {Pausing, Resuming, Paused, Killed},
	Pausing:  {Paused, Running, Resuming, Killed},
	Paused:   {Resuming, Running, Killed},
	Resuming: {Running, Paused, Resuming, Killed},
	Killed:   {Running, Paused},
}

func checkFollows(from, to State) error {
	if !slices.Contains(follows[from], to) {
		return fmt.Errorf("%w: %s to %s", ErrTransition, from, to)
	}
	return nil
}
