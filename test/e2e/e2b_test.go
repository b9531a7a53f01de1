package e2e_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	apiKey  = "e2b_0000000000000000000000000000000000000000"
	appPort = 8080
)

// e2b speaks to an E2B API and its data plane as an SDK does: Sandman's, or straight a sandboxd's.
type e2b struct {
	api  string // the REST API's base
	data string // the data plane's
	http *http.Client

	accessToken string // of the daemons of sandboxes that were made secure
}

// newE2B returns a client for which every name leads to data's address, as *.localhost does in a
// browser. It follows no redirect, since none is ours to follow.
func newE2B(api, data string) *e2b {
	transport := &http.Transport{
		DialContext:         dialTo(strings.TrimPrefix(data, "http://")),
		MaxIdleConnsPerHost: 256,
		DisableCompression:  true,
	}
	return &e2b{api: api, data: data, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// answer is a response whose body has been read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string {
	return fmt.Sprintf("%d %s %q", a.status, a.header.Get("Content-Type"), a.body[:min(len(a.body), 500)])
}

// decode reads the body as JSON into v.
func (a answer) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("reading %s: %v", a, err)
	}
}

// do sends a request to wherever its host leads and reads the answer. Safe in any goroutine.
func (e *e2b) do(r *http.Request) (answer, error) {
	res, err := e.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, fmt.Errorf("reading the body of %s %s (%d): %w", r.Method, r.URL, res.StatusCode, err)
	}
	return answer{res.StatusCode, withTrailer(res), string(body)}, nil
}

// withTrailer gives the header of a response whose body was read to its end, with the trailer.
func withTrailer(res *http.Response) http.Header {
	maps.Copy(res.Header, res.Trailer)
	return res.Header
}

// lastByte is when the app was about to send the last byte of a slow answer.
func (a answer) lastByte(t *testing.T) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, a.header.Get("Last-Byte"))
	if err != nil {
		t.Fatalf("when the last byte was sent: %v", err)
	}
	return at
}

