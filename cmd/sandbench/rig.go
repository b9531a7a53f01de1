package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/process"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/process/processconnect"
)

const benchToken = "sandbench"

// rig is a Sandman and a host of sandboxes, each a process of its own.
type rig struct {
	dir     string
	sandman *exec.Cmd
	hostd   *exec.Cmd
	records bool   // the host has no processes, see recordsCommand
	base    string // http://127.0.0.1:port of Sandman
	hostURL string
	host    *e2b.Client
	e2b     *e2b.Client // the host's API through Sandman
	client  *http.Client
	made    []string
}

// newRig builds and starts the programs; env is added to both of theirs.
func newRig(ctx context.Context, env ...string) (*rig, error) {
	return buildRig(ctx, &rig{client: newClient()}, env)
}

// newRecordsRig is the same with a host whose sandboxes have no processes.
func newRecordsRig(ctx context.Context, env ...string) (*rig, error) {
	return buildRig(ctx, &rig{client: newClient(), records: true}, env)
}

func buildRig(ctx context.Context, r *rig, env []string) (_ *rig, err error) {
	if r.dir, err = os.MkdirTemp("", "sandbench"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, fmt.Errorf("run sandbench in the project's folder: %w", err)
	}
	fmt.Fprintln(os.Stderr, "building sandman and sandboxd…")
	build := exec.CommandContext(ctx, "go", "build", "-o", r.dir+"/", "./cmd/sandman", "./cmd/sandboxd", "./cmd/sandbench")
	build.Dir, build.Stderr = strings.TrimSpace(string(root)), os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("building: %w", err)
	}
	return r, r.start(ctx, build.Dir, env)
}

func (r *rig) start(ctx context.Context, root string, env []string) error {
	hostPort, err := freePort()
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	listen := "127.0.0.1:" + strconv.Itoa(hostPort)
	r.hostURL = "http://" + listen
	r.base = "http://127.0.0.1:" + strconv.Itoa(port)
	r.host = e2b.NewClient(r.hostURL, sandboxd.DefaultAPIKey, r.client)
	r.e2b = e2b.NewClient(r.base+"/e2b", sandboxd.DefaultAPIKey, r.client)
	program := []string{"sandboxd"}
	if r.records {
		program = []string{"sandbench", recordsCommand, listen}
	}
	r.hostd, err = r.launch(append(env, "SANDBOXD_LISTEN="+listen, "SANDBOXD_DATA="+r.dir+"/host", "E2B_API_KEY="), program[0], program[1:]...)
	if err != nil {
		return err
	}
	if err := r.await(ctx, r.hostURL+"/health"); err != nil {
		return err
	}
	r.sandman, err = r.launch(append([]string{"SANDMAN_HOST=" + r.hostURL}, append(env, "SANDMAN_PORT="+strconv.Itoa(port), "SANDMAN_DATA="+r.dir+"/data", "SANDMAN_TOKEN="+benchToken,
		"SANDMAN_BIND=127.0.0.1", "E2B_API_KEY=")...), "sandman", "run", "--config", filepath.Join(root, "Caddyfile"))
	if err != nil {
		return err
	}
	return r.await(ctx, r.base+"/api/v1/status")
}

func (r *rig) launch(env []string, name string, args ...string) (*exec.Cmd, error) {
	log, err := os.Create(filepath.Join(r.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(r.dir, name), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, cmd.Start()
}

// await waits until something answers 200.
func (r *rig) await(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		res, err := r.call(ctx, http.MethodGet, url, nil)
		if err == nil && res == http.StatusOK {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", url, errors.Join(ctx.Err(), err))
		}
	}
}

// close ends the sandboxes and the programs, and removes the folder.
func (r *rig) close() {
	// the host looks through all processes for each: with 1,000 sandboxes it takes minutes
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute+time.Duration(len(r.made))*time.Second)
	defer cancel()
	_ = each(ctx, len(r.made), func(ctx context.Context, i int) error {
		err := r.host.Kill(ctx, r.made[i])
		if e2b.IsNotFound(err) { // or it is on Sandman's own local host
			err = r.e2b.Kill(ctx, r.made[i])
		}
		if err != nil && !e2b.IsNotFound(err) {
			fmt.Fprintln(os.Stderr, "sandbench: a sandbox was left:", err)
		}
		return nil // the others are to be ended all the same
	})
	for _, cmd := range []*exec.Cmd{r.sandman, r.hostd} {
		if cmd != nil && cmd.Process != nil {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
	}
	if os.Getenv("SANDBENCH_KEEP") == "" {
		_ = os.RemoveAll(r.dir)
	}
}

// newClient keeps enough connections for the largest crowd, and finds every
// name under localhost where browsers do.
func newClient() *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 4096,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			if err == nil && strings.HasSuffix(host, ".localhost") {
				addr = net.JoinHostPort("127.0.0.1", port)
			}
			return dialer.DialContext(ctx, network, addr)
		},
	}}
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// sandbox makes a sandbox through Sandman with the app in it, and waits for
// the app.
func (r *rig) sandbox(ctx context.Context) (string, error) {
	day := int32((24 * time.Hour).Seconds())
	sb, err := r.e2b.Create(ctx, e2b.NewSandbox{TemplateID: "base", Timeout: &day})
	if err != nil {
		return "", fmt.Errorf("creating a sandbox: %w", err)
	}
	r.made = append(r.made, sb.SandboxID)
	if err := r.startApp(ctx, sb); err != nil {
		return "", err
	}
	return sb.SandboxID, r.await(ctx, r.url(sb.SandboxID))
}

