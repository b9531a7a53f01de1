//go:build !linux

package sandboxd

import "time"

// uptime is not known: a host that is started anew goes by the wall clock.
func uptime() time.Duration { return 0 }