// mustDo is do for a test that can't go on without an answer.
func (e *e2b) mustDo(t *testing.T, r *http.Request) answer {
	t.Helper()
	a, err := e.do(r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// rest calls the E2B REST API; body may be "".
func (e *e2b) rest(t *testing.T, method, path, body string) answer {
	t.Helper()
	r := newRequest(t, method, e.api+path, strings.NewReader(body))
	r.Header.Set("X-API-Key", apiKey)
	r.Header.Set("Content-Type", "application/json")
	return e.mustDo(t, r)
}

// create makes a sandbox and returns its ID.
func (e *e2b) create(t *testing.T) string {
	t.Helper()
	a := e.rest(t, http.MethodPost, "/sandboxes", `{"templateID":"base","timeout":300}`)
	if a.status != http.StatusCreated {
		t.Fatalf("creating a sandbox: %s", a)
	}
	var created struct {
		SandboxID string `json:"sandboxID"`
	}
	a.decode(t, &created)
	return created.SandboxID
}

// state is the E2B API's word on a sandbox: "running", "paused", or "" where it knows none.
func (e *e2b) state(t *testing.T, id string) string {
	t.Helper()
	a := e.rest(t, http.MethodGet, "/sandboxes/"+id, "")
	if a.status == http.StatusNotFound {
		return ""
	}
	var detail struct {
		State string `json:"state"`
	}
	a.decode(t, &detail)
	return detail.State
}

// killAll ends every sandbox of the host, so that no process of a test outlives it.
func (e *e2b) killAll(t *testing.T) {
	t.Helper()
	var listed []struct {
		SandboxID string `json:"sandboxID"`
	}
	e.rest(t, http.MethodGet, "/v2/sandboxes?state=running,paused", "").decode(t, &listed)
	for _, sb := range listed {
		if a := e.rest(t, http.MethodDelete, "/sandboxes/"+sb.SandboxID, ""); a.status != http.StatusNoContent && a.status != http.StatusNotFound {
			t.Errorf("killing sandbox %s: %s", sb.SandboxID, a)
		}
	}
}

// request makes a request for a port of a sandbox, by its name.
func (e *e2b) request(ctx context.Context, method, id string, port int, path string, body io.Reader) *http.Request {
	host := fmt.Sprintf("%d-%s.localhost", port, id)
	if i := strings.LastIndexByte(e.data, ':'); i > len("http:") {
		host += e.data[i:]
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, body)
	if err != nil {
		panic(err) // the tests' own URLs
	}
	return r
}

// envd calls the sandbox's own daemon, by the headers that SDKs send.
func (e *e2b) envd(t *testing.T, id, path, contentType string, body io.Reader) answer {
	t.Helper()
	r := newRequest(t, http.MethodPost, e.data+path, body)
	r.Header.Set("E2b-Sandbox-Id", id)
	r.Header.Set("E2b-Sandbox-Port", "49983")
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Connect-Protocol-Version", "1")
	if e.accessToken != "" {
		r.Header.Set("X-Access-Token", e.accessToken)
	}
	return e.mustDo(t, r)
}

// run carries out a shell command in the sandbox and returns its standard output.
func (e *e2b) run(t *testing.T, id, command string) string {
	t.Helper()
	message, _ := json.Marshal(map[string]any{
		"process": map[string]any{"cmd": "/bin/sh", "args": []string{"-c", command}},
		"stdin":   false,
	})
	a := e.envd(t, id, "/process.Process/Start", "application/connect+json", bytes.NewReader(envelope(message)))
	out, err := processOutput(a.body)
	if a.status != http.StatusOK || err != nil {
		t.Fatalf("running %q in sandbox %s: %v; %s", command, id, err, a)
	}
	return out
}

// envelope frames one message of a Connect stream.
func envelope(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// processOutput reads the events of a process's stream, and fails unless it exited with 0.
func processOutput(stream string) (string, error) {
	var out strings.Builder
	var exited bool
	for rest := []byte(stream); len(rest) >= 5; {
		end := 5 + int(binary.BigEndian.Uint32(rest[1:]))
		if end > len(rest) {
			return "", errors.New("a frame is cut off")
		}
		var frame processFrame
		if err := json.Unmarshal(rest[5:end], &frame); err != nil {
			return "", fmt.Errorf("reading frame %q: %w", rest[5:end], err)
		}
		if frame.Error != nil || frame.Event.End.ExitCode != 0 {
			return "", fmt.Errorf("it ended with %s; output %q", rest[5:end], out.String())
		}
		out.Write(frame.Event.Data.Stdout)
		exited = exited || frame.Event.End.Exited
		rest = rest[end:]
	}
	if !exited {
		return "", errors.New("the stream ended before the process")
	}
	return out.String(), nil
}

type processFrame struct {
	Event struct {
		Data struct {
			Stdout []byte `json:"stdout"`
		} `json:"data"`
		End struct {
			ExitCode int  `json:"exitCode"`
			Exited   bool `json:"exited"`
		} `json:"end"`
	} `json:"event"`
	Error *struct {
		Code string `json:"code"`
	} `json:"error"`
}

// appState is what the app in a sandbox says of itself.
type appState struct {
	Pid     int    `json:"pid"`
	Home    string `json:"home"`
	Counter int64  `json:"counter"`
	Ticks   int64  `json:"ticks"`
	Memory  string `json:"memory"`
	Lines   int64  `json:"lines"`
}

// startApp starts the app in the sandbox, detached from the command that starts it, and returns its
// first state.
func (e *e2b) startApp(t *testing.T, id string) appState {
	t.Helper()
	e.run(t, id, "setsid "+appBinary+" >app.log 2>&1 </dev/null &")
	var first appState
	eventually(t, readyWithin, "an answer of the app in sandbox "+id, func() bool {
		a, err := e.do(e.request(t.Context(), http.MethodGet, id, appPort, "/state", nil))
		return err == nil && a.status == http.StatusOK && json.Unmarshal([]byte(a.body), &first) == nil
	})
	return first
}

// ask sends GET /state to the app. Safe in any goroutine.
func (e *e2b) ask(ctx context.Context, id string) (appState, error) {
	a, err := e.do(e.request(ctx, http.MethodGet, id, appPort, "/state", nil))
	if err != nil {
		return appState{}, err
	}
	var s appState
	if err := json.Unmarshal([]byte(a.body), &s); err != nil || a.status != http.StatusOK {
		return appState{}, fmt.Errorf("not an answer of the app: %s", a)
	}
	return s, nil
}

// mustAsk is ask for a test that can't go on without.
func (e *e2b) mustAsk(t *testing.T, id string) appState {
	t.Helper()
	s, err := e.ask(t.Context(), id)
	if err != nil {
		t.Fatalf("asking the app of sandbox %s: %v", id, err)
	}
	return s
}

// requireContinued fails the test unless the app has gone on from before: the same process, memory
// and file, with as many answers in between as said.
func requireContinued(t *testing.T, before, after appState, answers int64) {
	t.Helper()
	want := before
	want.Counter += answers
	want.Lines += answers
	want.Ticks = after.Ticks
	if after != want || after.Ticks < before.Ticks {
		t.Fatalf("the sandbox did not go on as it was:\nbefore %+v\nafter  %+v\nwanted %+v", before, after, want)
	}
}

// newRequest makes a request that a cleanup may send too, when the test's own context has ended.
func newRequest(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sandboxd is a local sandbox host in a process of its own.
type sandboxd struct {
	*e2b
	url     string
	process *process
}

// startSandboxd starts a host with the faults that it is told to have, such as "pause_delay=3s".
func startSandboxd(t *testing.T, faults string) *sandboxd {
	t.Helper()
	s := runSandboxd(t, shortDir(t), faults)
	t.Cleanup(func() { s.killAll(t) })
	return s
}

// runSandboxd runs a host in the folder dir, whose sandboxes are the caller's to end.
func runSandboxd(t *testing.T, dir, faults string) *sandboxd {
	t.Helper()
	port := freePort(t)
	s := &sandboxd{url: local(port), e2b: newE2B(local(port), local(port))}
	s.process = startProcess(t, dir, map[string]string{
		"SANDBOXD_LISTEN": fmt.Sprintf("127.0.0.1:%d", port),
		"SANDBOXD_DATA":   dir + "/data",
		"SANDBOXD_FAULTS": faults,
	}, sandboxdBinary)
	s.process.await(t, func() bool {
		a, err := s.do(newRequest(t, http.MethodGet, s.url+"/health", nil))
		return err == nil && a.status == http.StatusOK
	})
	return s
}
