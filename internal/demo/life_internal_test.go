package demo

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func newTestLife(t *testing.T) *life {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return newLife(root)
}

func TestLife_aGapBetweenTicksIsANap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newTestLife(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go l.watch(ctx)
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if s := l.state(); s.Napped != 0 || s.AwakeMs < 10_000 || s.AsleepMs != 0 {
			t.Fatalf("a process that ran on has %+v", s)
		}
		_, _, news := l.lastNap()
		slept := l.last
		l.mu.Lock() // as if the process were frozen: nothing ticks
		l.last = slept.Add(-time.Hour)
		l.mu.Unlock()
		l.observe(time.Now())
		select {
		case <-news:
		default:
			t.Error("nobody was told of the nap")
		}
		s := l.state()
		if s.Napped != 1 || len(s.Naps) != 1 || s.Naps[0].Ms < 3_600_000 || s.Naps[0].Ms > 3_601_000 {
			t.Errorf("after an hour's nap: %+v", s)
		}
		if nap := s.Naps[0].To.Sub(s.Naps[0].From).Milliseconds(); nap != s.Naps[0].Ms {
			t.Errorf("the nap lasted %d ms by its ends, and %d ms", nap, s.Naps[0].Ms)
		}
	})
}

func TestLife_remembersTheLastNapsAndCountsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newTestLife(t)
		for range maxNaps + 5 {
			time.Sleep(napGap)
			l.observe(time.Now())
			time.Sleep(napGap - 1) // late, but no nap
			l.observe(time.Now())
		}
		s := l.state()
		if s.Napped != maxNaps+5 || len(s.Naps) != maxNaps || !s.Naps[0].From.After(s.Naps[1].From) {
			t.Errorf("%d naps, %d remembered, newest first: %v", s.Napped, len(s.Naps), s.Naps)
		}
		if want := (maxNaps + 5) * (napGap - 1); l.awake != want {
			t.Errorf("awake for %s, wanted %s", l.awake, want)
		}
	})
}
