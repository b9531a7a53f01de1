package cli_test

import (
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

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
)

// some puts sandboxes in all states, one with everything that there is.
func (r *rig) some() {
	r.put("ia", session.Running, 3*time.Minute)
	r.change("ia", func(sb *api.Sandbox) {
		sb.Owner, sb.Project, sb.ActivityKind = "alice", "atlas", "request"
		sb.Metadata = map[string]string{"userId": "alice", "note": "two words"}
		used, pause := noon.Add(-42*time.Second), noon.Add(9*time.Minute+18*time.Second)
		sb.LastActivity, sb.PauseAt = &used, &pause
		sb.Totals = session.Totals{RunningMs: 3_723_000, PausedMs: 90_000_000, Pauses: 3, Wakes: 2}
		sb.LastError = &session.OpError{At: noon.Add(-2 * time.Hour), Op: session.OpPause, Message: "the host says: busy"}
	})
	r.put("ib", session.Running, 26*time.Hour)
	r.change("ib", func(sb *api.Sandbox) { sb.AwakeBecause = []string{"1 request through this proxy", `hold "cli"`} })
	r.put("ic", session.Paused, 49*time.Hour)
	r.put("id", session.Pausing, time.Second)
	r.put("ie", session.Resuming, 0)
	r.put("if", session.Killed, time.Hour)
	r.put("ievil", session.Paused, time.Hour)
	r.change("ievil", func(sb *api.Sandbox) {
		sb.Owner, sb.Reason = "\x1b[2Jmallory\u202e", "request: GET /\x1b]0;title\x07"
	})
}

func TestSandboxes_areShownAsTables(t *testing.T) {
	r := newRig(t)
	r.some()
	requireGolden(t, "list", r.url, "sandbox", "list")
	requireGolden(t, "list-states", r.url, "sandbox", "list", "--state", "paused,killed")
	requireGolden(t, "list-limit", r.url, "sandbox", "list", "--limit", "2", "--after", "ia")
	requireGolden(t, "list-none", r.url, "sandbox", "list", "--owner", "nobody")
	r.routes["GET /sandboxes/ia/history"] = answer(`{"history":[
		{"revision":5,"at":"2026-11-24T11:57:00Z","from":"RESUMING","to":"RUNNING","reason":"request: GET /"},
		{"revision":4,"at":"2026-11-24T11:56:59Z","from":"PAUSED","to":"RESUMING","reason":"request: GET /"}]}`)
	requireGolden(t, "show", r.url, "sandbox", "show", "ia")
	requireGolden(t, "show-evil", r.url, "sandbox", "show", "ievil", "--history", "0")
}

func answer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}
}

func TestList_readsAllPages(t *testing.T) {
	r := newRig(t)
	for i := range 2345 {
		r.put(fmt.Sprintf("i%04d", i), session.Paused, time.Hour)
	}
	if out := sandman(t.Context(), "sandbox", "list").out; strings.Count(out, "\n") != 2346 {
		t.Errorf("of 2345 sandboxes a list has %d lines", strings.Count(out, "\n"))
	}
	var page struct {
		Sandboxes []json.RawMessage `json:"sandboxes"`
		Next      string            `json:"next"`
	}
	requireJSON(t, sandman(t.Context(), "sandbox", "list", "--limit", "1500", "--json"), &page)
	if len(page.Sandboxes) != 1500 || page.Next != "i1499" {
		t.Errorf("of a list of 1500 there are %d, and next is %q", len(page.Sandboxes), page.Next)
	}
}

func requireJSON(t *testing.T, r result, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.out), v); err != nil || r.code != 0 || strings.Count(r.out, "\n") != 1 {
		t.Errorf("wanted a line of JSON, and got %+v", r)
	}
}

// What programs get is what the API has sent, byte for byte.
func TestJSON_isTheAPIsOwn(t *testing.T) {
	r := newRig(t)
	r.some()
	r.backend.why, r.backend.status = why(), status()
	r.backend.status.Hosts = r.backend.status.Hosts[:1] // else the exit code is 1
	for _, line := range [][]string{
		{"/sandboxes/ievil", "sandbox", "show", "ievil"},
		{"/sandboxes/ia/why", "sandbox", "why", "ia"},
		{"/status", "status"},
		{"/sandboxes/ia/holds", "sandbox", "hold", "ia"},
		{"/savings?from=2026-11-24&to=2026-11-24&group=owner", "savings", "--from", "2026-11-24", "--to", "2026-11-24", "--group", "owner"},
		{"/sandboxes?limit=2&state=RUNNING", "sandbox", "list", "--limit", "2", "--state", "RUNNING"},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/api/v1"+line[0], nil)
		req.Header.Set("Authorization", "Bearer "+secret)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if got := sandman(t.Context(), append(line[1:], "--json")...); got.out != string(body) || got.err != "" || got.code != 0 {
			t.Errorf("%v gives %+v, and the API\n%s", line, got, body)
		}
	}
}

