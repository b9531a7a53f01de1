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
		g.continueAll(stopped)
		return fmt.Errorf("stopping process %d and its descendants: %w", g.root, err)
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
		settled := true
		for _, p := range tree {
			switch {
			case p.Dead:
			case known[p.PID]:
				settled = settled && p.Stopped
			case p.Stopped && p.PID != g.root:
				known[p.PID] = true
				held = append(held, p.PID)
			default:
				known[p.PID] = true
				settled = false
				if err := signal(p.PID, syscall.SIGSTOP); err != nil {
					return stopped, held, err
				}
				stopped = append(stopped, p.PID)
			}
		}
		if settled {
			return stopped, held, nil
		}
		if err := pause(ctx); err != nil {
			return stopped, held, err
		}
	}
}

// pause gives the kernel a moment to stop a process that was in a system call;
// there is no event for it but to the parent, which is stopped.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(200 * time.Microsecond):
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
	stopped, held, err := g.stopAll(ctx)
	if errors.Is(err, proctree.ErrGone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("killing process %d and its descendants: %w", g.root, err)
	}
	var errs []error
	for _, pid := range slices.Backward(append(stopped, held...)) {
		if pid != g.root {
			errs = append(errs, signal(pid, syscall.SIGKILL))
		}
	}
	errs = append(errs, signal(g.root, syscall.SIGKILL))
	return errors.Join(append(errs, g.awaitDeath(ctx))...)
}

func (g *signalGroup) awaitDeath(ctx context.Context) error {
	for {
		p, err := proctree.Get(g.root)
		if errors.Is(err, proctree.ErrGone) || p.Dead {
			return nil
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
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
