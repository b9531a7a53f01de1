package sandboxd_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
)

func TestParseFaults(t *testing.T) {
	t.Parallel()
	want := sandboxd.Faults{PauseDelay: 3 * time.Second, PauseFail: 0.1, KillOnPause: 1, CutConnections: true, MaxRun: time.Hour}
	got, err := sandboxd.ParseFaults(" pause_delay=3s, cut_connections,pause_fail=0.1,kill_on_pause,max_run=1h,")
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"nonsense", "pause_fail=2", "pause_fail=x", "pause_delay", "pause_delay=-1s", "cut_connections=1"} {
		if f, err := sandboxd.ParseFaults(bad); err == nil {
			t.Errorf("%q: got %+v", bad, f)
		}
	}
}

// status is the HTTP status of an error of the API, 0 for none.
func status(err error) int {
	if e, ok := errors.AsType[*e2b.Error](err); ok {
		return e.Status
	}
	return 0
}

func TestFaults_ofCalls(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	pause := func(id string) error { return h.Client.Pause(t.Context(), id) }
	connect := func(id string) error { _, _, err := h.Connect(t.Context(), id, time.Minute); return err }
	tests := []struct {
		faults string
		paused bool // before the call
		call   func(id string) error
		status int
		then   sandboxd.State
	}{
		{"pause_fail", false, pause, 500, sandboxd.StateRunning},
		{"pause_fail_after", false, pause, 500, sandboxd.StatePaused},
		{"conflict", false, pause, 409, sandboxd.StateRunning},
		{"kill_on_pause", false, pause, 500, ""},
		{"connect_fail", true, connect, 503, sandboxd.StatePaused},
		{"connect_fail", false, connect, 503, sandboxd.StateRunning},
		{"pause_fail=0,connect_fail=0", false, pause, 0, sandboxd.StatePaused},
	}
	for _, tt := range tests {
		h.SetFaults(sandboxd.Faults{})
		id := h.new(t)
		if tt.paused {
			h.pause(t, id)
		}
		f, err := sandboxd.ParseFaults(tt.faults)
		if err != nil {
			t.Fatal(err)
		}
		h.SetFaults(f)
		if err := tt.call(id); status(err) != tt.status {
			t.Errorf("%s: got %v", tt.faults, err)
		}
		if l, err := h.Lookup(id); l.State != tt.then || (err != nil) != (tt.then == "") {
			t.Errorf("%s: then %q, %v", tt.faults, l.State, err)
		}
	}
}

func TestFaults_latePause(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{Faults: sandboxd.Faults{LatePause: 300 * time.Millisecond}})
	id := h.new(t)
	done := make(chan error, 1)
	go func() { done <- h.Client.Pause(t.Context(), id) }()
	// meanwhile all is as before, and a connect is no reason for it not to land
	if _, resumed, err := h.Connect(t.Context(), id, time.Hour); err != nil || resumed {
		t.Errorf("got %v, %v", resumed, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if l, err := h.Lookup(id); err != nil || l.State != sandboxd.StatePaused {
		t.Errorf("got %v, %v", l.State, err)
	}
}

func TestFaults_cutConnections(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{Faults: sandboxd.Faults{CutConnections: true}})
	id := h.new(t)
	h.echo(t, id)
	c, err := h.DialContext(t.Context(), id, 8080)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say(t, c, "before")
	h.pause(t, id)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v: the connection was kept, or closed in peace", n, err)
	}
}

func TestFaults_maxRun(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{Faults: sandboxd.Faults{MaxRun: 2 * time.Second}})
	long, short, yes := int32(3), int32(1), true
	if _, err := h.Create(t.Context(), e2b.NewSandbox{TemplateID: "base", Timeout: &long}); status(err) != 400 {
		t.Errorf("got %v", err)
	}
	sb, err := h.Create(t.Context(), e2b.NewSandbox{TemplateID: "base", Timeout: &short, AutoPause: &yes})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Connect(t.Context(), sb.SandboxID, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	d, err := h.Get(t.Context(), sb.SandboxID)
	if err != nil || d.EndAt.Sub(d.StartedAt) != 2*time.Second {
		t.Errorf("lives for %v, %v", d.EndAt.Sub(d.StartedAt), err)
	}
	h.await(t, sb.SandboxID, sandboxd.StatePaused)
}
