package freezer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/sandman-proxy/sandman/internal/sandboxd/proctree"
)

// signalGroup freezes with SIGSTOP. A process group would miss terminals and
// daemons, which have sessions of their own; the root is a subreaper, so that
// all of them stay its descendants.
//
// Stopping goes from the root down, and is repeated until a pass finds nobody
// new: a process that is stopped can't have children any more. Continuing goes
// from the leaves up: a shell that ran before its child would see a stopped job
// and say so.
type signalGroup struct {
	root     int
	identity string
	held     []int
}

func (g *signalGroup) Ref() Ref {
	return Ref{Kind: KindSignal, Root: g.root, Identity: g.identity, Held: g.held}
}

func (g *signalGroup) Freeze(ctx context.Context) error {
	stopped, held, err := g.stopAll(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("stopping process %d and its descendants: %w", g.root, err), g.continueAll(stopped))
	}
	g.held = held
	return nil
}

// stopAll returns whom it stopped and whom somebody else had stopped before.
func (g *signalGroup) stopAll(ctx context.Context) (stopped, held []int, err error) {
	known := map[int]bool{}
	for {
		tree, err := g.tree()
		if err != nil {
			return stopped, held, err
		}
		fresh := false
		for _, p := range tree {
			if p.Dead || known[p.PID] {
				continue
			}
			known[p.PID], fresh = true, true
			if p.Stopped && p.PID != g.root {
				held = append(held, p.PID)
				continue
			}
			stopped = append(stopped, p.PID)
			if err := stop(ctx, p.PID); err != nil {
				return stopped, held, err
			}
		}
		if !fresh {
			return stopped, held, nil
		}
	}
}

// stop returns when the process has stopped, or is gone. Its children come only
// then: a shell that is still on its way out of wait(2) would see them stop.
func stop(ctx context.Context, pid int) error {
	if err := signal(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		p, err := proctree.Get(pid)
		if errors.Is(err, proctree.ErrGone) || p.Dead || p.Stopped {
			return nil
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// pause gives the kernel a moment: of a process that stops there is no event but
// to its parent.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Microsecond):
		return nil
	}
}

func (g *signalGroup) Thaw(context.Context) error {
	tree, err := g.tree()
	if err != nil {
		return fmt.Errorf("continuing process %d and its descendants: %w", g.root, err)
	}
	var pids []int
	for _, p := range tree {
		if p.Stopped && !slices.Contains(g.held, p.PID) {
			pids = append(pids, p.PID)
		}
	}
	g.held = nil
	return g.continueAll(pids)
}

// continueAll goes through pids, parents before children, from the back.
func (g *signalGroup) continueAll(pids []int) error {
	var errs []error
	for _, pid := range slices.Backward(pids) {
		errs = append(errs, signal(pid, syscall.SIGCONT))
	}
	return errors.Join(errs...)
}

// Frozen reports whether the whole tree is stopped.
func (g *signalGroup) Frozen() (bool, error) {
	tree, err := g.tree()
	if err != nil {
		return false, err
	}
	for _, p := range tree {
		if !p.Stopped && !p.Dead {
			return false, nil
		}
	}
	return true, nil
}

// Kill stops the tree first, so that nobody escapes by having children, and
// kills the root last: with it goes the knowledge of who belongs to it.
func (g *signalGroup) Kill(ctx context.Context) error {
	_, _, err := g.stopAll(ctx)
	var tree []proctree.Process
	if err == nil {
		tree, err = g.tree()
	}
	if errors.Is(err, proctree.ErrGone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("killing process %d and its descendants: %w", g.root, err)
	}
	var errs []error
	for _, p := range slices.Backward(tree) {
		errs = append(errs, signal(p.PID, syscall.SIGKILL))
	}
	for _, p := range tree {
		errs = append(errs, awaitDeath(ctx, p))
	}
	return errors.Join(errs...)
}

func awaitDeath(ctx context.Context, p proctree.Process) error {
	for proctree.Alive(p.PID, p.Identity) {
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// tree is the root and its descendants; [proctree.ErrGone] if the root is gone.
func (g *signalGroup) tree() ([]proctree.Process, error) {
	all, err := proctree.List()
	if err != nil {
		return nil, err
	}
	tree := proctree.Descendants(all, g.root)
	if len(tree) == 0 || tree[0].Dead || tree[0].Identity != g.identity {
		return nil, proctree.ErrGone
	}
	return tree, nil
}

// signal ignores a process that went by itself in the meantime.
func signal(pid int, s syscall.Signal) error {
	if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("sending %v to process %d: %w", s, pid, err)
	}
	return nil
}
