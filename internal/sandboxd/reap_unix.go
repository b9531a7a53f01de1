//go:build unix

package sandboxd

import "syscall"

// endChild kills and collects a child.
func endChild(pid int) {
	_ = syscall.Kill(pid, syscall.SIGKILL)
	reap(pid)
}

// reap collects a process that has ended, if it is this process's child; one
// that an earlier host started is init's.
func reap(pid int) {
	for {
		_, err := syscall.Wait4(pid, nil, 0, nil)
		if err != syscall.EINTR {
			return
		}
	}
}
