package sandboxd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/process"
	"github.com/sandman-proxy/sandman/internal/sandboxd/freezer"
	"github.com/sandman-proxy/sandman/internal/sandboxd/proctree"
)

// ticker counts in memory and writes its PID and count twenty times a second.
func ticker(file string) string {
	return fmt.Sprintf(`n=0; while :; do n=$((n+1)); echo $BASHPID $n >> %s; sleep 0.05; done`, file)
}

// forModes runs a test with each way of pausing.
func forModes(t *testing.T, test func(t *testing.T, h *testHost)) {
	for _, m := range modes(t) {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			test(t, openHost(t, sandboxd.Config{Freezer: m}))
		})
	}
}

func TestPause_freezesTheWholeTreeAndNothingIsLost(t *testing.T) {
	t.Parallel()
	forModes(t, func(t *testing.T, h *testHost) {
		id := h.new(t)
		// a command, its child, a daemon that has left session and parent, and what
		// has many children at once
		pid := h.start(t, id, ticker("plain"))
		h.start(t, id, "("+ticker("child")+") & wait")
		h.start(t, id, "setsid -f bash -c '"+ticker("daemon")+"' >/dev/null 2>&1")
		h.start(t, id, `while :; do for i in 1 2 3 4 5; do (echo x >> forks) & done; wait; sleep 0.01; done`)
		var files []string
		for _, name := range []string{"plain", "child", "daemon", "forks"} {
			files = append(files, filepath.Join(h.home(id), name))
			eventually(t, name+" to tick", func() bool { return lines(t, files[len(files)-1]) > 3 })
		}

		h.pause(t, id)
		still(t, files...)
		before := lines(t, files[0])

		h.connect(t, id)
		for _, f := range files {
			was := lines(t, f)
			eventually(t, f+" to go on", func() bool { return lines(t, f) > was+2 })
		}
		// neither the process nor its memory is a new one
		b, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		all := strings.Split(strings.TrimSpace(string(b)), "\n")
		if want := fmt.Sprintf("%d %d", pid, before+1); all[before] != want {
			t.Errorf("line %d is %q, want %q", before, all[before], want)
		}
	})
}

func TestPause_ofASandboxThatForksWithoutEnd(t *testing.T) {
	t.Parallel()
	forModes(t, func(t *testing.T, h *testHost) {
		id := h.new(t)
		h.start(t, id, `f() { while :; do /bin/true; done; }; for i in 1 2 3 4; do f & done; wait`)
		for range 10 {
			h.pause(t, id)
			l, err := h.Lookup(id)
			if err != nil || l.State != sandboxd.StatePaused {
				t.Fatalf("got %v, %v", l.State, err)
			}
			h.connect(t, id)
		}
	})
}

func TestPause_showsNoShellAStoppedJob(t *testing.T) {
	t.Parallel()
	forModes(t, func(t *testing.T, h *testHost) {
		id := h.new(t)
		req := bash("")
		req.Process.Args = []string{"--norc", "-i"}
		req.Pty = &process.PTY{Size: &process.PTY_Size{Cols: 80, Rows: 24}}
		stream, err := h.processes(id).Start(t.Context(), connect.NewRequest(req))
		if err != nil || !stream.Receive() {
			t.Fatal(err, stream.Err())
		}
		pid := stream.Msg().GetEvent().GetStart().GetPid()
		input := func(s string) {
			_, err := h.processes(id).SendInput(t.Context(), connect.NewRequest(&process.SendInputRequest{
				Process: &process.ProcessSelector{Selector: &process.ProcessSelector_Pid{Pid: pid}},
				Input:   &process.ProcessInput{Input: &process.ProcessInput_Pty{Pty: []byte(s)}},
			}))
			if err != nil {
				t.Fatal(err)
			}
		}
		input("touch began; sleep 1; echo RE''ADY; exit\n")
		eventually(t, "the job to begin", func() bool { _, err := os.Stat(filepath.Join(h.home(id), "began")); return err == nil })
		for range 20 {
			h.pause(t, id)
			h.connect(t, id)
		}
		var out strings.Builder
		for stream.Receive() {
			out.Write(stream.Msg().GetEvent().GetData().GetPty())
		}
		if err := stream.Err(); err != nil {
			t.Fatal(err)
		}
		if s := out.String(); strings.Contains(s, "Stopped") || !strings.Contains(s, "READY") {
			t.Errorf("the terminal shows %q", s)
		}
	})
}

func TestResume_leavesAloneWhatTheUserHadStopped(t *testing.T) {
	t.Parallel()
	forModes(t, func(t *testing.T, h *testHost) {
		id := h.new(t)
		pid, err := strconv.Atoi(strings.TrimSpace(h.run(t, id, `sleep 600 >/dev/null 2>&1 & kill -STOP $!; echo $!`)))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "it to stop", func() bool { p, err := proctree.Get(pid); return err == nil && p.Stopped })
		h.pause(t, id)
		h.connect(t, id)
		if p, err := proctree.Get(pid); err != nil || !p.Stopped {
			t.Errorf("got %+v, %v", p, err)
		}
	})
}

