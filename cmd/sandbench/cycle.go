package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// runCycle pauses sandboxes by hand and wakes them by requests, and looks in
// each cycle whether process, memory and file are as they were.
func runCycle(ctx context.Context, args []string) error {
	flags := newFlags("cycle")
	cycles := flags.Int("cycles", 1000, "cycles of each sandbox")
	sandboxes := flags.Int("sandboxes", 1, "sandboxes at the same time")
	faults := flags.String("faults", "", "SANDBOXD_FAULTS of the host, such as pause_delay=100ms")
	_ = flags.Parse(args) // exits on error

	r, err := newRig(ctx, "SANDBOXD_FAULTS="+*faults)
	if err != nil {
		return err
	}
	defer r.close()
	took := make([]cycleTimes, *sandboxes)
	g, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for i := range *sandboxes {
		id, err := r.sandbox(ctx)
		if err != nil {
			return err
		}
		g.Go(func() error { return r.cycle(ctx, id, *cycles, &took[i]) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var all cycleTimes
	for _, t := range took {
		all.pauses, all.wakes = append(all.pauses, t.pauses...), append(all.wakes, t.wakes...)
	}
	t := newTable(fmt.Sprintf("%d cycles of %d sandboxes, no failed request, nothing lost", *cycles, *sandboxes))
	t.row("pause by hand", all.pauses)
	t.row("wake by request", all.wakes)
	t.print()
	fmt.Printf("in %s\n", time.Since(began).Round(time.Second))
	return nil
}

type cycleTimes struct{ pauses, wakes []time.Duration }

func (r *rig) cycle(ctx context.Context, id string, cycles int, times *cycleTimes) error {
	first, _, err := r.state(ctx, id)
	if err != nil {
		return err
	}
	for i := range cycles {
		began := time.Now()
		if err := r.pause(ctx, id); err != nil {
			return fmt.Errorf("cycle %d: %w", i, err)
		}
		times.pauses = append(times.pauses, time.Since(began))
		now, took, err := r.state(ctx, id)
		if err != nil {
			return fmt.Errorf("cycle %d: the request after the pause: %w", i, err)
		}
		times.wakes = append(times.wakes, took)
		want := first
		want.Counter += i + 1
		want.File = first.Memory // what was written to it
		if now != want {
			return fmt.Errorf("cycle %d: the app is at %+v, want %+v", i, now, want)
		}
	}
	rec, err := r.record(ctx, id)
	if err != nil {
		return err
	}
	if rec.Totals.Pauses < cycles || rec.Totals.Wakes < cycles {
		return fmt.Errorf("the record of %s counts %d pauses and %d wakes after %d cycles", id, rec.Totals.Pauses, rec.Totals.Wakes, cycles)
	}
	return nil
}
