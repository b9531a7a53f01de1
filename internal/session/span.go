package session

import (
	"fmt"
	"time"
)

// Span is a duration as people say it, in its two largest units: 12s, 10m,
// 4m 48s, 1d 2h. Parts of a second are left out, unless there is no more.
func Span(d time.Duration) string {
	d = d.Abs()
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	switch s := int(d / time.Second); {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 60*60:
		return twoUnits(s, 60, "m", "s")
	case s < 24*60*60:
		return twoUnits(s/60, 60, "h", "m")
	default:
		return twoUnits(s/(60*60), 24, "d", "h")
	}
}

func twoUnits(n, per int, large, small string) string {
	if n%per == 0 {
		return fmt.Sprintf("%d%s", n/per, large)
	}
	return fmt.Sprintf("%d%s %d%s", n/per, large, n%per, small)
}
