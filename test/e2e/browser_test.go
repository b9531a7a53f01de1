package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// browser is a real Chromium with one page, driven by browser/driver.mjs.
type browser struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// startBrowser starts Chromium, which is ended at the end of the test. If the test has failed, a
// screenshot of the page is left in the folder that SCREENSHOTS names.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	cmd := exec.Command("node", "browser/driver.mjs")
	cmd.Stderr = &logBuffer{}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting the browser: %v", err)
	}
	b := &browser{in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		if t.Failed() {
			b.screenshot(t, "failed")
		}
		_ = in.Close()
		killer := time.AfterFunc(endWithin, func() { _ = cmd.Process.Kill() })
		defer killer.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the browser ended with %v\n%s", err, cmd.Stderr)
		}
	})
	return b
}

// try runs JavaScript with page, context and kept at hand (see driver.mjs) and reads what it returns
// into v, which may be nil.
func (b *browser) try(v any, code string, args ...any) error {
	line, err := json.Marshal(map[string]string{"code": fmt.Sprintf(code, args...)})
	if err != nil {
		return err
	}
	if _, err := b.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("telling the browser: %w", err)
	}
	line, err = b.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the browser has gone: %w", err)
	}
	var answer struct {
		Value json.RawMessage
		Error string
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return fmt.Errorf("in the browser: %s", answer.Error)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, v)
}

// do is try for a test that can't go on without.
func (b *browser) do(t *testing.T, code string, args ...any) {
	t.Helper()
	if err := b.try(nil, code, args...); err != nil {
		t.Fatal(err)
	}
}

// ask is do with an answer.
func ask[T any](t *testing.T, b *browser, code string, args ...any) T {
	t.Helper()
	var v T
	if err := b.try(&v, code, args...); err != nil {
		t.Fatal(err)
	}
	return v
}

// screenshot leaves a picture of the page where SCREENSHOTS says.
func (b *browser) screenshot(t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	file, err := filepath.Abs(filepath.Join(dir, t.Name()+"-"+name+".png"))
	if err == nil {
		err = b.try(nil, "await page.screenshot({ path: %q, timeout: 5000 })", file)
	}
	if err != nil {
		t.Logf("no screenshot: %v", err)
	}
}
