//go:build unix && !linux

package sandboxd

import (
	"context"
	"syscall"
	"time"

	"github.com/sandman-proxy/sandman/internal/sandboxd/proctree"
)

// newSession detaches envd from this process's terminal and group.
func newSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// exit returns a function that waits for the end of any process, a child or not,
// and reports false if ctx ended first. It looks every second.
func exit(ctx context.Context, pid int) (wait func() bool, err error) {
	p, err := proctree.Get(pid)
	if err != nil {
		return nil, err
	}
	return func() bool {
		for proctree.Alive(pid, p.Identity) {
			sleep(ctx, time.Second)
			if ctx.Err() != nil {
				return false
			}
		}
		return true
	}, nil
}
