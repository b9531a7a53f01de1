package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// withTokens adds a viewer's token and the quick start's own, which is kept in a file.
func withTokens() *strings.Replacer {
	const admin = "{$SANDMAN_TOKEN:generate}"
	return strings.NewReplacer(admin, admin+"\n\t\ttoken eye viewer "+viewerToken+"\n\t\ttoken kept admin generate")
}

// cliResult is what a command line has come to.
type cliResult struct {
	out, err string
	code     int
}

func (r cliResult) String() string {
	return fmt.Sprintf("exit code %d\n%s--- stderr\n%s", r.code, r.out, r.err)
}

func (r cliResult) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.out), v); err != nil || r.code != 0 || r.err != "" || strings.Count(r.out, "\n") != 1 {
		t.Fatalf("wanted one line of JSON, got %s (%v)", r, err)
	}
}

// command is the binary as a user starts it, with nothing in its environment but env.
func (s *sandman) command(t *testing.T, env map[string]string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), sandmanBinary, args...)
	cmd.Dir = filepath.Dir(s.dir)
	all := map[string]string{"PATH": filepath.Dir(sandmanBinary) + ":" + os.Getenv("PATH"), "HOME": cmd.Dir, "SANDMAN_PORT": fmt.Sprint(s.port), "SANDMAN_TOKEN": token}
	maps.Copy(all, env)
	for name, value := range all {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.WaitDelay = readyWithin
	return cmd
}

func (s *sandman) cliWith(t *testing.T, env map[string]string, args ...string) cliResult {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := s.command(t, env, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // how it ended is asked of ProcessState
	r := cliResult{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
	if strings.Contains(r.out+r.err, token) || strings.Contains(r.out+r.err, "\x1b") {
		t.Errorf("sandman %v shows a token, or colours where nobody sees them: %s", args, r)
	}
	return r
}

func (s *sandman) cli(t *testing.T, args ...string) cliResult {
	t.Helper()
	return s.cliWith(t, nil, args...)
}

// mustCLI fails the test unless the command says all of this and nothing is wrong.
func (s *sandman) mustCLI(t *testing.T, says []string, args ...string) string {
	t.Helper()
	r := s.cli(t, args...)
	r.require(t, 0, args, says...)
	return r.out
}

func (r cliResult) require(t *testing.T, code int, args []string, says ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("sandman %v: wanted exit code %d, got %s", args, code, r)
	}
	for _, s := range says {
		if !strings.Contains(r.out+r.err, s) {
			t.Errorf("sandman %v does not say %q: %s", args, s, r)
		}
	}
}

func TestCLI_aSandboxesLife(t *testing.T) {
	t.Parallel()
	s := start(t, options{caddyfile: withTokens()})
	s.create(t) // whose line says that the watch has begun
	watch := s.startWatch(t, "sandbox", "watch", "--json")
	var made record
	s.cli(t, "sandbox", "create", "base", "--metadata", "userId=alice", "--env", "HOME", "--json").decode(t, &made)
	id := made.SandboxID
	s.mustCLI(t, []string{"SANDBOX", id, "running", "alice", "base", " in "}, "sandbox", "list")
	s.mustCLI(t, []string{id, "running for", "idle timeout", "10m0s", "userId=alice"}, "sandbox", "show", id)
	s.mustCLI(t, []string{id, "running for", "10m"}, "sandbox", "why", id)
	s.mustCLI(t, []string{"store", "ok", "host local", "2 running", "admin (admin)"}, "status")

	s.mustCLI(t, []string{"Sandbox " + id + ": paused (paused by hand: token admin)"}, "sandbox", "pause", id)
	s.mustCLI(t, []string{id, "paused"}, "sandbox", "list", "--state", "paused", "--owner", "alice")
	var shown record
	s.cli(t, "sandbox", "show", id, "--json").decode(t, &shown)
	if api := s.record(t, id); shown.State != "PAUSED" || shown.Reason != api.Reason || !shown.Since.Equal(api.Since) {
		t.Errorf("shown is %+v, and the API has %+v", shown, api)
	}
	s.mustCLI(t, []string{"Sandbox " + id + ": running (resumed by hand: token admin)"}, "sandbox", "resume", id)
	if r := s.record(t, id); r.State != "RUNNING" {
		t.Errorf("after a resume it is %s", r.State)
	}

	s.pause(t, id) // a hold wakes
	s.mustCLI(t, []string{"is kept awake until", "in 2h"}, "sandbox", "hold", id, "--for", "2h20s", "--reason", "a training run")
	if r := s.record(t, id); r.State != "RUNNING" || r.PauseAt != nil {
		t.Errorf("under a hold it is %+v", r)
	}
	s.mustCLI(t, []string{"HOLD", "cli", "in 2h", "a training run", "token admin"}, "sandbox", "hold", id)
	s.mustCLI(t, []string{`hold "cli"`}, "sandbox", "why", id)
	s.mustCLI(t, []string{`not while: hold "cli"`}, "sandbox", "list")
	s.mustCLI(t, []string{"is ended"}, "sandbox", "hold", id, "--end")
	s.mustCLI(t, []string{"No hold"}, "sandbox", "hold", id)

	s.cli(t, "sandbox", "kill", id).require(t, 2, []string{"kill"}, "--yes")
	eye := map[string]string{"SANDMAN_TOKEN": viewerToken}
	s.cliWith(t, eye, "sandbox", "show", id).require(t, 0, []string{"show, as a viewer"}, id)
	s.cliWith(t, eye, "sandbox", "pause", id).require(t, 4, []string{"pause, as a viewer"}, "operator")
	s.mustCLI(t, []string{"killed"}, "sandbox", "kill", id, "--yes")
	s.cli(t, "sandbox", "resume", id).require(t, 3, []string{"resume, killed"}, "gone for good")
	s.mustCLI(t, []string{"killed for", "killed by hand: token admin"}, "sandbox", "show", id)
	watch.requireStates(t, id, "RUNNING PAUSING PAUSED RESUMING RUNNING PAUSING PAUSED RESUMING RUNNING KILLED")
}

// watching is a `sandbox watch` that runs.
type watching struct {
	cmd  *exec.Cmd
	out  logBuffer
	errs logBuffer
}

// startWatch returns when it watches.
func (s *sandman) startWatch(t *testing.T, args ...string) *watching {
	t.Helper()
	w := &watching{cmd: s.command(t, nil, args...)}
	w.cmd.Stdout, w.cmd.Stderr = &w.out, &w.errs
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if w.cmd.ProcessState == nil {
			_ = w.cmd.Process.Kill()
			_ = w.cmd.Wait()
		}
	})
	eventually(t, readyWithin, "a watch that has begun", func() bool { return w.out.String()+w.errs.String() != "" })
	return w
}

