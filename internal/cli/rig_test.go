package cli_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/cli"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	time.Local = time.UTC // people are told times by their own clock
	os.Exit(m.Run())
}

// noon is the clock of the API here.
var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const secret = "an-admin-token-0123456789"

// backend is what the real API works on. What a test does not need is nil, and
// would be missed.
type backend struct {
	api.Reader
	api.Actor

	mu     sync.Mutex // guards the following fields
	all    map[string]api.Sandbox
	why    api.Why
	status api.Status
	fail   error
	made   e2b.NewSandbox
	force  bool
	held   api.HoldOptions
	used   []api.Used
	lists  []api.Filter
	slow   chan struct{} // a pause waits until it is closed
}

func (b *backend) Get(_ context.Context, id string) (api.Sandbox, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sb, ok := b.all[id]
	if !ok {
		return sb, api.ErrNotFound
	}
	return sb, nil
}

func (b *backend) List(_ context.Context, f api.Filter) (api.Page, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lists = append(b.lists, f)
	var page api.Page
	for _, id := range slices.Sorted(mapKeys(b.all)) {
		sb := b.all[id]
		switch {
		case id <= f.After, f.Owner != "" && sb.Owner != f.Owner, !slices.Contains(f.States, sb.State):
		case len(page.Sandboxes) == f.Limit:
			page.Next = page.Sandboxes[f.Limit-1].SandboxID
			return page, nil
		default:
			page.Sandboxes = append(page.Sandboxes, sb)
		}
	}
	return page, nil
}

func mapKeys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (b *backend) Why(context.Context, string) (api.Why, error) { return b.why, nil }
func (b *backend) Status(context.Context) api.Status            { return b.status }

func (b *backend) Pause(ctx context.Context, id string, o api.PauseOptions) (api.Sandbox, bool, error) {
	if b.slow != nil {
		select {
		case <-b.slow:
		case <-ctx.Done():
			return api.Sandbox{}, false, ctx.Err()
		}
	}
	b.mu.Lock()
	b.force = o.Force
	b.mu.Unlock()
	return b.move(id, session.Paused, "paused by hand: "+o.By)
}

func (b *backend) Resume(_ context.Context, id, by string) (api.Sandbox, bool, error) {
	return b.move(id, session.Running, "resumed by hand: "+by)
}

func (b *backend) move(id string, to session.State, reason string) (api.Sandbox, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sb, ok := b.all[id]
	switch {
	case b.fail != nil:
		return sb, false, b.fail
	case !ok:
		return sb, false, api.ErrNotFound
	case sb.State == session.Killed:
		return sb, false, api.ErrKilled
	}
	sb.State, sb.Reason, sb.Since, sb.PauseAt = to, reason, noon, nil
	b.all[id] = sb
	return sb, true, nil
}

func (b *backend) Create(_ context.Context, n e2b.NewSandbox, _ string) (api.Sandbox, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.made = n
	return b.unsyncedPut("inew", session.Running, 0), b.fail
}

func (b *backend) Register(_ context.Context, id, _ string) (api.Sandbox, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unsyncedPut(id, session.Running, 0), true, b.fail
}

func (b *backend) Kill(_ context.Context, id, by string) error {
	_, _, err := b.move(id, session.Killed, "killed by hand: "+by)
	return err
}

func (b *backend) Usage(_ context.Context, from, to session.Day) ([]api.Used, error) {
	return slices.DeleteFunc(slices.Clone(b.used), func(u api.Used) bool { return u.First < from || u.Last > to }), nil
}

func (b *backend) Hold(_ context.Context, id string, o api.HoldOptions) (session.Hold, error) {
	if _, _, err := b.move(id, session.Running, "held"); err != nil {
		return session.Hold{}, err
	}
	h := session.Hold{Name: o.Name, Reason: o.Reason, By: o.By, ExpiresAt: noon.Add(o.For)}
	b.change(id, func(sb *api.Sandbox) { sb.Holds = append(sb.Holds, h) })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = o
	return h, nil
}

func (b *backend) EndHold(_ context.Context, id, name string) error {
	b.change(id, func(sb *api.Sandbox) {
		sb.Holds = slices.DeleteFunc(sb.Holds, func(h session.Hold) bool { return h.Name == name })
	})
	return nil
}

