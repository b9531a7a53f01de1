package e2e_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	readyWithin = 30 * time.Second
	endWithin   = 20 * time.Second
)

// process is a program under test with its output.
type process struct {
	cmd  *exec.Cmd
	log  *logBuffer
	done chan struct{} // closed when it has ended
}

// startProcess starts the program in the folder dir with nothing in its environment but env and
// what every program needs. It is ended at the end of the test, with its output shown if that failed.
func startProcess(t *testing.T, dir string, env map[string]string, program string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, args...), log: &logBuffer{}, done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}
	for name, value := range env {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", program, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is asked of ProcessState
		close(p.done)
	}()
	t.Cleanup(func() { p.end(t) })
	return p
}

// end asks the program to stop, and makes it stop if it doesn't.
func (p *process) end(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails where it has ended, which is as good
	select {
	case <-p.done:
	case <-time.After(endWithin):
		t.Errorf("%s did not stop within %s of SIGTERM", p.cmd.Path, endWithin)
		p.kill()
	}
	p.judge(t)
}

// kill ends the program as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// judge fails the test where the output tells of a panic or a data race, whatever was answered.
func (p *process) judge(t *testing.T) {
	t.Helper()
	for _, bad := range []string{"panic: ", "http: panic serving", "WARNING: DATA RACE", "fatal error: "} {
		if strings.Contains(p.log.String(), bad) {
			t.Errorf("the output of %s has %q in it", filepath.Base(p.cmd.Path), bad)
		}
	}
	if t.Failed() {
		t.Logf("output of %s:\n%s", filepath.Base(p.cmd.Path), p.log.tail(16<<10))
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// await polls until ready says so, and fails the test when the program ends or takes too long.
func (p *process) await(t *testing.T, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(readyWithin); !ready(); time.Sleep(50 * time.Millisecond) {
		if p.ended() || time.Now().After(deadline) {
			t.Fatalf("%s was not ready within %s (ended: %v)", filepath.Base(p.cmd.Path), readyWithin, p.ended())
		}
	}
}

// logBuffer keeps a program's output; it may be read while the program writes.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) tail(n int) string {
	s := b.String()
	return s[max(0, len(s)-n):]
}

// shortDir is t.TempDir with a name that leaves room for a unix socket's path, of which systems
// allow about 100 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sm-") //nolint:usetesting // its name would be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		endProcessesOf(dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing what the test left: %v", err)
		}
	})
	return dir
}

// endProcessesOf ends what still runs in dir: sandboxes whose host was killed by the test. Those of a
// host that ended in peace are gone by then.
func endProcessesOf(dir string) {
	for _, pid := range processesOf(dir) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// processesOf returns the processes, but this one, that have the path dir in their environment or
// on their command line.
func processesOf(dir string) []int {
	entries, _ := filepath.Glob("/proc/[0-9]*")
	var found []int
	for _, entry := range entries {
		pid, _ := strconv.Atoi(filepath.Base(entry))
		environment, _ := os.ReadFile(entry + "/environ")
		arguments, _ := os.ReadFile(entry + "/cmdline")
		if pid != os.Getpid() && (bytes.Contains(environment, []byte(dir)) || bytes.Contains(arguments, []byte(dir))) {
			found = append(found, pid)
		}
	}
	return found
}

// The ports that freePort chooses from are below those that systems give to clients, and to listeners
// that ask for any.
const (
	firstPort = 10_240
	manyPorts = 20_000
)

// nextPort begins anywhere, since other tests may run on the machine.
var nextPort atomic.Int64

func init() { nextPort.Store(rand.Int64N(manyPorts)) }

// freePort returns a port of loopback that nobody listens on, and no other test of this process gets.
// Two Caddys that are told to listen on the same one do so (SO_REUSEPORT), and answer for each other.
func freePort(t *testing.T) int {
	t.Helper()
	for range manyPorts {
		port := firstPort + int(nextPort.Add(1)%manyPorts)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		_ = l.Close()
		return port
	}
	t.Fatal("no port is free")
	return 0
}

// eventually polls until done says so, and fails the test with what was awaited after the limit.
func eventually(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s", limit, what)
		}
	}
}

func local(port int) string {
	return fmt.Sprintf("http://127.0.0.1:%d", port)
}