// interrupt presses Ctrl+C.
func (w *watching) interrupt(t *testing.T) {
	t.Helper()
	_ = w.cmd.Process.Signal(os.Interrupt)
	if err := w.cmd.Wait(); w.cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("after Ctrl+C a watch ends with %v: %s", err, w.errs.String())
	}
}

// requireStates waits for the last of the states, and then compares all. Between two that follow each
// other within a moment one may be missing.
func (w *watching) requireStates(t *testing.T, id, want string) {
	t.Helper()
	var seen []string
	eventually(t, readyWithin, "the end in what was watched", func() bool {
		seen = nil
		for line := range strings.Lines(w.out.String()) {
			var r record
			if !strings.HasSuffix(line, "\n") {
				break
			}
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%v: %q", err, line)
			}
			if r.SandboxID == id && r.State != "" && (len(seen) == 0 || seen[len(seen)-1] != r.State) {
				seen = append(seen, r.State)
			}
		}
		return len(seen) > 0 && strings.HasSuffix(want, " "+seen[len(seen)-1]) && len(seen) > 1
	})
	w.interrupt(t)
	left := strings.Fields(want)
	for _, state := range seen {
		i := slices.Index(left, state)
		if i < 0 || i > 1 && !slices.Contains([]string{"PAUSING", "RESUMING"}, left[i-1]) {
			t.Fatalf("seen was %v, wanted %s", seen, want)
		}
		left = left[i+1:]
	}
}

// A watch outlives the Sandman that it watches.
func TestCLI_watchComesBack(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id := s.create(t)
	watch := s.startWatch(t, "sandbox", "watch", id)
	all := s.startWatch(t, "sandbox", "watch")
	eventually(t, readyWithin, "the sandbox's state", func() bool { return strings.Contains(watch.out.String(), id+"  running  ") })
	s.process.end(t)
	eventually(t, readyWithin, "word of the loss", func() bool { return strings.Contains(watch.errs.String(), "is lost") })
	s = start(t, options{data: s.dir, port: s.port})
	s.pause(t, id)
	for name, w := range map[string]*watching{"one": watch, "all": all} {
		eventually(t, readyWithin, "the pause, after the loss, in the watch of "+name, func() bool {
			return regexp.MustCompile(`\d\d:\d\d:\d\d  ` + id + `  (running|pausing…) → paused +paused by hand: token admin\n`).MatchString(w.out.String())
		})
		if !strings.Contains(w.errs.String(), "Connected again") {
			t.Errorf("the watch of %s tells of %s", name, w.errs.String())
		}
	}
	all.interrupt(t)
	s.call(t, http.MethodDelete, "/sandboxes/"+id, "").require(t, http.StatusNoContent)
	if err := watch.cmd.Wait(); err != nil {
		t.Errorf("with its sandbox a watch ends with %v: %s", err, watch.errs.String())
	}
}

