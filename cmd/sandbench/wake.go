package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// runWake measures, in alternating rounds on the same sandbox, a request that
// wakes it, a request while it runs, and the host's own connect; then how late
// idle sandboxes are paused.
func runWake(ctx context.Context, args []string) error {
	flags := newFlags("wake")
	rounds := flags.Int("rounds", 200, "rounds of pause and wake")
	sandboxes := flags.Int("sandboxes", 20, "sandboxes that become idle")
	idle := flags.Duration("idle", 3*time.Second, "idle timeout")
	times := flags.Int("times", 5, "how often each becomes idle")
	_ = flags.Parse(args) // exits on error

	r, err := newRig(ctx, "SANDMAN_IDLE_TIMEOUT="+idle.String())
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.measureWakes(ctx, *rounds); err != nil {
		return err
	}
	return r.measureLateness(ctx, *sandboxes, *times, *idle)
}

func (r *rig) measureWakes(ctx context.Context, rounds int) error {
	id, err := r.sandbox(ctx)
	if err != nil {
		return err
	}
	var woke, ran, own, beyond []time.Duration
	for range rounds {
		if err := r.pause(ctx, id); err != nil {
			return err
		}
		_, wake, err := r.state(ctx, id)
		if err != nil {
			return fmt.Errorf("a request at a paused sandbox: %w", err)
		}
		_, run, err := r.state(ctx, id)
		if err != nil {
			return fmt.Errorf("a request at a running sandbox: %w", err)
		}
		connect, err := r.ownConnect(ctx, id)
		if err != nil {
			return err
		}
		woke, ran, own = append(woke, wake), append(ran, run), append(own, connect)
		beyond = append(beyond, wake-run-connect)
	}
	t := newTable("wake by request, to the first byte")
	t.row("paused", woke)
	t.row("running", ran)
	t.row("the host's own connect", own)
	t.row("paused − running − connect", beyond)
	t.print()
	return nil
}

// ownConnect pauses the sandbox and measures the host's connect alone, without
// Sandman between.
func (r *rig) ownConnect(ctx context.Context, id string) (time.Duration, error) {
	if err := r.pause(ctx, id); err != nil {
		return 0, err
	}
	began := time.Now()
	if _, _, err := r.host.Connect(ctx, id, time.Hour); err != nil {
		return 0, fmt.Errorf("the host's own connect: %w", err)
	}
	took := time.Since(began)
	_, _, err := r.state(ctx, id) // through Sandman, whose record catches up
	return took, err
}

// measureLateness lets sandboxes become idle, at different times, and compares
// when their pause began with when it was due.
func (r *rig) measureLateness(ctx context.Context, sandboxes, times int, idle time.Duration) error {
	late := make([][]time.Duration, sandboxes)
	var g errgroup.Group
	for i := range sandboxes {
		id, err := r.sandbox(ctx)
		if err != nil {
			return err
		}
		g.Go(func() (err error) {
			late[i], err = r.becomeIdle(ctx, id, times, idle)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var all []time.Duration
	for _, l := range late {
		all = append(all, l...)
	}
	t := newTable(fmt.Sprintf("pause after %s without use, %d sandboxes", idle, sandboxes))
	t.row("late by", all)
	t.print()
	return nil
}

func (r *rig) becomeIdle(ctx context.Context, id string, times int, idle time.Duration) (late []time.Duration, err error) {
	for range times {
		if _, _, err := r.state(ctx, id); err != nil {
			return nil, err
		}
		end := time.Now() // the last byte has arrived
		pausing, err := r.awaitPause(ctx, id, end)
		if err != nil {
			return nil, err
		}
		late = append(late, pausing.Sub(end.Add(idle)))
	}
	return late, nil
}

// awaitPause gives the time at which the pause after since began.
func (r *rig) awaitPause(ctx context.Context, id string, since time.Time) (time.Time, error) {
	for {
		rec, err := r.record(ctx, id)
		if err != nil {
			return time.Time{}, err
		}
		if rec.State == "PAUSED" {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
	lines, err := r.history(ctx, id)
	if err != nil {
		return time.Time{}, err
	}
	for _, l := range lines {
		if l.To == "PAUSING" && l.At.After(since) {
			return l.At, nil
		}
	}
	return time.Time{}, fmt.Errorf("the history of %s shows no pause after %s", id, since)
}
