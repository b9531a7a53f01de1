package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sandman-proxy/sandman/internal/e2b"
)

// runLateness lets many sandboxes become due, first one after the other and
// then all within a second, and compares when the host was called with when it
// should have been: its last answer to a visitor, and the idle timeout. The
// host is one of records, so that 10,000 fit; Sandman, its API and its embedded
// etcd are the real ones.
func runLateness(ctx context.Context, args []string) error {
	flags := newFlags("lateness")
	sandboxes := flags.Int("sandboxes", 10_000, "sandboxes, without processes")
	spread := flags.Duration("spread", time.Minute, "over which they become due")
	_ = flags.Parse(args) // exits on error

	r, err := newRecordsRig(ctx, "SANDMAN_IDLE_TIMEOUT=1h")
	if err != nil {
		return err
	}
	defer r.close()
	ids, err := r.manySandboxes(ctx, *sandboxes)
	if err != nil {
		return err
	}
	t := newTable(fmt.Sprintf("late by, %d sandboxes without processes", len(ids)))
	for _, over := range []time.Duration{*spread, time.Second} {
		late, err := r.lateness(ctx, ids, over)
		if err != nil {
			return err
		}
		t.row("due within "+over.String(), late)
	}
	t.print()
	return nil
}

// crowd is how many calls the measurements make at the same time.
const crowd = 64

// manySandboxes makes sandboxes through Sandman. They end with the host.
func (r *rig) manySandboxes(ctx context.Context, n int) ([]string, error) {
	ids := make([]string, n)
	err := each(ctx, n, func(ctx context.Context, i int) error {
		sb, err := r.e2b.Create(ctx, e2b.NewSandbox{TemplateID: "base"})
		ids[i] = sb.SandboxID
		return err
	})
	progress("%d sandboxes", n)
	return ids, err
}

// each calls do for 0 to n-1, a crowd at a time.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(crowd)
	for i := range n {
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}

// lateness visits all sandboxes, which wakes them, gives each the idle timeout
// with which it becomes due at its time, and awaits the pauses.
func (r *rig) lateness(ctx context.Context, ids []string, over time.Duration) ([]time.Duration, error) {
	if err := r.visitAll(ctx, ids); err != nil {
		return nil, err
	}
	served, err := r.hostTimes(ctx)
	if err != nil {
		return nil, err
	}
	// the settings take a while to be made
	first := time.Now().Add(15*time.Second + time.Duration(len(ids))*2*time.Millisecond)
	due := make([]time.Time, len(ids))
	err = each(ctx, len(ids), func(ctx context.Context, i int) error {
		due[i] = first.Add(over * time.Duration(i) / time.Duration(len(ids)))
		return r.setIdleTimeout(ctx, ids[i], due[i].Sub(time.Unix(0, served[ids[i]].Served)))
	})
	if err != nil {
		return nil, err
	}
	if late := time.Since(first); late > 0 {
		return nil, fmt.Errorf("this machine is too slow: the settings were made %s after the first was due", late)
	}
	progress("all is set, the first is due in %s", time.Until(first).Round(time.Second))
	return r.pausesAfter(ctx, ids, due)
}

func (r *rig) visitAll(ctx context.Context, ids []string) error {
	began := time.Now()
	err := each(ctx, len(ids), func(ctx context.Context, i int) error { return get(ctx, r.client, r.url(ids[i])) })
	progress("%d visits in %s", len(ids), time.Since(began).Round(time.Second/10))
	return err
}

// pausesAfter waits until the host was called for all, and compares.
func (r *rig) pausesAfter(ctx context.Context, ids []string, due []time.Time) ([]time.Duration, error) {
	end := due[len(due)-1].Add(2 * time.Minute)
	for {
		select {
		case <-time.After(time.Until(due[len(due)-1]) + time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		times, err := r.hostTimes(ctx)
		if err != nil {
			return nil, err
		}
		late := make([]time.Duration, 0, len(ids))
		for i, id := range ids {
			if at := times[id]; at.Paused > at.Served {
				late = append(late, time.Unix(0, at.Paused).Sub(due[i]))
			}
		}
		switch {
		case len(late) == len(ids):
			return late, nil
		case time.Now().After(end):
			return nil, fmt.Errorf("%d of %d sandboxes were paused", len(late), len(ids))
		}
	}
}

func (r *rig) hostTimes(ctx context.Context) (times map[string]hostTimes, err error) {
	status, err := r.call(ctx, http.MethodGet, r.hostURL+timesPath, &times)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("asking the host for its times: status %d", status)
	}
	return times, err
}

func (r *rig) setIdleTimeout(ctx context.Context, id string, idle time.Duration) error {
	body, err := json.Marshal(map[string]string{"idleTimeout": idle.String()})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, r.base+"/api/v1/sandboxes/"+id, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+benchToken)
	req.Header.Set("Content-Type", "application/merge-patch+json")
	res, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("setting the idle timeout of %s: status %d", id, res.StatusCode)
	}
	return nil
}