func why() api.Why {
	return api.Why{
		State: session.Paused, Since: noon.Add(-90 * time.Minute), Reason: "idle for 10m0s",
		Words: []string{
			"It has slept since 10:30, because nobody has used it for 10m0s.",
			"A reconnect of a page was refused: GET /socket. A person's request wakes it.",
		},
		KeptAwakeBy: []api.Keeper{}, Settings: []api.Setting{}, Refused: []api.Refused{}, Repeats: []api.Repeat{},
	}
}

func status() api.Status {
	return api.Status{
		Node: "n1", Leader: api.Leader{Node: "n2"}, Store: api.Health{OK: true},
		Hosts:     []api.HostHealth{{Name: "local", Health: api.Health{OK: true}, Freezer: "cgroup"}, {Name: "e2b", Health: api.Health{Error: "no answer"}}},
		Sandboxes: map[session.State]int{session.Running: 2, session.Paused: 31}, Uptime: session.Duration(49 * time.Hour),
	}
}

func TestWhyAndStatus(t *testing.T) {
	r := newRig(t)
	r.some()
	r.backend.why, r.backend.status = why(), status()
	requireGolden(t, "why", r.url, "sandbox", "why", "ic")
	requireGolden(t, "status-degraded", r.url, "status")
	r.backend.status.Hosts = r.backend.status.Hosts[:1]
	r.backend.status.Leader.Me = true
	requireGolden(t, "status", r.url, "status")
}

func TestCreate_givesMetadataAndEnvironment(t *testing.T) {
	r := newRig(t)
	t.Setenv("FROM_HERE", "kept off the command line")
	requireGolden(t, "create", r.url, "sandbox", "create", "base", "--metadata", "userId=alice", "--metadata", "note=a=b,c",
		"--env", "FROM_HERE", "--env", "PLAIN=1")
	if n := r.made; n.TemplateID != "base" || n.Metadata["userId"] != "alice" || n.Metadata["note"] != "a=b,c" ||
		n.EnvVars["FROM_HERE"] != "kept off the command line" || n.EnvVars["PLAIN"] != "1" {
		t.Errorf("asked for was %+v", n)
	}
	requireGolden(t, "register", r.url, "sandbox", "create", "--register", "itaken")
}

func TestPauseAndResume(t *testing.T) {
	r := newRig(t)
	r.some()
	requireGolden(t, "pause", r.url, "sandbox", "pause", "ia", "ib")
	if r.force {
		t.Error("it was forced, and nobody had asked for that")
	}
	requireGolden(t, "resume", r.url, "sandbox", "resume", "ia")
	if sandman(t.Context(), "sandbox", "pause", "ia", "--force"); !r.force {
		t.Error("with --force it was not forced")
	}
	// what can't be done to one does not keep it from the next
	requireGolden(t, "pause-some", r.url, "sandbox", "pause", "inone", "if", "ib")
	requireGolden(t, "kill", r.url, "sandbox", "kill", "ia", "--yes")
}

func TestFailures_sayWhatToDo(t *testing.T) {
	r := newRig(t)
	r.some()
	requireGolden(t, "no-sandbox", r.url, "sandbox", "show", "inone")
	requireGolden(t, "killed", r.url, "sandbox", "resume", "if")
	requireGolden(t, "not-yes", r.url, "sandbox", "kill", "ia", "ib")
	r.fail = &api.InUseError{What: []string{"1 request: GET /\x1b[1m", "2 streams"}}
	requireGolden(t, "in-use", r.url, "sandbox", "pause", "ia")
	requireGolden(t, "in-use-json", r.url, "sandbox", "pause", "ia", "--json")
	r.fail = session.ErrConflict
	requireGolden(t, "conflict", r.url, "sandbox", "pause", "ia")
	r.fail = &api.UnavailableError{Reason: "the session store can't be reached"}
	requireGolden(t, "unavailable", r.url, "sandbox", "pause", "ia", "ib")
	t.Setenv("SANDMAN_TOKEN", "eye-"+secret)
	requireGolden(t, "viewer", r.url, "sandbox", "pause", "ia")
	t.Setenv("SANDMAN_TOKEN", "another's")
	requireGolden(t, "wrong-token", r.url, "sandbox", "list")
}