func TestKill_endsTheWholeTree(t *testing.T) {
	t.Parallel()
	for _, paused := range []bool{false, true} {
		t.Run(fmt.Sprintf("paused=%v", paused), func(t *testing.T) {
			t.Parallel()
			forModes(t, func(t *testing.T, h *testHost) {
				id := h.new(t)
				h.start(t, id, ticker("tick"))
				h.start(t, id, "setsid -f sleep 600 >/dev/null 2>&1; touch done")
				eventually(t, "the daemon", func() bool { _, err := os.Stat(filepath.Join(h.home(id), "done")); return err == nil })
				if paused {
					h.pause(t, id)
				}
				members, err := proctree.WithEnv("E2B_SANDBOX_ID=" + id)
				if err != nil || len(members) < 3 {
					t.Fatalf("got %v, %v", members, err)
				}
				if err := h.Kill(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				for _, pid := range members {
					// an orphan may wait for init to collect it
					if p, err := proctree.Get(pid); err == nil && !p.Dead {
						t.Errorf("process %d lives", pid)
					}
				}
				if _, err := os.Stat(h.home(id)); !os.IsNotExist(err) {
					t.Errorf("the home is left: %v", err)
				}
				if dirs, _ := filepath.Glob("/sys/fs/cgroup/*/sandboxd-" + id); dirs != nil {
					t.Errorf("left: %v", dirs)
				}
				if err := h.Kill(t.Context(), id); !e2b.IsNotFound(err) {
					t.Errorf("second kill: %v", err)
				}
			})
		})
	}
}

func TestEnvd_leavesNoZombies(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	id := h.new(t)
	for range 20 {
		h.run(t, id, "(sleep 0.01 &) ; (setsid true &)")
	}
	pids, err := proctree.WithEnv("E2B_SANDBOX_ID=" + id)
	if err != nil || len(pids) == 0 {
		t.Fatal(pids, err)
	}
	eventually(t, "all to be collected", func() bool {
		all, err := proctree.List()
		if err != nil {
			t.Fatal(err)
		}
		return len(proctree.Descendants(all, pids[0])) == 1
	})
}

func TestCommandTimeout_countsTheTimeAwake(t *testing.T) {
	t.Parallel()
	forModes(t, func(t *testing.T, h *testHost) {
		id := h.new(t)
		req := connect.NewRequest(bash("touch began; sleep 600"))
		req.Header().Set("Connect-Timeout-Ms", "600")
		// on the sandbox's own address: the RPC client would count as well
		stream, err := h.processes(id).Start(t.Context(), req)
		if err != nil || !stream.Receive() {
			t.Fatal(err, stream.Err())
		}
		h.pause(t, id)
		time.Sleep(700 * time.Millisecond) // asleep for longer than the timeout
		resumed := time.Now()
		h.connect(t, id)
		for stream.Receive() {
		}
		if code := connect.CodeOf(stream.Err()); code != connect.CodeDeadlineExceeded {
			t.Errorf("got %v", stream.Err())
		}
		if d := time.Since(resumed); d < 400*time.Millisecond {
			t.Errorf("ended %v after the resume", d)
		}
	})
}

// echo starts the echo server in a sandbox.
func (h *testHost) echo(t *testing.T, id string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h.start(t, id, "exec "+self+" echo")
	for _, port := range []uint16{8080, 8081} {
		eventually(t, "the port to open", func() bool {
			c, err := h.DialContext(t.Context(), id, port)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
}

func TestPause_keepsConnections(t *testing.T) {
	t.Parallel()
	forModes(t, func(t *testing.T, h *testHost) {
		id := h.new(t)
		h.echo(t, id)
		c, err := h.DialContext(t.Context(), id, 8080)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		say(t, c, "before")
		h.pause(t, id)
		if _, err := io.WriteString(c, "asleep"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.DialContext(t.Context(), id, 8080); !errors.Is(err, sandboxd.ErrNotRunning) {
			t.Errorf("dialling a paused one: %v", err)
		}
		h.connect(t, id)
		hear(t, c, "asleep")
		say(t, c, "after")
	})
}

func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
	hear(t, c, s)
}

func hear(t *testing.T, c net.Conn, s string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
		t.Fatalf("heard %q, %v, want %q", b, err, s)
	}
}

func TestPause_withoutMemoryKeepsTheFiles(t *testing.T) {
	t.Parallel()
	forModes(t, func(t *testing.T, h *testHost) {
		id := h.new(t)
		h.start(t, id, ticker("tick"))
		h.run(t, id, "echo kept > file")
		if status, body := h.call(t, "POST", "/sandboxes/"+id+"/pause", `{"memory":false}`); status != 204 {
			t.Fatal(status, body)
		}
		if pids, err := proctree.WithEnv("E2B_SANDBOX_ID=" + id); err != nil || len(pids) > 0 {
			t.Errorf("processes are left: %v, %v", pids, err)
		}
		h.connect(t, id)
		if got := h.run(t, id, "cat file"); got != "kept\n" {
			t.Errorf("got %q", got)
		}
	})
}

// TestStorm has many callers pause and connect one sandbox at once. Whatever the
// order, each answer must be one that the API knows, and the end be consistent.
func TestStorm_ofPausesAndConnects(t *testing.T) {
	t.Parallel()
	forModes(t, func(t *testing.T, h *testHost) {
		id := h.new(t)
		h.start(t, id, ticker("tick"))
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for range 15 {
					if i%2 == 0 {
						if err := h.Client.Pause(t.Context(), id); err != nil && !e2b.IsConflict(err) {
							t.Errorf("pause: %v", err)
						}
					} else if _, _, err := h.Connect(t.Context(), id, time.Minute); err != nil {
						t.Errorf("connect: %v", err)
					}
				}
			})
		}
		wg.Wait()
		h.connect(t, id)
		before := lines(t, filepath.Join(h.home(id), "tick"))
		eventually(t, "the command to go on", func() bool { return lines(t, filepath.Join(h.home(id), "tick")) > before })
		h.inOrder(t, id)
	})
}

