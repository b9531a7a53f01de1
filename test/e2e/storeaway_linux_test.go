package e2e_test

import (
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

// saidWithin is how long what needs the store may take to say that it is away, and a busy machine to hear of it.
const saidWithin = 5*time.Second + 2*time.Second

// TestStoreAway_isSaidSoon stops etcd where it stands, so that its connections stay and nothing is answered,
// and then ends it, so that none is made.
func TestStoreAway_isSaidSoon(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	s := c.sandmen[0]
	id := s.create(t)
	s.call(t, http.MethodPatch, "/sandboxes/"+id, `{"idleTimeout":"1h"}`)
	for _, away := range []struct {
		name string
		make func() error
	}{
		{"it hangs", func() error { return c.store.process.cmd.Process.Signal(syscall.SIGSTOP) }},
		{"it is gone", c.store.process.cmd.Process.Kill},
	} {
		if err := away.make(); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for _, args := range [][]string{{"sandbox", "pause", id}, {"sandbox", "pause", id, "--force"}, {"sandbox", "hold", id, "--for", "1h"}} {
			all.Go(func() {
				began := time.Now()
				s.cli(t, args...).require(t, 5, args, "the session store can't be reached: nothing is paused until it is back")
				if took := time.Since(began); took > saidWithin {
					t.Errorf("%s: sandman %v took %s", away.name, args, took)
				}
			})
		}
		for path, method := range map[string]string{"/pause": http.MethodPost, "/holds/build": http.MethodPut} {
			all.Go(func() {
				body := ""
				if method == http.MethodPut {
					body = `{"for":"1h"}`
				}
				began := time.Now()
				a := s.call(t, method, "/sandboxes/"+id+path, body)
				requireProblem(t, a, http.StatusServiceUnavailable)
				if took := time.Since(began); took > saidWithin || a.header.Get("Retry-After") == "" {
					t.Errorf("%s: %s %s took %s, Retry-After %q", away.name, method, path, took, a.header.Get("Retry-After"))
				}
			})
		}
		all.Wait()
	}
	c.store.process.kill()
	c.store.start(t)
	eventually(t, settled, "the store in reach", func() bool { return s.status(t).Store.OK })
	if r := s.record(t, id); r.State != "RUNNING" {
		t.Errorf("what was refused was done later: %+v", r)
	}
	// until a leader has looked, the use before the loss is a vanished proxy's
	eventually(t, settled, "a pause by hand", func() bool {
		return s.call(t, http.MethodPost, "/sandboxes/"+id+"/pause", "").status == http.StatusOK
	})
	s.awaitState(t, late, id, "PAUSED")
}
