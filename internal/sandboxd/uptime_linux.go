package sandboxd

import (
	"time"

	"golang.org/x/sys/unix"
)

// uptime is the machine's monotonic clock, which all processes share and which
// nobody can set; 0 where there is none.
func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