func TestCLI_failures(t *testing.T) {
	t.Parallel()
	s := start(t, options{caddyfile: withTokens()})
	without := map[string]string{"SANDMAN_TOKEN": ""}
	s.cliWith(t, without, "sandbox", "list").require(t, 4, []string{"no token"}, "no token found", "SANDMAN_TOKEN is not set", "./.sandman/token does not exist")
	without["SANDMAN_DATA"] = s.dir
	s.cliWith(t, without, "sandbox", "list").require(t, 0, []string{"the token that is kept"})
	s.cliWith(t, map[string]string{"SANDMAN_TOKEN": "wrong"}, "sandbox", "list").require(t, 4, []string{"a wrong token"}, "the token from SANDMAN_TOKEN")
	s.cli(t, "sandbox", "show", "inone").require(t, 3, []string{"no such sandbox"}, "there is no sandbox inone")
	s.cli(t, "sandbox", "lits").require(t, 2, []string{"a wrong command"}, "list")
	s.cli(t, "sandbox", "pause").require(t, 2, []string{"no ID"}, "which sandbox")
	s.cli(t, "sandbox", "list", "--stat", "x").require(t, 2, []string{"a wrong flag"}, "--stat")
	s.cli(t, "sandbox", "list", "--state", "ASLEEP").require(t, 2, []string{"a wrong value"}, "state")
	s.cli(t, "savings", "--group", "x").require(t, 2, []string{"a wrong group"}, "project")
	// what is no API of Sandman's: a sandbox's address
	s.cliWith(t, map[string]string{"SANDMAN_URL": "http://8080-inone.localhost:" + fmt.Sprint(s.port)}, "status").require(t, 5, []string{"another address"})

	down := map[string]string{"SANDMAN_URL": local(freePort(t))}
	for _, args := range [][]string{{"status"}, {"savings"}, {"sandbox", "list"}, {"sandbox", "watch"}, {"sandbox", "pause", "ia", "ib"}} {
		s.cliWith(t, down, args...).require(t, 5, args, "no Sandman can be reached at "+down["SANDMAN_URL"], "sandman run")
	}
	r := s.cliWith(t, down, "status", "--json")
	var p struct{ Code, Detail string }
	if err := json.Unmarshal([]byte(r.err), &p); err != nil || p.Code != "unreachable" || r.out != "" {
		t.Errorf("a program is told %s", r)
	}
}

