// Package proctree reads the machine's processes: who is whose child, which of
// them are stopped, and what they use. It reads the kernel's tables each time
// and remembers nothing.
package proctree

import (
	"errors"
	"time"
)

// ErrGone says that there is no such process, or only what its parent has yet to
// collect.
var ErrGone = errors.New("the process is gone")

// Process is one process at the moment of reading.
type Process struct {
	PID, PPID int
	// Identity tells this process from an older or later one with the same PID,
	// also across a restart of the machine.
	Identity string
	// Stopped is true after a SIGSTOP or the like, until SIGCONT.
	Stopped bool
	// Dead is true for a zombie: it runs no more, but keeps its PID.
	Dead bool
	// CPU is the time that it has used, RSS its resident memory in bytes.
	CPU time.Duration
	RSS uint64
}

// Descendants returns the tree below and including root out of all, parents
// before their children. It is empty where root is not in all.
func Descendants(all []Process, root int) []Process {
	children := make(map[int][]Process, len(all))
	var tree []Process
	for _, p := range all {
		if p.PID == root {
			tree = append(tree, p)
		} else {
			children[p.PPID] = append(children[p.PPID], p)
		}
	}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i].PID]...)
	}
	return tree
}

// Alive reports whether the process with this PID runs and is the one with this
// identity.
func Alive(pid int, identity string) bool {
	p, err := Get(pid)
	return err == nil && !p.Dead && p.Identity == identity
}
