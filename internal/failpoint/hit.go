//go:build failpoints

package failpoint

import (
	"os"
	"syscall"
)

// Hit kills the process, as the kernel would, if the environment variable
// SANDMAN_FAILPOINT names this mark.
func Hit(name string) {
	if os.Getenv("SANDMAN_FAILPOINT") == name {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // nothing more happens
	}
}
