package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process that has used up its file descriptors neither ends nor loses what it keeps, and goes on as
// soon as some are free.
func TestBadDay_noFileDescriptorsLeft(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: clusterIdle})
	id, before := s.startAppIn(t)
	s.limitFiles(t, 8)
	crowd := make([]net.Conn, 0, 64)
	for range cap(crowd) { // the kernel accepts them, Sandman can't
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		crowd = append(crowd, conn)
	}
	eventually(t, late, "a complaint", func() bool { return strings.Contains(s.process.log.String(), "too many open files") })
	time.Sleep(clusterIdle + time.Second) // the sandbox is due meanwhile, and may sleep
	if s.process.ended() {
		t.Fatal("it has ended")
	}
	for _, conn := range crowd {
		_ = conn.Close()
	}
	requireContinued(t, before, s.mustAsk(t, id), 1)
	if a := s.call(t, http.MethodGet, "/status", ""); !strings.Contains(a.body, `"status":"ok"`) {
		t.Errorf("afterwards the status is %s", a)
	}
	s.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	requireContinued(t, before, s.mustAsk(t, id), 2)
}

// limitFiles leaves the process that many file descriptors beyond those that it has.
func (s *sandman) limitFiles(t *testing.T, more int) {
	t.Helper()
	pid := s.process.cmd.Process.Pid
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	limit := unix.Rlimit{Cur: uint64(len(open) + more), Max: uint64(len(open) + more)}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
}