func (r *rig) startApp(ctx context.Context, sb e2b.Sandbox) error {
	started, cancel := context.WithCancel(ctx)
	defer cancel() // the process outlives the stream
	c := processconnect.NewProcessClient(r.client, r.base, connect.WithProtoJSON())
	req := connect.NewRequest(&process.StartRequest{Process: &process.ProcessConfig{
		Cmd: "/bin/sh", Args: []string{"-c", "exec " + filepath.Join(r.dir, "sandbench") + " " + appCommand},
	}})
	req.Header().Set(e2b.HeaderSandboxID, sb.SandboxID)
	req.Header().Set(e2b.HeaderSandboxPort, "49983")
	req.Header().Set("X-Access-Token", sb.EnvdAccessToken)
	stream, err := c.Start(started, req)
	if err != nil {
		return fmt.Errorf("starting the app: %w", err)
	}
	if !stream.Receive() {
		return fmt.Errorf("starting the app: %w", stream.Err())
	}
	return nil
}

// url is the app's address through Sandman.
func (r *rig) url(id string) string {
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(r.base, "http://"))
	return "http://" + strconv.Itoa(appPort) + "-" + id + ".localhost:" + port + "/"
}

// state asks the app, and gives the time to the first byte.
func (r *rig) state(ctx context.Context, id string) (s appState, took time.Duration, err error) {
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url(id), nil)
	if err != nil {
		return s, 0, err
	}
	res, err := r.client.Do(req)
	if err != nil {
		return s, 0, err
	}
	took = time.Since(began)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", res.StatusCode, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, took, err
}

// pause pauses by hand.
func (r *rig) pause(ctx context.Context, id string) error {
	status, err := r.call(ctx, http.MethodPost, r.base+"/api/v1/sandboxes/"+id+"/pause", nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("pausing %s: status %d", id, status)
	}
	return err
}

// record is what the API tells of a sandbox.
type record struct {
	State        string    `json:"state"`
	LastActivity time.Time `json:"lastActivity"`
	Totals       struct {
		Pauses int `json:"pauses"`
		Wakes  int `json:"wakes"`
	} `json:"totals"`
}

func (r *rig) record(ctx context.Context, id string) (rec record, err error) {
	status, err := r.call(ctx, http.MethodGet, r.base+"/api/v1/sandboxes/"+id, &rec)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("looking at %s: status %d", id, status)
	}
	return rec, err
}

// transition is a line of a sandbox's history.
type transition struct {
	At time.Time `json:"at"`
	To string    `json:"to"`
}

func (r *rig) history(ctx context.Context, id string) ([]transition, error) {
	var h struct {
		History []transition `json:"history"`
	}
	status, err := r.call(ctx, http.MethodGet, r.base+"/api/v1/sandboxes/"+id+"/history?limit=10", &h)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("reading the history of %s: status %d", id, status)
	}
	return h.History, err
}

// call asks with the token, and reads a JSON answer into to.
func (r *rig) call(ctx context.Context, method, url string, to any) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+benchToken)
	res, err := r.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && to != nil && res.StatusCode == http.StatusOK {
		err = json.NewDecoder(bytes.NewReader(body)).Decode(to)
	}
	return res.StatusCode, err
}
