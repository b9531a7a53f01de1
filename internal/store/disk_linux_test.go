package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

// smallDisk mounts one of the given size, such as "300m".
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("only who may mount can fill a disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill takes all that is left, at once, and gives the file that has it.
func fill(t *testing.T, dir string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	left := int64(s.Bavail) * s.Bsize
	if err := unix.Fallocate(int(f.Fd()), 0, 0, left); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// A disk that is full from one moment to the next takes no writes, and nothing
// more comes of it: the server goes on when there is space again.
func TestEmbedded_diskFull(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "300m")
	core, logs := observer.New(zapcore.ErrorLevel)
	e, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: filepath.Join(dir, "data"), Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	r := newNode(t, e.Client(), "/disk/", "node-a")
	defer r.stop()
	rec := r.adopt("s", session.Running)
	for range 2 {
		filler := fill(t, dir)
		var err error
		// what it has reserved takes all that comes until it notices, at the rate of a busy Sandman
		for pace := time.NewTicker(time.Millisecond); err == nil; <-pace.C {
			_, err = e.Client().Put(r.ctx, "/key", strings.Repeat("x", 1000))
		}
		if !errors.Is(err, rpctypes.ErrNoSpace) {
			t.Fatalf("the write that failed: %v", err)
		}
		r.eventually("a word of it", func() bool { return e.Err() != nil && r.View().Full() })
		if why := e.Err(); why == nil || !strings.Contains(why.Error(), "0 MB left") {
			t.Errorf("it says %v", why)
		}
		if got, err := e.Client().Get(r.ctx, "/key"); err != nil || len(got.Kvs) != 1 {
			t.Errorf("reading: %+v, %v", got, err)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		r.eventually("the server to go on", func() bool { return e.Err() == nil })
		r.eventually("a visit", func() bool {
			_, err := r.Enter(r.ctx, "s", rec.Revision, "request")
			return err == nil
		})
	}
	if n := logs.Len(); n != 2 {
		t.Errorf("it logged %v", logs.All())
	}
}

// What etcd can't do is not begun: half a start would leave half a log.
func TestOpenEmbedded_diskFull(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "300m")
	data := filepath.Join(dir, "data")
	refused := func(needs string) {
		t.Helper()
		e, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: data})
		if err == nil {
			e.Close()
			t.Fatal("it started")
		}
		if says := err.Error(); !strings.Contains(says, data) || !strings.Contains(says, "has 0 MB left, and it needs "+needs+" to start") {
			t.Errorf("it says %v", err)
		}
	}
	filler := fill(t, dir)
	refused("144")
	for range 2 {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		e := open(t, store.EmbeddedConfig{Dir: data})
		if _, err := e.Client().Put(t.Context(), "/key", "value"); err != nil {
			t.Error(err)
		}
		if got, err := e.Client().Get(t.Context(), "/key"); err != nil || len(got.Kvs) != 1 {
			t.Errorf("reading: %+v, %v", got, err)
		}
		e.Close()
		fill(t, dir)
		refused("64")
	}
}
