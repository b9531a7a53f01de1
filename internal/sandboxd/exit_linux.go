package sandboxd

import (
	"context"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// newSession detaches envd from this process's terminal and group.
func newSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// exit returns a function that waits for the end of any process, a child or not,
// and reports false if ctx ended first. The process is meant from now on: a
// later one with its PID isn't taken for it.
func exit(ctx context.Context, pid int) (wait func() bool, err error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "pidfd") // nonblocking, so the runtime's poller waits
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() bool {
		defer f.Close()
		stop := context.AfterFunc(ctx, func() { f.Close() })
		defer stop()
		return raw.Read(exited) == nil && ctx.Err() == nil
	}, nil
}

// exited reports whether a pidfd can be read, which it can after the end.
func exited(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}
