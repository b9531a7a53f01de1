package session_test

import (
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", 250 * time.Millisecond: "250ms", 12900 * time.Millisecond: "12s", 10 * time.Minute: "10m",
		4*time.Minute + 48*time.Second: "4m 48s", time.Hour + 59*time.Second: "1h", 90 * time.Minute: "1h 30m",
		26 * time.Hour: "1d 2h", 48 * time.Hour: "2d",
	} {
		if got := session.Span(d); got != want {
			t.Errorf("%s is said as %q, want %q", d, got, want)
		}
	}
}