// onTerminal runs a command on a terminal, and returns what that was sent.
func (s *sandman) onTerminal(t *testing.T, env map[string]string, args ...string) (shown string, code int) {
	t.Helper()
	cmd := s.command(t, env, args...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	b, _ := io.ReadAll(tty) // ends with EIO when the program has
	_ = cmd.Wait()
	return string(b), cmd.ProcessState.ExitCode()
}

func TestCLI_onATerminal(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, _ := s.startAppIn(t)
	xterm := map[string]string{"TERM": "xterm-256color"}
	const green = "\x1b[32mrunning\x1b[0m"
	if shown, code := s.onTerminal(t, xterm, "sandbox", "list"); code != 0 || !strings.Contains(shown, green) {
		t.Errorf("a terminal is sent %q (%d)", shown, code)
	}
	for name, value := range map[string]string{"NO_COLOR": "1", "TERM": "dumb"} {
		env := maps.Clone(xterm)
		env[name] = value
		if shown, code := s.onTerminal(t, env, "sandbox", "list"); code != 0 || strings.Contains(shown, "\x1b") || !strings.Contains(shown, id) {
			t.Errorf("with %s=%s a terminal is sent %q (%d)", name, value, shown, code)
		}
	}
	if shown, code := s.onTerminal(t, xterm, "sandbox", "show", id, "--json"); code != 0 || !json.Valid([]byte(shown)) {
		t.Errorf("with --json a terminal is sent %q (%d)", shown, code)
	}
	for line := range strings.Lines(s.mustCLI(t, nil, "sandbox", "why", id)) {
		if len(line) > 100 { // a sentence is a line where it goes to a program, and wrapped for people
			shown, _ := s.onTerminal(t, xterm, "sandbox", "why", id)
			for line := range strings.Lines(shown) {
				if len([]rune(strings.TrimSpace(line))) > 100 {
					t.Errorf("a line of %d characters on a terminal of 100: %q", len(line), line)
				}
			}
		}
	}

	download := s.beginDownload(t, id, downloadSeconds)
	shown, code := s.onTerminal(t, xterm, "sandbox", "pause", id)
	if !strings.Contains(shown, "Pausing "+id+"… 1s") || code != 4 || !strings.Contains(shown, "is in use: ") || !strings.Contains(shown, "--force") {
		t.Errorf("a pause of what is in use shows %q (%d)", shown, code)
	}
	if got := <-download; got.err != nil {
		t.Errorf("the download: %v", got.err)
	}
}

func TestCLI_completion(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	awake, asleep := s.create(t), s.create(t)
	s.pause(t, asleep)
	// bash-completion's own function, as far as the script needs it
	const script = `_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]}; prev=${COMP_WORDS[COMP_CWORD-1]}; words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; }
		__ltrim_colon_completions() { :; }
		compopt() { :; } # which is for a shell that somebody types into
		source <(sandman completion bash)
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=$((${#COMP_LINE}))
		__start_sandman; printf '%s\n' "${COMPREPLY[@]}"`
	for line, want := range map[string]string{
		"sandman sandbox pause ":  awake,
		"sandman sandbox resume ": asleep,
		"sandman sandbox w":       "watch why",
		"sandman stat":            "status",
	} {
		cmd := s.command(t, nil)
		bash := exec.CommandContext(t.Context(), "bash", append([]string{"-c", script, "bash"}, strings.Split(line, " ")...)...)
		bash.Env, bash.Dir = cmd.Env, cmd.Dir
		out, err := bash.CombinedOutput()
		offered := strings.Fields(string(out))
		slices.Sort(offered)
		if err != nil || strings.Join(offered, " ") != want {
			t.Errorf("%q<tab> offers %q (%v), wanted %q", line, out, err, want)
		}
	}
}

var (
	docsCommand = regexp.MustCompile(`(?m)^(?:\$|  ) ?(sandman .*)$`)
	docsExample = regexp.MustCompile("(?s)```(?:console|text)\n(.*?)```")
)

// Every command in docs/cli.md works, and those of the tour say what it shows.
func TestCLI_docs(t *testing.T) {
	t.Parallel()
	const theirs = "i4iqeeqsdwjexhv2us927"
	text, err := os.ReadFile(filepath.Join(repository, "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, options{})
	ours, ran := "", 0
	for _, block := range docsExample.FindAllStringSubmatch(string(text), -1) {
		_, examples, help := strings.Cut(block[1], "Examples:\n")
		if !help {
			examples = block[1]
		}
		for _, found := range docsCommand.FindAllStringSubmatch(examples, -1) {
			line := found[1]
			if strings.HasPrefix(found[0], "  ") && !help || strings.Contains(line, "[") {
				continue // a usage line
			}
			if ours == "" || s.record(t, ours).State == "KILLED" {
				ours = s.create(t)
			}
			s.runDocs(t, strings.ReplaceAll(line, theirs, ours))
			ran++
		}
	}
	if ran < 30 {
		t.Errorf("only %d commands were found in docs/cli.md", ran)
	}
}

// runDocs runs a line as the reader's shell does. What would go on for ever is interrupted when it has
// said something.
func (s *sandman) runDocs(t *testing.T, line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	cmd := s.command(t, map[string]string{"API_KEY": "a secret"})
	shell := exec.CommandContext(ctx, "sh", "-c", "exec "+line)
	var out logBuffer
	shell.Env, shell.Dir, shell.Stdout, shell.Stderr, shell.WaitDelay = cmd.Env, cmd.Dir, &out, &out, readyWithin
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(line, " watch") {
		eventually(t, readyWithin, "a line of "+line, func() bool { return out.String() != "" })
		_ = shell.Process.Signal(os.Interrupt)
	}
	interrupted := strings.Contains(line, " watch")
	if err := shell.Wait(); err != nil && !interrupted || interrupted && shell.ProcessState.ExitCode() != 130 || out.String() == "" {
		t.Errorf("$ %s\n%s(%v)", line, out.String(), err)
	}
}
