package envd

import (
	"context"
	"time"
)

// The steps in which awake time is counted.
const (
	minStep = 5 * time.Millisecond
	maxStep = 250 * time.Millisecond
)

// afterAwake calls f once this process has been awake for d, from a goroutine of
// its own, unless stop is closed before. A frozen process sees the clock jump at
// its thaw; a step that took longer than two counts as two.
func afterAwake(d time.Duration, stop <-chan struct{}, f func()) {
	go func() {
		if awake(d, stop) {
			f()
		}
	}()
}

// expiry is closed after d of awake time, if ctx lasts that long; nil for 0.
func expiry(ctx context.Context, d time.Duration) <-chan struct{} {
	if d <= 0 {
		return nil
	}
	expired := make(chan struct{})
	afterAwake(d, ctx.Done(), func() { close(expired) })
	return expired
}

func awake(d time.Duration, stop <-chan struct{}) bool {
	step := min(max(d/50, minStep), maxStep)
	t := time.NewTicker(step)
	defer t.Stop()
	for last := time.Now(); d > 0; {
		select {
		case <-stop:
			return false
		case <-t.C:
		}
		now := time.Now()
		d -= min(now.Sub(last), 2*step)
		last = now
	}
	return true
}
