// Package freezer stops and continues whole trees of processes, as little seen by
// them as the kernel allows.
//
// Three ways, the best that works here is found by trying it on a real process:
//
//   - cgroup v2, cgroup.freeze: the kernel holds everything in the group,
//     children that are being born included, and says when it is done;
//   - cgroup v1, the freezer controller: the same, without an event, and SIGKILL
//     waits in a frozen process until it is thawed;
//   - SIGSTOP to every descendant: for plain users, and where there is no cgroup
//     to be had. See signal.go for what that takes.
package freezer

import (
	"context"
	"fmt"
	"os"

	"github.com/sandman-proxy/sandman/internal/sandboxd/proctree"
)

// Mode chooses a way of freezing.
type Mode string

// The modes. ModeCgroup is either version, whichever works; ModeAuto falls back
// to ModeSignal.
const (
	ModeAuto   Mode = "auto"
	ModeCgroup Mode = "cgroup"
	ModeSignal Mode = "signal"
)

// Kind is a way of freezing as it is kept in a sandbox's record.
type Kind string

// The kinds, with the names that people are shown.
const (
	KindCgroup2 Kind = "cgroup v2"
	KindCgroup1 Kind = "cgroup v1"
	KindSignal  Kind = "SIGSTOP"
)

// Ref is all that is needed to find a group again, also from another process.
type Ref struct {
	Kind Kind `json:"kind"`
	// Path is the cgroup's folder; empty for KindSignal.
	Path string `json:"path,omitempty"`
	// Root is the PID of the tree's root, which must be a subreaper.
	Root int `json:"root"`
	// Identity is the root's, see [proctree.Process]; for KindSignal, which must
	// not take a later process with the root's PID for it.
	Identity string `json:"identity,omitempty"`
	// Held are the processes that somebody else had stopped before Freeze did,
	// which Thaw must leave alone. Only for KindSignal.
	Held []int `json:"held,omitempty"`
}

// Group is one tree of processes. Its methods must not be called at once.
type Group interface {
	// Freeze returns when nothing in the group runs any more. After an error
	// the group may be in part frozen: Thaw it.
	Freeze(ctx context.Context) error
	// Thaw undoes Freeze. It is harmless on a group that runs.
	Thaw(ctx context.Context) error
	// Frozen asks the kernel.
	Frozen() (bool, error)
	// Kill ends all processes of the group, frozen or not, returns when none is
	// left running, and removes the group.
	Kill(ctx context.Context) error
	// Ref is what Open needs. It changes with Freeze.
	Ref() Ref
}

// Freezer makes groups in the one way that was found to work here.
type Freezer struct {
	kind   Kind
	parent string // the cgroup below which groups are made
}

// Detect finds a way of freezing. It starts and freezes a process of its own, so
// that a cgroup that can be written but does nothing isn't taken for one.
func Detect(ctx context.Context, mode Mode) (*Freezer, error) {
	switch mode {
	case ModeSignal:
		return &Freezer{kind: KindSignal}, nil
	case ModeAuto, ModeCgroup, "":
	default:
		return nil, fmt.Errorf("unknown freezer %q, want auto, cgroup or signal", mode)
	}
	f, err := detectCgroup(ctx)
	if err == nil {
		return f, nil
	}
	if mode == ModeCgroup {
		return nil, fmt.Errorf("finding a cgroup freezer: %w", err)
	}
	return &Freezer{kind: KindSignal}, nil
}

// Kind returns the way that was found.
func (f *Freezer) Kind() Kind { return f.kind }

// New makes a group of the tree below root, a process that has no children yet.
// Name must be unique on this machine.
func (f *Freezer) New(name string, root int) (Group, error) {
	if f.kind == KindSignal {
		p, err := proctree.Get(root)
		if err != nil {
			return nil, err
		}
		return &signalGroup{root: root, identity: p.Identity}, nil
	}
	return f.newCgroup(name, root)
}

// Open finds a group again by its Ref.
func Open(r Ref) (Group, error) {
	switch r.Kind {
	case KindSignal:
		return &signalGroup{root: r.Root, identity: r.Identity, held: r.Held}, nil
	case KindCgroup1, KindCgroup2:
		if _, err := os.Stat(r.Path); err != nil {
			return nil, fmt.Errorf("opening a cgroup: %w", err)
		}
		return openCgroup(r)
	default:
		return nil, fmt.Errorf("unknown kind of freezer %q", r.Kind)
	}
}
