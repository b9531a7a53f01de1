package demo_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sandman-proxy/sandman/internal/demo"
)

func TestMain(m *testing.M) {
	// Go's server waits for 500 ms before it closes the connection of a body that is too large
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// sandboxID is the sandbox that the tests' editors believe to be in.
const sandboxID = "itest0123456789abcdef"

// editor is one under test, on a port of its own.
type editor struct {
	url  string
	home string
	stop func() // ends it; also done at the end of the test
}

// start runs an editor on the home folder, "" for a new one.
func start(t *testing.T, home string) *editor {
	t.Helper()
	if home == "" {
		home = t.TempDir()
	}
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- demo.Run(ctx, demo.Config{IP: "127.0.0.1", Home: home, SandboxID: sandboxID}, w)
		w.Close()
	}()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the editor ended with %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	}
	t.Cleanup(stop)
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("the editor does not listen: %v", <-done)
	}
	url := strings.TrimSpace(strings.TrimPrefix(line, demo.Listening))
	return &editor{url: url, home: home, stop: stop}
}

// answer is one of the editor.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %q", a.status, a.body) }

// do sends a request, with headers in pairs. The header Host is the request's.
func (e *editor) do(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, e.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{status: res.StatusCode, header: res.Header, body: string(b)}
}

// want fails the test unless the answer has the status.
func (a answer) want(t *testing.T, status int) answer {
	t.Helper()
	if a.status != status {
		t.Errorf("wanted status %d, got %s", status, a)
	}
	return a
}

// state is what the tests read of the editor's state.
type state struct {
	Pid       int       `json:"pid"`
	StartedAt time.Time `json:"startedAt"`
	Memory    int       `json:"memory"`
	Disk      *struct {
		Count     int       `json:"count"`
		StartedAt time.Time `json:"startedAt"`
	} `json:"disk"`
	Napped int `json:"napped"`
}

func (a answer) state(t *testing.T) state {
	t.Helper()
	var s state
	if err := json.Unmarshal([]byte(a.body), &s); err != nil || a.status != http.StatusOK {
		t.Fatalf("no state: %s", a)
	}
	return s
}

func (e *editor) file(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(e.home, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (e *editor) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(e.home, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