func TestUsage_isToldBeforeAnybodyIsAsked(t *testing.T) {
	t.Setenv("SANDMAN_URL", "http://127.0.0.1:1")
	t.Setenv("SANDMAN_TOKEN", secret)
	for _, line := range []string{
		"sandbox lst", "sandbox show", "sandbox show ia ib", "sandbox show ../status", "sandbox show IA", "sandbox show ia --history=-1",
		"sandbox pause", "sandbox pause ia --frce", "sandbox kill ia", "sandbox list x", "sandbox list --limit=-1", "sandbox list --state RUNNING --all",
		"sandbox create", "sandbox create a b", "sandbox create base --register ia", "sandbox create --register a/b", "sandbox create base --metadata x",
		"sandbox create base --env NOT_SET_HERE", "sandbox hold ia --for x", "sandbox hold ia --for 0s", "sandbox hold ia --for=-1h", "sandbox hold ia --for d", "sandbox hold ia --for 1dx", "sandbox hold ia --for 99999999999d", "sandbox hold ia --for=", "sandbox hold ia --for 1h --end",
		"sandbox hold ia --end --name=", "sandbox hold ia --end --name=a/b", "sandbox hold ia --for 1h --name=..", "sandbox watch ia ib", "sandbox watch ia --owner alice", "status now", "status --jsn", "savings --from yesterday",
		"savings --group colour", "savings --to 2026-13-01",
	} {
		r := sandman(t.Context(), strings.Fields(line)...)
		if r.code != 2 || r.out != "" || !strings.HasPrefix(r.err, "Error: ") || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

func TestToken_isFoundWhereTheQuickStartKeepsIt(t *testing.T) {
	r := newRig(t)
	r.some()
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	require := func(what string, code int, said ...string) {
		t.Helper()
		got := sandman(t.Context(), "sandbox", "list")
		if got.code != code {
			t.Errorf("%s: %+v", what, got)
		}
		for _, s := range said {
			if !strings.Contains(got.err, s) {
				t.Errorf("%s: %s, without %q", what, got.err, s)
			}
		}
	}
	t.Setenv("SANDMAN_TOKEN", "")
	require("nowhere", 4, "SANDMAN_TOKEN is not set", "./.sandman/token does not exist")
	t.Setenv("SANDMAN_DATA", dir+"/other")
	require("not in the data folder", 4, dir+"/other/token does not exist")
	write("other/token", "\n")
	require("an empty file", 4, dir+"/other/token is empty")
	write("other/token", secret+"\n")
	require("in the data folder", 0)
	t.Setenv("SANDMAN_DATA", "")
	write(".sandman/token", secret)
	require("in the quick start's folder", 0)
	t.Setenv("SANDMAN_TOKEN", "generate")
	require("as the Caddyfile has it", 0)
	write(".sandman/token", "wrong")
	require("a wrong one", 4, "the token from ./.sandman/token is none")
	t.Setenv("SANDMAN_TOKEN", "sha256:0123")
	t.Setenv("SANDMAN_DATA", "/nowhere")
	require("a hash", 4, "SANDMAN_TOKEN has no token but sha256:…")
}

func TestNoSandman_isTold(t *testing.T) {
	r := newRig(t)
	require := func(what, said string, code int) {
		t.Helper()
		if got := sandman(t.Context(), "status"); got.code != code || !strings.Contains(got.err, said) {
			t.Errorf("%s: %+v", what, got)
		}
	}
	t.Setenv("SANDMAN_URL", "localhost:8080")
	require("no URL", "SANDMAN_URL is", 2)
	t.Setenv("SANDMAN_URL", "http://user:secret@localhost")
	require("a URL with a password", "SANDMAN_URL is", 2)
	t.Setenv("SANDMAN_URL", r.url+"/")
	r.routes["GET /status"] = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }
	require("another server", "not Sandman's API", 5)
	r.routes["GET /status"] = func(w http.ResponseWriter, _ *http.Request) {
		http.Redirect(w, &http.Request{}, "http://example.com/", http.StatusFound)
	}
	require("a redirect", "302", 5)
	r.routes["GET /status"] = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	require("a broken answer", "no Sandman can be reached", 5)
	r.server.Close()
	require("nobody", "no Sandman can be reached at "+r.url+":", 5)
}

func TestInterrupted_leavesTheWorkToSandman(t *testing.T) {
	r := newRig(t)
	r.some()
	r.slow = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if got := sandman(ctx, "sandbox", "pause", "ia", "ib"); got.code != 130 || strings.Count(got.err, "interrupted") != 1 {
		t.Errorf("an interrupted pause gives %+v", got)
	}
}

func TestHolds(t *testing.T) {
	r := newRig(t)
	r.some()
	requireGolden(t, "hold", r.url, "sandbox", "hold", "ia", "--for", "2h", "--reason", "training, 2nd run")
	if want := (api.HoldOptions{Name: "cli", For: 2 * time.Hour, Reason: "training, 2nd run", By: "token root", Wake: true}); r.held != want {
		t.Errorf("asked for was %+v", r.held)
	}
	sandman(t.Context(), "sandbox", "hold", "ia", "--for", "90m", "--name", "night-run")
	requireGolden(t, "holds", r.url, "sandbox", "hold", "ia")
	requireGolden(t, "hold-end", r.url, "sandbox", "hold", "ia", "--end", "--name", "night-run")
	requireGolden(t, "hold-end-none", r.url, "sandbox", "hold", "ia", "--end", "--name", "nihgt-run")
	for given, want := range map[string]time.Duration{"1d": 24 * time.Hour, "1d12h": 36 * time.Hour, "90": 90 * time.Second, "2h30m": 150 * time.Minute} {
		if got := sandman(t.Context(), "sandbox", "hold", "ia", "--for", given); got.code != 0 || r.held.For != want {
			t.Errorf("for %s: %+v, held for %s, want %s", given, got, r.held.For, want)
		}
	}
	requireGolden(t, "holds-none", r.url, "sandbox", "hold", "ib")
	requireGolden(t, "hold-long", r.url, "sandbox", "hold", "ia", "--for", "200h")
	requireGolden(t, "hold-killed", r.url, "sandbox", "hold", "if", "--for", "2h")
}

func TestSavings(t *testing.T) {
	r := newRig(t)
	day := func(d session.Day, id, project string, running, paused, host time.Duration) api.Used {
		return api.Used{SandboxID: id, Days: session.Days{First: d, Last: d, Usage: session.Usage{
			Owner: "alice", Project: project, RunningMs: running.Milliseconds(), PausedMs: paused.Milliseconds(), HostMs: host.Milliseconds(),
		}}}
	}
	r.used = []api.Used{
		day("2026-11-23", "ia", "atlas", 2*time.Hour, 22*time.Hour, time.Hour), day("2026-11-24", "ia", "atlas", 8*time.Hour, 4*time.Hour, time.Hour),
		day("2026-11-24", "ib", "", time.Minute, 0, 0),
	}
	requireGolden(t, "savings", r.url, "savings", "--from", "2026-11-22", "--to", "2026-11-24", "--group", "project")
	requireGolden(t, "savings-owner", r.url, "savings", "--from", "2026-11-24", "--to", "2026-11-24T12:00:00Z", "--owner", "bob", "--group", "sandbox")
	requireGolden(t, "savings-range", r.url, "savings", "--from", "2026-11-24", "--to", "2026-11-23")
	r.routes["GET /savings"] = answer(`{"from":"2026-11-24","to":"2026-11-24","pricePerMinute":0,"hostTimeout":"5m0s","total":{},"groups":[],"days":[]}`)
	requireGolden(t, "savings-no-price", r.url, "savings")
}

// A command that is newer than its Sandman says so.
func TestOlderSandman(t *testing.T) {
	r := newRig(t)
	r.some()
	r.routes["GET /savings"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"title":"Not Found","status":404,"code":"no-such-route","detail":"There is nothing at /api/v1/savings."}`)
	}
	requireGolden(t, "savings-older", r.url, "savings")
	r.routes["GET /sandboxes"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"title":"Unprocessable Entity","status":422,"code":"invalid","detail":"query.q: unknown query parameter (see /api/v1/openapi.json)"}`)
	}
	requireGolden(t, "list-older", r.url, "sandbox", "list", "--search", "x")
}