// inOrder checks that running and paused were reported in turn.
func (h *testHost) inOrder(t *testing.T, id string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	last := ""
	for _, c := range h.changes {
		if strings.HasPrefix(c, id) && c == last {
			t.Errorf("%s was reported twice in a row", c)
		}
		last = c
	}
}

func TestPause_isCarriedOutWhoeverLeaves(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{Faults: sandboxd.Faults{PauseDelay: 200 * time.Millisecond, ResumeDelay: 200 * time.Millisecond}})
	id := h.new(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := h.Client.Pause(ctx, id); err == nil {
		t.Error("the pause took no time")
	}
	h.await(t, id, sandboxd.StatePaused)
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := h.Connect(ctx, id, time.Minute); err == nil {
		t.Error("the resume took no time")
	}
	// joins the one that was left
	if _, resumed, err := h.Connect(t.Context(), id, time.Minute); err != nil || !resumed {
		t.Errorf("got %v, %v", resumed, err)
	}
}

func TestEnvdsDeathEndsTheSandbox(t *testing.T) {
	t.Parallel()
	forModes(t, func(t *testing.T, h *testHost) {
		id := h.new(t)
		h.start(t, id, ticker("tick"))
		if err := syscall.Kill(envdOf(t, h.dir, id), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		h.await(t, id, sandboxd.StateKilled)
		if _, err := h.Get(t.Context(), id); !e2b.IsNotFound(err) {
			t.Errorf("got %v", err)
		}
		eventually(t, "its children to end", func() bool {
			left, err := proctree.WithEnv("E2B_SANDBOX_ID=" + id)
			return err == nil && len(left) == 0
		})
	})
}

func TestManySandboxesAtOnce(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	const n = 50
	ids := make([]string, n)
	each := func(what string, f func(i int) error) {
		start := time.Now()
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				if err := f(i); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		wg.Wait()
		t.Logf("%s of %d at once: %v", what, n, time.Since(start))
	}
	each("create", func(i int) error {
		timeout := int32(600)
		sb, err := h.Create(t.Context(), e2b.NewSandbox{TemplateID: "base", Timeout: &timeout})
		ids[i] = sb.SandboxID
		return err
	})
	each("pause", func(i int) error { return h.Client.Pause(t.Context(), ids[i]) })
	each("connect", func(i int) error { _, _, err := h.Connect(t.Context(), ids[i], time.Hour); return err })
	addrs := map[string]bool{}
	for _, id := range ids {
		l, err := h.Lookup(id)
		if err != nil || addrs[l.Addr(8080).String()] {
			t.Errorf("%s: %v, %v", id, l, err)
		}
		addrs[l.Addr(8080).String()] = true
	}
	each("kill", func(i int) error { return h.Kill(t.Context(), ids[i]) })
}

func BenchmarkSandbox(b *testing.B) {
	for _, m := range []freezer.Mode{freezer.ModeAuto, freezer.ModeSignal} {
		b.Run(string(m), func(b *testing.B) {
			h := openHost(b, sandboxd.Config{Freezer: m})
			b.Run("create and kill", func(b *testing.B) {
				for b.Loop() {
					if err := h.Kill(b.Context(), h.new(b)); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("pause and connect", func(b *testing.B) {
				id := h.new(b)
				for b.Loop() {
					h.pause(b, id)
					h.connect(b, id)
				}
			})
		})
	}
}
