package sandboxd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/process"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/process/processconnect"
	"github.com/sandman-proxy/sandman/internal/sandboxd/freezer"
)

// TestMain makes this program its own envd, its own host, and a server to run in
// a sandbox.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "envd":
			os.Exit(sandboxd.EnvdMain(os.Args[2:]))
		case "host":
			os.Exit(hostMain(os.Args[2]))
		case "echo":
			os.Exit(echoMain())
		}
	}
	goleak.VerifyTestMain(m)
}

// hostMain serves a host until it is killed, and prints where.
func hostMain(dir string) int {
	h, err := sandboxd.Open(context.Background(), sandboxd.Config{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Printf("http://%s\n", ln.Addr())
	_ = http.Serve(ln, h.Handler())
	return 0
}

// echoMain echoes on a port of the sandbox; it answers HTTP, too, with the Host
// and X-Forwarded-For that it saw.
func echoMain() int {
	ip := os.Getenv("SANDBOX_IP")
	go func() {
		_ = http.ListenAndServe(ip+":8081", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				echoSocket(w, r)
				return
			}
			if r.URL.Path == "/early" {
				rc := http.NewResponseController(w)
				_ = rc.EnableFullDuplex()
				_, _ = io.WriteString(w, "early ")
				_ = rc.Flush()
				_, _ = io.Copy(w, r.Body)
				return
			}
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s %s", r.Host, r.Header.Get("X-Forwarded-For"), r.URL.RequestURI(), body)
		}))
	}()
	ln, err := net.Listen("tcp", ip+":8080")
	if err != nil {
		return 1
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return 1
		}
		go func() { _, _ = io.Copy(c, c) }()
	}
}

// echoSocket echoes the messages of a WebSocket.
func echoSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	for {
		typ, b, err := c.Read(context.Background())
		if err != nil || c.Write(context.Background(), typ, b) != nil {
			return
		}
	}
}

// modes are the ways of pausing that work here.
func modes(t testing.TB) []freezer.Mode {
	if _, err := freezer.Detect(t.Context(), freezer.ModeCgroup); err != nil {
		t.Logf("without cgroups: %v", err)
		return []freezer.Mode{freezer.ModeSignal}
	}
	return []freezer.Mode{freezer.ModeCgroup, freezer.ModeSignal}
}

// testHost is a host with its API on a server.
type testHost struct {
	*sandboxd.Host
	*e2b.Client
	url string
	dir string
	// shut is set by leave: the sandboxes are another host's by then.
	shut bool

	mu      sync.Mutex
	changes []string
	changed chan struct{} // closed at the next change
}

