package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// tick is how often the process notices that it lives. While the sandbox
	// sleeps it does not, and that is how it knows.
	tick = time.Second
	// napGap is how long between two ticks is taken for a sleep. A busy machine
	// may delay one for a second or two.
	napGap = 3 * time.Second
	// maxNaps is how many naps are remembered.
	maxNaps = 20

	counterFile = "counter.json"
)

// life is what a sleep must leave as it is: a counter in this process's
// memory, one in a file, and how long the process has really run.
type life struct {
	root    *os.Root
	started time.Time

	mu     sync.Mutex // guards the following fields
	memory int
	last   time.Time     // the last tick
	awake  time.Duration // up to last
	naps   []nap
	napped int           // all naps, also forgotten ones
	news   chan struct{} // closed at a nap, and replaced
}

// nap is a time in which the process did not run.
type nap struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	Ms   int64     `json:"ms"`
}

// diskCounter is the content of counterFile.
type diskCounter struct {
	Count     int       `json:"count"`
	StartedAt time.Time `json:"startedAt"`
}

func newLife(root *os.Root) *life {
	now := time.Now()
	return &life{root: root, started: now, last: now, news: make(chan struct{})}
}

// watch notices naps until ctx ends.
func (l *life) watch(ctx context.Context) {
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			l.observe(time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// observe takes the time between two looks for a nap if it is too long. It is
// the monotonic clock that counts: a machine that slept itself, or a clock that
// was set, is no nap.
func (l *life) observe(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gap := now.Sub(l.last)
	if gap < napGap {
		l.awake += gap
		l.last = now
		return
	}
	l.naps = append(l.naps, nap{From: l.last.Round(0), To: now.Round(0), Ms: gap.Milliseconds()})
	l.naps = l.naps[max(0, len(l.naps)-maxNaps):]
	l.napped++
	l.last = now
	close(l.news)
	l.news = make(chan struct{})
}

// count adds one to both counters. A counter file that somebody has broken or
// deleted starts again.
func (l *life) count() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	disk := l.unsyncedDisk()
	if disk.StartedAt.IsZero() {
		disk = diskCounter{StartedAt: time.Now().Round(time.Second)}
	}
	disk.Count++
	b, err := json.MarshalIndent(disk, "", "  ")
	if err == nil {
		err = (&files{root: l.root}).replace(counterFile, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("counting on disk: %w", err)
	}
	l.memory++
	return nil
}

// unsyncedDisk reads the counter on disk; zero where there is none. l.mu must
// be held.
func (l *life) unsyncedDisk() diskCounter {
	var d diskCounter
	if b, err := l.root.ReadFile(counterFile); err != nil || json.Unmarshal(b, &d) != nil {
		return diskCounter{}
	}
	return d
}

// lifeState is what the page shows.
type lifeState struct {
	Pid       int          `json:"pid"`
	StartedAt time.Time    `json:"startedAt"`
	Memory    int          `json:"memory"`
	Disk      *diskCounter `json:"disk"` // nil: nothing was counted yet
	AwakeMs   int64        `json:"awakeMs"`
	AsleepMs  int64        `json:"asleepMs"`
	Napped    int          `json:"napped"`
	Naps      []nap        `json:"naps"` // the newest first
}

func (l *life) state() lifeState {
	now := time.Now()
	l.observe(now) // the answer shall know of a nap that has just ended
	l.mu.Lock()
	defer l.mu.Unlock()
	s := lifeState{
		Pid: os.Getpid(), StartedAt: l.started.Round(0), Memory: l.memory, Napped: l.napped,
		AwakeMs: l.awake.Milliseconds(), Naps: slices.Clone(l.naps),
	}
	s.AsleepMs = now.Sub(l.started).Milliseconds() - s.AwakeMs
	slices.Reverse(s.Naps)
	if d := l.unsyncedDisk(); !d.StartedAt.IsZero() {
		s.Disk = &d
	}
	return s
}

// lastNap gives the latest nap, how many there were, and what is closed at the
// next one.
func (l *life) lastNap() (latest nap, napped int, news <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.naps) > 0 {
		latest = l.naps[len(l.naps)-1]
	}
	return latest, l.napped, l.news
}