func TestCompletion_offersIDs(t *testing.T) {
	r := newRig(t)
	r.some()
	for _, c := range []struct{ line, want string }{
		{"sandbox pause ", "ia\trunning, base, alice, atlas;ib\trunning, base;id\tpausing…, base"},
		{"sandbox pause ia ", "ib\trunning, base;id\tpausing…, base"},
		{"sandbox resume i", "ic\tpaused, base;id\tpausing…, base;ie\twaking…, base;ievil\tpaused, base, �[2Jmallory�"},
		{"sandbox show ie", "ievil\tpaused, base, �[2Jmallory�"},
		{"sandbox show ia ", ""},
		{"sandbox list ", ""},
		{"sandbox list --state ", "RUNNING;PAUSING;PAUSED;RESUMING;KILLED"},
		{"savings --group ", "owner;project;sandbox"},
	} {
		got := sandman(t.Context(), append([]string{"__complete"}, strings.Split(c.line, " ")...)...)
		lines := strings.Split(strings.TrimRight(got.out, "\n"), "\n")
		if offered := strings.Join(lines[:len(lines)-1], ";"); offered != c.want || lines[len(lines)-1] != ":4" {
			t.Errorf("%s<tab> offers %q, wanted %q", c.line, offered, c.want)
		}
	}
	r.server.Close()
	if got := sandman(t.Context(), "__complete", "sandbox", "show", ""); got.out != ":4\n" {
		t.Errorf("without a Sandman a shell gets %+v", got)
	}
}
