package demo_test

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestCount_inMemoryAndOnDisk(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	if s := e.do(t, http.MethodGet, "/api/state", "").state(t); s.Memory != 0 || s.Disk != nil || s.Pid != os.Getpid() {
		t.Errorf("before anything was counted: %+v", s)
	}
	e.do(t, http.MethodPost, "/api/count", "").state(t)
	first := e.do(t, http.MethodPost, "/api/count", "").state(t)
	if first.Memory != 2 || first.Disk.Count != 2 || time.Since(first.Disk.StartedAt) > time.Minute {
		t.Errorf("after two: %+v", first)
	}
	e.stop()

	again := start(t, e.home)
	s := again.do(t, http.MethodPost, "/api/count", "").state(t)
	if s.Memory != 1 || s.Disk.Count != 3 || !s.Disk.StartedAt.Equal(first.Disk.StartedAt) || !s.StartedAt.After(first.StartedAt) {
		t.Errorf("a new process has %+v", s)
	}
	again.write(t, "counter.json", "{broken")
	if s := again.do(t, http.MethodPost, "/api/count", "").state(t); s.Memory != 2 || s.Disk.Count != 1 {
		t.Errorf("after the file was broken: %+v", s)
	}
	if content := again.file(t, "counter.json"); !strings.Contains(content, `"count": 1`) {
		t.Errorf("the file that people look at is %s", content)
	}
}
