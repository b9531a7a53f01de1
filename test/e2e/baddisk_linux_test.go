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
// nothing is lost; and with space again all goes on by itself, as often as it happens.
func TestBadDay_diskFull(t *testing.T) {
	t.Parallel()
	s := start(t, options{data: smallDisk(t, "320m"), idle: clusterIdle})
	id, before := s.startAppIn(t)
	filler := filepath.Join(s.dir, "filler")
	for range 2 {
		if s.storeTrouble(t) != "" {
			t.Errorf("with space the status says %q", s.storeTrouble(t))
		}
		s.mustAsk(t, id)
		fill(t, filler)
		s.serveOnAFullDisk(t, id, 20)
		if why := s.storeTrouble(t); !strings.Contains(why, "0 MB left") || !strings.Contains(why, s.dir) || !strings.Contains(why, "nothing is paused") {
			t.Errorf("with a full disk the status says %q", why)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		eventually(t, settled, "the store to be well", func() bool { return s.storeTrouble(t) == "" })
		after := s.mustAsk(t, id)
		if after.Pid != before.Pid || after.Memory != before.Memory {
			t.Errorf("afterwards the app is %+v, before %+v", after, before)
		}
		s.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	}
	s.mustAsk(t, id)
}

// While its disk is full Sandman is killed, and started again.
func TestBadDay_diskFullAndKilled(t *testing.T) {
	t.Parallel()
	data := smallDisk(t, "320m")
	s := start(t, options{data: data, idle: clusterIdle})
	id, before := s.startAppIn(t)
	filler := filepath.Join(data, "filler")
	fill(t, filler)
	s.process.kill()
	s = start(t, options{data: data, idle: clusterIdle})
	s.serveOnAFullDisk(t, id, 3) // each one tries the store for 4 s: there is no lease
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	after := s.mustAsk(t, id)
	if after.Pid != before.Pid || after.Memory != before.Memory {
		t.Errorf("afterwards the app is %+v, before %+v", after, before)
	}
	s.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	s.mustAsk(t, id)
}

// smallDisk mounts one of the given size, such as "320m", and returns a folder on it.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	data := filepath.Join(shortDir(t), "d")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("only who may mount can fill a disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(data, syscall.MNT_DETACH) })
	return data
}

// serveOnAFullDisk uses the sandbox for a while, then leaves it alone for longer than it may be idle.
func (s *sandman) serveOnAFullDisk(t *testing.T, id string, requests int) {
	t.Helper()
	for range requests { // the app's own line may not fit; an answer of Sandman's would be a 503
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
}

// storeTrouble is what the status says of the store, "" while it is well.
func (s *sandman) storeTrouble(t *testing.T) string {
	t.Helper()
	var st struct {
		Status string `json:"status"`
		Store  struct {
			OK    bool   `json:"ok"`
			Error string `json:"error"`
		} `json:"store"`
	}
	s.call(t, http.MethodGet, "/status", "").decode(t, &st)
	if st.Store.OK != (st.Store.Error == "") || (!st.Store.OK && st.Status != "degraded") {
		t.Errorf("the status is %+v", st)
	}
	return st.Store.Error
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
