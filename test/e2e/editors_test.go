package e2e_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// codeServerDir is where code-server is installed: by the first call, which takes some minutes then.
var codeServerDir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("bash", "editors/install.sh").Output()
	return strings.TrimSpace(string(out)), err
})

// editorReady is how long an editor may take to start on a busy machine.
const editorReady = 60 * time.Second

// reconnected is how long an editor may take to be connected again.
const reconnected = 5 * time.Second

// tabReturns is how long a tab may take that has lost its connection: it tries again after 30 s at the
// latest.
const tabReturns = 45 * time.Second

// desks bounds how many editors with their browsers run at once: each of them is worth a machine.
var desks = make(chan struct{}, 2)

// desk is a tab of VS Code on a file in a sandbox.
type desk struct {
	*browser
	s    *sandman
	id   string
	port int // that the browser goes to

	opening time.Duration // how long it took to open the file
}

// openDesk makes a sandbox with code-server in it and opens the file notes.txt in a browser that goes
// to the port; 0: Sandman's own.
func openDesk(t *testing.T, s *sandman, port int) *desk {
	t.Helper()
	dir, err := codeServerDir()
	if err != nil {
		t.Fatalf("installing code-server: %v", err)
	}
	desks <- struct{}{}
	t.Cleanup(func() { <-desks })
	if port == 0 {
		port = s.port
	}
	d := &desk{s: s, id: s.create(t), port: port}
	s.configure(t, d.id, `{"idleTimeout":"10m"}`) // however long it takes to open
	s.run(t, d.id, `mkdir -p work settings/User && printf 'first\n' >work/notes.txt &&
		printf '{"workbench.startupEditor":"none","remote.autoForwardPorts":false}' >settings/User/settings.json &&
		setsid node `+dir+`/out/node/entry.js --auth none --bind-addr $SANDBOX_IP:8080 --disable-telemetry \
			--disable-update-check --disable-workspace-trust --user-data-dir $PWD/settings --extensions-dir $PWD/extensions \
			$PWD/work >editor.log 2>&1 </dev/null &`)
	s.awaitAnswer(t, d.id, "/healthz")
	d.browser = startBrowser(t)
	began := time.Now()
	d.do(t, `await page.goto('http://8080-%s.localhost:%d/')`, d.id, port)
	d.openFile(t)
	d.opening = time.Since(began)
	s.configure(t, d.id, `{"idleTimeout":null}`)
	return d
}

// awaitAnswer waits until something in the sandbox answers at the path.
func (s *sandman) awaitAnswer(t *testing.T, id, path string) {
	t.Helper()
	eventually(t, editorReady, "an answer at "+path, func() bool {
		a, err := s.do(s.request(t.Context(), http.MethodGet, id, appPort, path, nil))
		return err == nil && a.status == http.StatusOK
	})
}

// openFile opens notes.txt, with the cursor at its end.
func (d *desk) openFile(t *testing.T) {
	t.Helper()
	d.do(t, `
		await page.waitForSelector('.monaco-workbench')
		await page.locator('.explorer-folders-view .monaco-list-row', { hasText: 'notes.txt' }).dblclick()
		await page.locator('.editor-instance .view-lines', { hasText: 'first' }).click()
		await page.keyboard.press('Control+End')
		kept.requests.length = 0
	`)
}

// write types as a person does.
func (d *desk) write(t *testing.T, text string) {
	t.Helper()
	d.do(t, `await page.keyboard.type(%q)`, text)
}

// requireText waits until the editor shows the text and the file holds it, and fails the test if the
// page was loaded again on the way.
func (d *desk) requireText(t *testing.T, within time.Duration, text string) {
	t.Helper()
	eventually(t, within, fmt.Sprintf("the file holds %q", text), func() bool {
		return strings.Contains(d.s.run(t, d.id, "cat work/notes.txt"), text)
	})
	if shown := ask[string](t, d.browser, `return page.locator('.editor-instance .view-lines').innerText()`); !strings.Contains(shown, text) {
		t.Errorf("the editor shows %q", shown)
	}
	for _, r := range ask[[]string](t, d.browser, `return kept.requests`) {
		if strings.HasPrefix(r, "navigated") {
			t.Errorf("the page was loaded again: %s", r)
		}
	}
}

// awaitSleep waits until the sandbox is paused though the tab is open. An editor that was just loaded has
// things of its own to do first.
func (d *desk) awaitSleep(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(d.s.idle + editorReady); d.s.record(t, d.id).State != "PAUSED"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the sandbox does not sleep: %s", d.s.why(t, d.id))
		}
	}
}

// staysAsleep watches that nothing wakes the sandbox.
func (d *desk) staysAsleep(t *testing.T, span time.Duration) {
	t.Helper()
	for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if r := d.s.record(t, d.id); r.State != "PAUSED" {
			t.Fatalf("the sandbox is %s: %s", r.State, r.Reason)
		}
	}
}