// openHost opens a host, in a folder of its own unless cfg names one, and ends
// it with its sandboxes at the test's end.
func openHost(t testing.TB, cfg sandboxd.Config) *testHost {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	h, err := sandboxd.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h.Handler())
	th := &testHost{Host: h, Client: e2b.NewClient(srv.URL, sandboxd.DefaultAPIKey, nil), url: srv.URL, dir: cfg.Dir, changed: make(chan struct{})}
	h.OnChange(th.note)
	t.Cleanup(func() {
		h.SetFaults(sandboxd.Faults{})
		if !th.shut {
			th.killAll(t)
		}
		srv.CloseClientConnections()
		srv.Close()
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return th
}

// leave closes the host and leaves its sandboxes.
func (h *testHost) leave(t testing.TB) {
	t.Helper()
	h.shut = true
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}

func (h *testHost) killAll(t testing.TB) {
	left, err := h.List(context.Background())
	if err != nil {
		t.Error(err)
	}
	for _, s := range left {
		if err := h.Kill(context.Background(), s.SandboxID); err != nil && !e2b.IsNotFound(err) {
			t.Error(err)
		}
	}
}

func (h *testHost) note(id string, s sandboxd.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes = append(h.changes, id+" "+string(s))
	close(h.changed)
	h.changed = make(chan struct{})
}

// await waits until a sandbox has become something.
func (h *testHost) await(t testing.TB, id string, s sandboxd.State) {
	t.Helper()
	end := time.After(10 * time.Second)
	for {
		h.mu.Lock()
		seen, changed := slices.Contains(h.changes, id+" "+string(s)), h.changed
		h.mu.Unlock()
		if seen {
			return
		}
		select {
		case <-changed:
		case <-end:
			t.Fatalf("%s did not become %s", id, s)
		}
	}
}

// new creates a sandbox with a long life.
func (h *testHost) new(t testing.TB) string {
	t.Helper()
	timeout := int32(600)
	sb, err := h.Create(t.Context(), e2b.NewSandbox{TemplateID: "base", Timeout: &timeout})
	if err != nil {
		t.Fatal(err)
	}
	return sb.SandboxID
}

func (h *testHost) pause(t testing.TB, id string) {
	t.Helper()
	if err := h.Client.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func (h *testHost) connect(t testing.TB, id string) {
	t.Helper()
	if _, _, err := h.Connect(t.Context(), id, 10*time.Minute); err != nil {
		t.Fatal(err)
	}
}

// home is where a sandbox's files are.
func (h *testHost) home(id string) string { return filepath.Join(h.dir, "sandboxes", id, "home") }

// call makes a raw call of the API.
func (h *testHost) call(t testing.TB, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, h.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = -1 // in chunks, as the SDKs send it
	req.Header.Set("X-API-Key", sandboxd.DefaultAPIKey)
	return do(t, req)
}

// visit makes a request to a sandbox's port.
func (h *testHost) visit(t testing.TB, id string, port int, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = fmt.Sprintf("%d-%s.localhost", port, id)
	return do(t, req)
}

func do(t testing.TB, req *http.Request) (int, string) {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// processes is the RPC of a sandbox, as the SDKs speak it.
func (h *testHost) processes(id string) processconnect.ProcessClient {
	return processes(h.url, id)
}

func processes(url, id string) processconnect.ProcessClient {
	hc := &http.Client{Transport: headerTransport{id}}
	return processconnect.NewProcessClient(hc, url, connect.WithProtoJSON())
}

type headerTransport struct{ id string }

func (t headerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(e2b.HeaderSandboxID, t.id)
	r.Header.Set(e2b.HeaderSandboxPort, "49983")
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
}

// start starts a shell command in the background and returns its PID; the
// stream is left, the command goes on.
func (h *testHost) start(t testing.TB, id, script string) int {
	t.Helper()
	return start(t, h.processes(id), script)
}

func start(t testing.TB, c processconnect.ProcessClient, script string) int {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := c.Start(ctx, connect.NewRequest(bash(script)))
	if err != nil {
		t.Fatal(err)
	}
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	pid := stream.Msg().GetEvent().GetStart().GetPid()
	cancel()
	_ = stream.Close()
	return int(pid)
}

func bash(script string) *process.StartRequest {
	no := false
	return &process.StartRequest{Process: &process.ProcessConfig{Cmd: "/bin/bash", Args: []string{"-c", script}}, Stdin: &no}
}

// run runs a shell command to its end and returns its output.
func (h *testHost) run(t testing.TB, id, script string) string {
	t.Helper()
	stream, err := h.processes(id).Start(t.Context(), connect.NewRequest(bash(script)))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var out bytes.Buffer
	for stream.Receive() {
		out.Write(stream.Msg().GetEvent().GetData().GetStdout())
	}
	if err := stream.Err(); err != nil {
		t.Fatalf("running %q: %v", script, err)
	}
	return out.String()
}

// eventually waits for what the sandbox does by itself, in a file.
func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !check(); {
		if time.Now().After(end) {
			t.Fatalf("timed out: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// lines counts what a ticker has written.
func lines(t testing.TB, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}

// still fails if something ticks within five of its periods. That nothing happens
// is not an event: here time has to pass.
func still(t testing.TB, paths ...string) {
	t.Helper()
	var before []int
	for _, p := range paths {
		before = append(before, lines(t, p))
	}
	time.Sleep(250 * time.Millisecond)
	for i, p := range paths {
		if n := lines(t, p); n != before[i] {
			t.Errorf("%s has gone on from %d to %d lines", filepath.Base(p), before[i], n)
		}
	}
}

// errorCode is the code in an error body of the API.
func errorCode(t testing.TB, body string) int {
	t.Helper()
	var e struct{ Code int }
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Errorf("no error body: %q", body)
	}
	return e.Code
}

// envdOf is the PID of a sandbox's envd.
func envdOf(t testing.TB, dir, id string) int {
	t.Helper()
	var rec struct{ Process struct{ PID int } }
	b, err := os.ReadFile(filepath.Join(dir, "sandboxes", id, "state.json"))
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if err != nil || rec.Process.PID == 0 {
		t.Fatalf("no process of %s: %v", id, err)
	}
	return rec.Process.PID
}
