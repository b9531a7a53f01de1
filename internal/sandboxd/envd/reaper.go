package envd

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// reaper collects every child of this process that ends: commands, and the
// orphans that come to a subreaper. os/exec can't be used beside it, because
// either would take the other's.
type reaper struct {
	mu      sync.Mutex // guards waiting; held while starting, so that no child is collected before it is known
	waiting map[int]chan<- syscall.WaitStatus
}

func newReaper() *reaper { return &reaper{waiting: map[int]chan<- syscall.WaitStatus{}} }

// run collects until ctx ends.
func (r *reaper) run(ctx context.Context) {
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	defer signal.Stop(died)
	for {
		r.collect() // also what died before we were notified
		select {
		case <-ctx.Done():
			return
		case <-died:
		}
	}
}

func (r *reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ch, ok := r.waiting[pid]; ok {
			delete(r.waiting, pid)
			ch <- ws
		}
	}
}

// start starts a process; its status comes once, when it has ended.
func (r *reaper) start(path string, argv []string, attr *os.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := os.StartProcess(path, argv, attr)
	if err != nil {
		return 0, nil, err
	}
	pid := p.Pid
	_ = p.Release() // we wait ourselves
	status := make(chan syscall.WaitStatus, 1)
	r.waiting[pid] = status
	return pid, status, nil
}

// signalGroup sends a signal to a command and the children in its process group.
// It reports false where the command has ended: its PID may be another's by now.
func (r *reaper) signalGroup(pid int, s syscall.Signal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiting[pid]; !ok {
		return false
	}
	return syscall.Kill(-pid, s) == nil
}
