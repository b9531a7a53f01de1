package sandboxd_test

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/process"
	"github.com/sandman-proxy/sandman/internal/sandboxd/freezer"
)

// childHost is a host in a process of its own, which can be killed.
type childHost struct {
	*e2b.Client
	url, dir string
	cmd      *exec.Cmd
}

func startChild(t *testing.T, dir string) *childHost {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "host", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url := strings.TrimSpace(line)
	return &childHost{Client: e2b.NewClient(url, sandboxd.DefaultAPIKey, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}), url: url, dir: dir, cmd: cmd}
}

func (h *childHost) kill(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = h.cmd.Wait()
}

func (h *childHost) new(t *testing.T, timeout int32, autoPause bool) string {
	t.Helper()
	sb, err := h.Create(t.Context(), e2b.NewSandbox{TemplateID: "base", Timeout: &timeout, AutoPause: &autoPause, Metadata: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	return sb.SandboxID
}

func TestHost_isKilledAndFindsItsSandboxesAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	child := startChild(t, dir)
	running, asleep, lost := child.new(t, 600, false), child.new(t, 600, false), child.new(t, 600, false)
	lapsing, dying := child.new(t, 1, true), child.new(t, 1, false)
	pid := start(t, processes(child.url, running), ticker("tick"))
	start(t, processes(child.url, asleep), ticker("tick"))
	tick := func(id string) string { return filepath.Join(dir, "sandboxes", id, "home", "tick") }
	eventually(t, "both to tick", func() bool { return lines(t, tick(running)) > 2 && lines(t, tick(asleep)) > 2 })
	if err := child.Pause(t.Context(), asleep); err != nil {
		t.Fatal(err)
	}

	child.kill(t)
	before := lines(t, tick(running))
	eventually(t, "the command to go on without a host", func() bool { return lines(t, tick(running)) > before+2 })
	if err := syscall.Kill(envdOf(t, dir, lost), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // until the lifetimes of two have passed

	h := openHost(t, sandboxd.Config{Dir: dir})
	state := func(id string) e2b.State {
		d, err := h.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if d.Metadata["k"] != "v" {
			t.Errorf("%s: the metadata is lost", id)
		}
		return d.State
	}
	if s := state(running); s != e2b.StateRunning {
		t.Errorf("the running one is %s", s)
	}
	if s := state(asleep); s != e2b.StatePaused {
		t.Errorf("the paused one is %s", s)
	}
	still(t, tick(asleep))
	if _, err := h.Get(t.Context(), lost); !e2b.IsNotFound(err) {
		t.Errorf("the lost one: %v", err)
	}
	if _, err := os.Stat(h.home(lost)); !os.IsNotExist(err) {
		t.Errorf("the lost one's files: %v", err)
	}
	eventually(t, "a lapsed lifetime to end in a pause", func() bool { return state(lapsing) == e2b.StatePaused })
	eventually(t, "a lapsed lifetime to end in a death", func() bool { _, err := h.Get(t.Context(), dying); return e2b.IsNotFound(err) })

	h.followed(t, running, pid)
	h.connect(t, asleep)
	was := lines(t, tick(asleep))
	eventually(t, "the paused one to go on", func() bool { return lines(t, tick(asleep)) > was })
	h.pause(t, running)
	still(t, tick(running))
}

// followed checks that a command of before can still be seen and signalled.
func (h *testHost) followed(t *testing.T, id string, pid int) {
	t.Helper()
	sel := &process.ProcessSelector{Selector: &process.ProcessSelector_Pid{Pid: uint32(pid)}}
	list, err := h.processes(id).List(t.Context(), connect.NewRequest(&process.ListRequest{}))
	if err != nil || len(list.Msg.GetProcesses()) != 1 || int(list.Msg.GetProcesses()[0].GetPid()) != pid {
		t.Errorf("the list: %v, %v", list, err)
	}
	stream, err := h.processes(id).Connect(t.Context(), connect.NewRequest(&process.ConnectRequest{Process: sel}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() || int(stream.Msg().GetEvent().GetStart().GetPid()) != pid {
		t.Errorf("following it: %v", stream.Err())
	}
}

func TestHost_keepsASandboxsWayOfPausing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := openHost(t, sandboxd.Config{Dir: dir, Freezer: freezer.ModeSignal})
	id := a.new(t)
	a.start(t, id, ticker("tick"))
	eventually(t, "it to tick", func() bool { return lines(t, filepath.Join(a.home(id), "tick")) > 2 })
	a.pause(t, id)
	a.leave(t)
	// another way of pausing by default: the sandbox keeps its own
	b := openHost(t, sandboxd.Config{Dir: dir})
	still(t, filepath.Join(b.home(id), "tick"))
	b.connect(t, id)
	was := lines(t, filepath.Join(b.home(id), "tick"))
	eventually(t, "it to go on", func() bool { return lines(t, filepath.Join(b.home(id), "tick")) > was })
}

func TestHost_diesInTheMiddleOfAPause(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := openHost(t, sandboxd.Config{Dir: dir})
	id := a.new(t)
	a.start(t, id, ticker("tick"))
	tick := filepath.Join(a.home(id), "tick")
	eventually(t, "it to tick", func() bool { return lines(t, tick) > 2 })
	a.leave(t)
	record := filepath.Join(dir, "sandboxes", id, "state.json")
	b, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	// in this order: what is frozen stays so for the next
	for _, tt := range []struct {
		state string
		want  sandboxd.State
	}{
		{"pausing", sandboxd.StateRunning},
		{"resuming", sandboxd.StateRunning},
		{"paused", sandboxd.StatePaused},
		{"pausing", sandboxd.StatePaused},
		{"running", sandboxd.StatePaused},
		{"resuming", sandboxd.StateRunning},
	} {
		as := strings.Replace(string(b), `"state":"running"`, `"state":"`+tt.state+`"`, 1)
		if err := os.WriteFile(record, []byte(as), 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := sandboxd.Open(t.Context(), sandboxd.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		l, err := h.Lookup(id)
		if err != nil || l.State != tt.want {
			t.Errorf("after %s: got %v, %v, want %v", tt.state, l.State, err, tt.want)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	openHost(t, sandboxd.Config{Dir: dir}) // its end removes the sandbox
}

func TestOpen_refusesASecondHostInOneFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	child := startChild(t, dir)
	id := child.new(t, 600, false) // its envd must not keep the lock
	if h, err := sandboxd.Open(t.Context(), sandboxd.Config{Dir: dir}); err == nil {
		t.Error("opened twice", h.Close())
	}
	child.kill(t)
	h := openHost(t, sandboxd.Config{Dir: dir})
	if _, err := h.Lookup(id); err != nil {
		t.Error(err)
	}
}

func TestTwoHosts_neverMeet(t *testing.T) {
	t.Parallel()
	dirA := t.TempDir()
	a := startChild(t, dirA)
	idA := a.new(t, 600, false)
	a.kill(t) // its sandbox is left
	b := openHost(t, sandboxd.Config{})
	idB := b.new(t)
	if status, _ := b.visit(t, idA, 49983, "/health"); status != 502 {
		t.Errorf("the other's sandbox answers: %d", status)
	}
	c := openHost(t, sandboxd.Config{Dir: dirA})
	la, errA := c.Lookup(idA)
	lb, errB := b.Lookup(idB)
	if errA != nil || errB != nil || la.Addr(80) == lb.Addr(80) {
		t.Errorf("%v, %v, %v, %v", la, errA, lb, errB)
	}
	// whoever has an old idea of an address is told so
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+la.Addr(49983).String()+"/health", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "49983-" + idB + ".localhost"
	if status, body := do(t, req); status != 502 || !strings.Contains(body, "not found") {
		t.Errorf("got %d %s", status, body)
	}
}
