package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// runStampede lets many visitors arrive together at sleeping sandboxes, and
// counts the resumes that this causes.
func runStampede(ctx context.Context, args []string) error {
	flags := newFlags("stampede")
	visitors := flags.Int("visitors", 200, "requests that arrive together at each sandbox")
	sandboxes := flags.Int("sandboxes", 1, "sleeping sandboxes")
	rounds := flags.Int("rounds", 10, "rounds")
	_ = flags.Parse(args) // exits on error

	r, err := newRig(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	ids := make([]string, *sandboxes)
	for i := range ids {
		if ids[i], err = r.sandbox(ctx); err != nil {
			return err
		}
		if i%100 == 99 {
			progress("%d sandboxes", i+1)
		}
	}
	var took []time.Duration
	for range *rounds {
		t, err := r.stampede(ctx, ids, *visitors)
		if err != nil {
			return err
		}
		took = append(took, t...)
	}
	t := newTable(fmt.Sprintf("%d visitors at each of %d sleeping sandboxes, one resume each, no error", *visitors, *sandboxes))
	t.row("to the first byte", took)
	t.print()
	return nil
}

func (r *rig) stampede(ctx context.Context, ids []string, visitors int) (took []time.Duration, err error) {
	before := make(map[string]int)
	for _, id := range ids {
		if err := r.pause(ctx, id); err != nil {
			return nil, err
		}
		rec, err := r.record(ctx, id)
		if err != nil {
			return nil, err
		}
		before[id] = rec.Totals.Wakes
	}
	var mu sync.Mutex
	var g errgroup.Group
	gate := make(chan struct{})
	for _, id := range ids {
		for range visitors {
			g.Go(func() error {
				<-gate
				_, t, err := r.state(ctx, id)
				mu.Lock()
				took = append(took, t)
				mu.Unlock()
				return err
			})
		}
	}
	close(gate)
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, id := range ids {
		rec, err := r.record(ctx, id)
		if err != nil {
			return nil, err
		}
		if n := rec.Totals.Wakes - before[id]; n != 1 {
			return nil, fmt.Errorf("sandbox %s was resumed %d times for one stampede", id, n)
		}
	}
	return took, nil
}