func (b *backend) put(id string, state session.State, since time.Duration) api.Sandbox {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unsyncedPut(id, state, since)
}

func (b *backend) unsyncedPut(id string, state session.State, since time.Duration) api.Sandbox {
	r := session.New(id, "local", state, "created", noon.Add(-since))
	r.IdleTimeout, r.Template = session.Duration(10*time.Minute), "base"
	sb := api.Sandbox{Record: r}
	b.all[id] = sb
	return sb
}

func (b *backend) change(id string, f func(*api.Sandbox)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sb := b.all[id]
	f(&sb)
	b.all[id] = sb
}

// rig is a real API over a backend, and what a command needs to find it.
type rig struct {
	*backend
	url    string
	server *httptest.Server
	routes map[string]http.HandlerFunc // go before the API's own
}

func newRig(t *testing.T) *rig {
	t.Helper()
	hash, err := api.HashSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{backend: &backend{all: map[string]api.Sandbox{}}, routes: map[string]http.HandlerFunc{}}
	h, err := api.New(api.Config{
		Version: "1.2.3", Reader: r.backend, Actor: r.backend, Log: zap.NewNop(),
		PricePerMinute: 0.0006, Currency: "USD", HostTimeout: 5 * time.Minute,
		Tokens: []api.Token{{Name: "root", Role: api.RoleAdmin, Hash: hash}, {Name: "eye", Role: api.RoleViewer, Hash: must(api.HashSecret("eye-" + secret))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Date", noon.Format(http.TimeFormat))
		if route := r.routes[req.Method+" "+strings.TrimPrefix(req.URL.Path, "/api/v1")]; route != nil {
			route(w, req)
			return
		}
		h.ServeHTTP(w, req)
	}))
	t.Cleanup(r.server.Close)
	r.url = r.server.URL
	t.Setenv("SANDMAN_URL", r.url)
	t.Setenv("SANDMAN_TOKEN", secret)
	t.Setenv("SANDMAN_DATA", "")
	t.Setenv("SANDMAN_PORT", "")
	return r
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// result is what a command has come to.
type result struct {
	out, err string
	code     int
}

type exitError int

func (e exitError) Error() string { return fmt.Sprint("exit ", int(e)) }

// newRoot is the binary's tree of commands, as far as it is ours.
func newRoot() *cobra.Command {
	root := &cobra.Command{Use: "sandman", SilenceErrors: true, SilenceUsage: true}
	for _, c := range cli.Commands() {
		cmd := &cobra.Command{Use: c.Name + " " + c.Usage, Short: c.Short, Long: c.Long}
		c.Fill(cmd, func(code int) error { return exitError(code) })
		root.AddCommand(cmd)
	}
	return root
}

// sandman runs a command line.
func sandman(ctx context.Context, args ...string) result {
	var out, err bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&err)
	failed := root.ExecuteContext(ctx)
	var exit exitError
	switch {
	case failed == nil:
		return result{out.String(), err.String(), 0}
	case errors.As(failed, &exit):
		return result{out.String(), err.String(), int(exit)}
	default:
		return result{out.String(), err.String() + "NOT OURS: " + failed.Error(), -1}
	}
}

var wallClock = regexp.MustCompile(`\d\d:\d\d:\d\d(  \w+  gone\n)`)

// requireGolden compares what a command line gives with what it has given.
func requireGolden(t *testing.T, name, url string, args ...string) {
	t.Helper()
	r := sandman(t.Context(), args...)
	got := fmt.Sprintf("$ sandman %s\n%s", strings.Join(args, " "), r.out)
	if r.err != "" {
		got += "--- stderr\n" + r.err
	}
	if r.code != 0 {
		got += fmt.Sprintf("--- exit code %d\n", r.code)
	}
	got = wallClock.ReplaceAllString(got, "hh:mm:ss$1") // of what the API tells no time
	got = strings.ReplaceAll(got, url, "http://localhost:8080")
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("%s (%v) has\n%s\nand now there is\n%s", path, err, want, got)
	}
}
