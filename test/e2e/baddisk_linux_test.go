package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestBadDay_aDamagedStoreIsNamed(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]struct {
		glob   string
		spoils func(file string, size int64) error
	}{
		"database cut":       {"snap/db", func(file string, _ int64) error { return os.Truncate(file, int64(2*os.Getpagesize())) }},
		"database of zeroes": {"snap/db", func(file string, size int64) error { return os.WriteFile(file, make([]byte, size), 0o600) }},
		"log of nonsense": {"wal/*.wal", func(file string, _ int64) error {
			return os.WriteFile(file, bytes.Repeat([]byte("nonsense"), 1<<10), 0o600)
		}},
		"log is gone": {"wal/*.wal", func(file string, _ int64) error { return os.Remove(file) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, options{})
			s.process.end(t)
			found := filesOf(t, s.dir, damage.glob)
			for _, f := range found {
				info, err := os.Stat(f)
				if err == nil {
					err = damage.spoils(f, info.Size())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			out, code := s.startInVain(t)
			if code == 0 || code == -1 {
				t.Errorf("exit code %d", code)
			}
			if !strings.Contains(out, s.dir) || strings.Contains(out, "goroutine ") || strings.Contains(out, "panic:") {
				t.Errorf("wanted a message that names %s, without a stack trace:\n%s", s.dir, out)
			}
			t.Log(lastLine(out))
		})
	}
}

// filesOf finds files of etcd's member below dir.
func filesOf(t *testing.T, dir, glob string) []string {
	t.Helper()
	var member string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "member" {
			member = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(member, glob))
	if err != nil || len(found) == 0 {
		t.Fatalf("no %s in %q: %v", glob, member, err)
	}
	return found
}

// startInVain starts the program again and returns what it said before it gave up.
func (s *sandman) startInVain(t *testing.T) (output string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, sandmanBinary, "run", "--config", filepath.Join(repository, "Caddyfile"))
	cmd.Dir, cmd.Env = filepath.Dir(s.dir), s.process.cmd.Env
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// A disk that is full is a store that takes no writes: what runs is served, nothing is paused and
// nothing is lost.
func TestBadDay_diskFull(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	data := filepath.Join(dir, "d")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=160m"); err != nil {
		t.Skipf("only who may mount can fill a disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(data, syscall.MNT_DETACH) })
	s := start(t, options{data: data, idle: clusterIdle})
	id, before := s.startAppIn(t)
	filler := filepath.Join(data, "filler")
	fill(t, filler)

	for range 20 { // the app's own line may not fit; an answer of Sandman's would be a 503
		a, err := s.do(s.request(t.Context(), http.MethodGet, id, appPort, "/echo", nil))
		if err != nil || a.status >= http.StatusInternalServerError {
			t.Errorf("while the disk is full: %v, %s", err, a)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if a := s.rest(t, http.MethodPost, "/sandboxes", `{"templateID":"base","timeout":300}`); a.status < 500 {
		t.Errorf("a new sandbox on a full disk: %s", a)
	}
	time.Sleep(clusterIdle) // it is due meanwhile
	if state := s.e2b.state(t, id); state != "running" {
		t.Errorf("with a full disk the sandbox was %s", state)
	}

	// etcd has ended with its log: it takes a restart, with which everything is as it was
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.process.kill()
	s = start(t, options{data: data, idle: clusterIdle})
	after := s.mustAsk(t, id)
	if after.Pid != before.Pid || after.Memory != before.Memory {
		t.Errorf("after the restart the app is %+v, before %+v", after, before)
	}
	s.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	s.mustAsk(t, id)
}

// fill writes until nothing fits any more.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}
