package activity_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/activity"
)

// present gives a tracker at work, with a visit that holds presence.
func present(b *testing.B) (*activity.Tracker, *activity.Visit) {
	b.Helper()
	m := newMemory()
	t := activity.New(m, activity.Config{
		Resolution: time.Second,
		Idle:       func(string) time.Duration { return time.Hour },
		Linger:     func(string) time.Duration { return time.Second },
		Lost:       func(context.Context, string) {},
		Logger:     zap.NewNop(),
	})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); t.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	v := t.Begin(id, "request")
	if err := v.Enter(b.Context(), 1); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(v.End)
	b.ReportAllocs()
	b.ResetTimer()
	return t, v
}

func BenchmarkBump(b *testing.B) {
	_, v := present(b)
	for b.Loop() {
		v.Bump()
	}
}

func BenchmarkBump_parallel(b *testing.B) {
	_, v := present(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			v.Bump()
		}
	})
}

// BenchmarkTryEnd is what a request costs from beginning to end.
func BenchmarkTryEnd(b *testing.B) {
	t, _ := present(b)
	for b.Loop() {
		v := t.Begin(id, "request")
		if !v.Try() {
			b.Fatal("Try while presence stands: false, want true")
		}
		v.End()
	}
}

// BenchmarkTryEnd_alone is the same where no other visit counts: each ends, and
// begins, what the linger does.
func BenchmarkTryEnd_alone(b *testing.B) {
	t, open := present(b)
	open.End()
	for b.Loop() {
		v := t.Begin(id, "request")
		if !v.Try() {
			b.Fatal("Try within the linger: false, want true")
		}
		v.End()
	}
}

func BenchmarkTryEnd_parallel(b *testing.B) {
	t, _ := present(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			v := t.Begin(id, "request")
			if !v.Try() {
				b.Error("Try while presence stands: false, want true")
				return
			}
			v.End()
		}
	})
}
