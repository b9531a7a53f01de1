//go:build unix

package sandboxd

import (
	"os"
	"syscall"
)

// funlock gives the lock back at once. Closing alone would leave it to a child of
// this process that is between its fork and its exec.
func funlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

func flock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
