package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// docBlock is a block of shell commands in a page of the documentation:
//
//	<!-- start -->            it starts Sandman, which goes on beside the commands that follow
//	<!-- not run: why -->     it can't be run here, and must at least be something that a shell can read
//	```sh
//	…
//	```
//	<!-- prints: text -->     what its output must have in it
type docBlock struct {
	text   string
	mark   string // "", "start", "not run"
	prints []string
	line   int
}

var docBlocks = regexp.MustCompile("(?m)^(?:<!-- (start|not run)(?:: .*)? -->\n)?```sh\n((?s:.*?))^```\n((?:<!-- prints: .* -->\n)*)")

func readDocBlocks(page string) []docBlock {
	var all []docBlock
	for _, at := range docBlocks.FindAllStringSubmatchIndex(page, -1) {
		b := docBlock{text: page[at[4]:at[5]], line: strings.Count(page[:at[4]], "\n") + 1}
		if at[2] >= 0 {
			b.mark = page[at[2]:at[3]]
		}
		for line := range strings.SplitSeq(strings.TrimSpace(page[at[6]:at[7]]), "\n") {
			if want, ok := strings.CutPrefix(line, "<!-- prints: "); ok {
				b.prints = append(b.prints, strings.TrimSuffix(want, " -->"))
			}
		}
		all = append(all, b)
	}
	return all
}

// The commands of each page are typed one after the other into one shell, in a folder with the built
// binary and the repository's Caddyfile, as a reader of the page does.
func TestDocs_commandsDoWhatThePagesSay(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(filepath.Join(repository, "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	for _, name := range pages {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		blocks := readDocBlocks(string(content))
		if n := strings.Count(string(content), "\n```sh\n"); n != len(blocks) {
			t.Errorf("%s has %d blocks of commands, of which %d were understood", name, n, len(blocks))
		}
		if len(blocks) == 0 {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(name), ".md"), func(t *testing.T) {
			t.Parallel()
			newReader(t).follow(t, blocks)
		})
	}
}

// docReader follows a page.
type docReader struct {
	dir  string
	port int
	s    *process // that the page has started; nil: none yet
}

func newReader(t *testing.T) *docReader {
	t.Helper()
	d := &docReader{dir: shortDir(t), port: freePort(t)}
	config, err := os.ReadFile(filepath.Join(repository, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "Caddyfile"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{"sandman": sandmanBinary, "sandboxd": sandboxdBinary, "app": appBinary} {
		if err := os.Symlink(program, filepath.Join(d.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func (d *docReader) follow(t *testing.T, blocks []docBlock) {
	t.Helper()
	var script strings.Builder
	script.WriteString("set -eo pipefail\n")
	var typed []docBlock
	for _, b := range blocks {
		switch b.mark {
		case "start":
			d.start(t, b)
		case "not run":
			d.parse(t, b)
		default:
			fmt.Fprintf(&script, "echo '%s%d'\n%s", blockMark, len(typed), d.here(b.text))
			typed = append(typed, b)
		}
	}
	if len(typed) == 0 {
		return
	}
	if d.s == nil {
		d.start(t, docBlock{text: "./sandman run\n"})
	}
	d.requirePrinted(t, typed, d.shell(t, script.String()))
	d.requireTidy(t)
}

const blockMark = "@@ block "

// here puts the test's own port in the place of the one in the page.
func (d *docReader) here(text string) string {
	return strings.NewReplacer("localhost:8080", "localhost:"+strconv.Itoa(d.port), "127.0.0.1:8080", "127.0.0.1:"+strconv.Itoa(d.port)).Replace(text)
}

// env is the environment of both shells. Sandman keeps its data in the folder.
func (d *docReader) env() map[string]string {
	env := map[string]string{"SANDMAN_PORT": strconv.Itoa(d.port), "NO_COLOR": "1"}
	if !hasIPv6Loopback() {
		env["SANDMAN_BIND"] = "127.0.0.1"
	}
	return env
}

func (d *docReader) start(t *testing.T, b docBlock) {
	t.Helper()
	d.s = startProcess(t, d.dir, d.env(), "bash", "-c", "set -e\n"+withExec(d.here(b.text)))
	demo := strings.Contains(b.text, "SANDMAN_DEMO=1")
	d.s.await(t, func() bool {
		if demo && !demoLink.MatchString(d.s.log.String()) {
			return false // a reader goes on when the link is there
		}
		ask := exec.CommandContext(t.Context(), sandmanBinary, "status")
		ask.Dir, ask.Env = d.dir, append(os.Environ(), "SANDMAN_PORT="+strconv.Itoa(d.port))
		return ask.Run() == nil
	})
}

// withExec has the last command in the shell's place, so that it gets the signals.
func withExec(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	last := lines[len(lines)-1]
	at := strings.Index(last, "./sandman")
	lines[len(lines)-1] = "exec env " + last[:at] + last[at:]
	return strings.Join(lines, "\n")
}

func (d *docReader) shell(t *testing.T, script string) string {
	t.Helper()
	p := startProcess(t, d.dir, d.env(), "bash", "-c", script)
	select {
	case <-p.done:
	case <-time.After(2 * time.Minute):
		t.Fatalf("the page's commands did not end:\n%s", p.log)
	}
	if !p.cmd.ProcessState.Success() {
		t.Errorf("the page's commands ended with %s:\n%s", p.cmd.ProcessState, p.log)
	}
	return p.log.String()
}

func (d *docReader) requirePrinted(t *testing.T, typed []docBlock, output string) {
	t.Helper()
	parts := strings.Split(output, blockMark)
	if len(parts) != len(typed)+1 {
		t.Errorf("of %d blocks %d were begun", len(typed), len(parts)-1)
	}
	for n, part := range parts[1:] {
		for _, want := range typed[n].prints {
			want = d.here(want)
			if !strings.Contains(part, want) {
				t.Errorf("line %d: the output has no %q in it:\n%s", typed[n].line, want, part)
			}
		}
	}
}

func (d *docReader) parse(t *testing.T, b docBlock) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "bash", "-nc", b.text).CombinedOutput(); err != nil {
		t.Errorf("line %d is nothing that a shell understands: %v\n%s", b.line, err, out)
	}
}

// requireTidy ends the page's sandboxes.
func (d *docReader) requireTidy(t *testing.T) {
	t.Helper()
	d.shell(t, "for id in $(./sandman sandbox list --json | grep -o '\"sandboxID\":\"[a-z0-9]*' | cut -d'\"' -f4); do ./sandman sandbox kill $id --yes; done")
}
