package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

// open starts an embedded server whose log must show no errors but the want of
// space that a test has brought about.
func open(t *testing.T, cfg store.EmbeddedConfig) *store.Embedded {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	cfg.Logger = zap.New(core)
	e, err := store.OpenEmbedded(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		for _, l := range logs.FilterLevelExact(zapcore.ErrorLevel).All() {
			switch {
			case l.Message == "etcd is short of space" && cfg.QuotaBytes > 0:
				continue
			case l.Message == "failed to update storage version": // etcd looks before its first commit has come to its disk, and again
				continue
			}
			t.Errorf("it logged %q %v", l.Message, l.ContextMap())
		}
	})
	return e
}

func TestOpenEmbedded_keepsItsData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "on", "the", "way")
	e := open(t, store.EmbeddedConfig{Dir: dir})
	r := newNode(t, e.Client(), "/kept/", "node-a")
	rec := r.adopt("s", session.Paused)
	r.stop()
	for range 2 { // closing again is harmless
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	e = open(t, store.EmbeddedConfig{Dir: dir})
	r = newNode(t, e.Client(), "/kept/", "node-b")
	defer r.stop()
	if sb, ok := r.View().Get("s"); !ok || sb.Revision != rec.Revision {
		t.Errorf("after a restart: %+v", sb)
	}
	if _, err := r.Transition(r.ctx, r.resuming(rec)); err != nil {
		t.Error(err)
	}
}

func TestOpenEmbedded_folderInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, store.EmbeddedConfig{Dir: dir})
	_, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}

func TestOpenEmbedded_folderThatCantBeUsed(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"a damaged database": func(t *testing.T, dir string) {
			overwrite(t, filepath.Join(dir, "etcd/member/snap/db"), "this is no database")
		},
		"a newer version's database": func(t *testing.T, dir string) {
			db, err := bolt.Open(filepath.Join(dir, "etcd/member/snap/db"), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			err = db.Update(func(tx *bolt.Tx) error {
				return tx.Bucket([]byte("meta")).Put([]byte("storageVersion"), []byte("9.9.0"))
			})
			if err != nil {
				t.Fatal(err)
			}
		},
		"a damaged log": func(t *testing.T, dir string) {
			wals, _ := filepath.Glob(filepath.Join(dir, "etcd/member/wal/*.wal"))
			for _, wal := range wals {
				flip(t, wal, "in the log")
			}
		},
		"a file instead": func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			e, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.Client().Put(t.Context(), "a", "in the log"); err != nil {
				t.Fatal(err)
			}
			e.Close()
			spoil(t, dir)
			e, err = store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: dir})
			if err == nil {
				e.Close()
				t.Fatal("it opened")
			}
			if !strings.Contains(err.Error(), dir) {
				t.Errorf("the error doesn't name the folder: %v", err)
			}
			t.Log(err)
		})
	}
}

func overwrite(t *testing.T, path, with string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 4096 { // the first pages, not the whole
		if _, err := f.WriteString(with); err != nil {
			t.Fatal(err)
		}
	}
}

// flip changes one bit of a text in a file, as a bad disk does.
func flip(t *testing.T, path, text string) {
	t.Helper()
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(all, []byte(text))
	if at < 0 {
		t.Fatalf("%q is not in %s", text, path)
	}
	all[at] ^= 1
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
}

// quota is that of the tests that reach it; the database wastes some of it.
const quota = 16 << 20

// overfill writes values until the server takes no more, to a few keys again and
// again, or to more and more.
func overfill(t *testing.T, e *store.Embedded, key func(i int) string) {
	t.Helper()
	filler := strings.Repeat("x", 4<<10)
	for i := range 1000 {
		var puts []clientv3.Op // small ones, which waste little
		for j := range 16 {
			puts = append(puts, clientv3.OpPut(fmt.Sprint(key(i), "/", j), filler))
		}
		_, err := e.Client().Txn(t.Context()).Then(puts...).Commit()
		switch {
		case errors.Is(err, rpctypes.ErrNoSpace):
			return
		case err != nil:
			t.Fatal(err)
		}
	}
	t.Fatal("the quota is none")
}

func onFewKeys(int) string    { return "/filler" }
func onManyKeys(i int) string { return fmt.Sprint("/filler/", i) }

// The first write that is refused may be so before there is an alarm, which
// alone makes etcd refuse smaller ones that would fit: the tests wait for it.
func TestOpenEmbedded_quota(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, store.EmbeddedConfig{Dir: dir, QuotaBytes: quota})
	r := newNode(t, e.Client(), "/quota/", "node-a")
	rec := r.adopt("s", session.Running)
	overfill(t, e, onManyKeys)
	r.eventually("the alarm", func() bool { return e.Err() != nil && r.View().Full() })
	if why := e.Err().Error(); !strings.Contains(why, dir) || !strings.Contains(why, "16 MB") {
		t.Errorf("it says %q", why)
	}
	_, err := r.Enter(r.ctx, "s", rec.Revision, "request")
	if !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("got %v, want ErrNoSpace", err)
	}
	if _, ok := r.View().Get("s"); !ok {
		t.Error("reading has ended, too")
	}
	r.stop()
	e.Close()

	// the same once more, and then a larger quota is all that it takes
	e = open(t, store.EmbeddedConfig{Dir: dir, QuotaBytes: quota})
	if err := e.Err(); err == nil {
		t.Errorf("started again it says %v", err)
	}
	e.Close()
	e = open(t, store.EmbeddedConfig{Dir: dir, QuotaBytes: 64 << 20})
	if err := e.Err(); err != nil {
		t.Errorf("with a larger quota it says %v", err)
	}
	r = newNode(t, e.Client(), "/quota/", "node-b")
	defer r.stop()
	if _, err := r.Enter(r.ctx, "s", rec.Revision, "request"); err != nil {
		t.Error(err)
	}
}

// What fills the quota with revisions that nobody needs is given up while the
// server runs.
func TestEmbedded_makesRoomByItself(t *testing.T) {
	t.Parallel()
	e := open(t, store.EmbeddedConfig{Dir: t.TempDir(), QuotaBytes: quota})
	r := newNode(t, e.Client(), "/room/", "node-a")
	defer r.stop()
	rec := r.adopt("s", session.Running)
	overfill(t, e, onFewKeys)
	r.eventually("a write", func() bool {
		_, err := e.Client().Put(r.ctx, "/filler", strings.Repeat("x", 1<<20))
		return err == nil && e.Err() == nil
	})
	r.eventually("a visit", func() bool {
		_, err := r.Enter(r.ctx, "s", rec.Revision, "request")
		return err == nil
	})
}

func TestOpenEmbedded_opensNoSocket(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("looks into /proc")
	}
	before := sockets(t) // not parallel: the other tests open some
	e := open(t, store.EmbeddedConfig{Dir: t.TempDir()})
	r := newNode(t, e.Client(), "/sockets/", "node-a")
	defer r.stop()
	l := lead(t, r.Store)
	await(t, "a term", l.began)
	defer l.stop()
	if after := sockets(t); after > before {
		t.Errorf("%d sockets, %d before", after, before)
	}
}

func sockets(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

func TestOpenEmbedded_givenUp(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if _, err := store.OpenEmbedded(ctx, store.EmbeddedConfig{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestDial_refusesWhatCantWork(t *testing.T) {
	t.Parallel()
	for _, cfg := range []store.DialConfig{{}, {Endpoints: []string{"127.0.0.1:1"}, Username: "root"}} {
		if c, err := store.Dial(cfg); err == nil {
			c.Close()
			t.Errorf("%+v: no error", cfg)
		}
	}
}

// With a password, too, dialling makes no call; the login is made when it is
// first needed, by calls, watches and keep-alives alike.
func TestDial_withAPassword(t *testing.T) {
	t.Parallel()
	server := newRemote(t)
	admin := server.dial()
	for _, do := range []func() error{
		func() error { _, err := admin.RoleAdd(t.Context(), "root"); return err },
		func() error { _, err := admin.UserAdd(t.Context(), "root", "secret"); return err },
		func() error { _, err := admin.UserGrantRole(t.Context(), "root", "root"); return err },
		func() error { _, err := admin.AuthEnable(t.Context()); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	server.stop()
	dial := func(password string) *clientv3.Client {
		c, err := store.Dial(store.DialConfig{Endpoints: []string{server.address()}, Username: "root", Password: password})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	right, wrong := dial("secret"), dial("guess")
	server.start()
	r := newMortal(t, right, "/auth/", "node-a", 4*time.Second)
	rec := r.adopt("s", session.Running)
	r.enter("s", rec.Revision)
	l := r.Lease()
	r.eventually("a keep-alive", func() bool { return r.Lease().Until.After(l.Until) })
	server.stop() // forgets its tokens
	server.start()
	if _, err := r.Transition(r.ctx, r.pausing(rec)); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if sb, err := r.View().Wait(r.ctx, "s", rec.Revision); err != nil || sb.State != session.Pausing {
		t.Errorf("the watch after a restart: %+v, %v", sb, err)
	}
	l = r.Lease()
	r.eventually("a keep-alive", func() bool { return r.Lease().Until.After(l.Until) })
	if _, err := wrong.Get(r.ctx, "a"); err == nil || !strings.Contains(err.Error(), "authentication failed") {
		t.Errorf("with a wrong password: %v", err)
	}
	r.stop()
}

func BenchmarkEnterLeave(b *testing.B) {
	r := newBench(b, 64)
	b.ResetTimer()
	b.SetParallelism(32) // 64 requests at once on 2 cores
	next := make(chan int, 64)
	for i := range 64 {
		next <- i
	}
	b.RunParallel(func(pb *testing.PB) {
		i := <-next
		for pb.Next() {
			rec := r.recs[i]
			e, err := r.store.Enter(r.ctx, rec.SandboxID, rec.Revision, "request")
			if err == nil {
				err = r.store.Leave(r.ctx, rec.SandboxID, e.PresenceRevision, 0, "request")
			}
			if err != nil {
				b.Error(err)
			}
		}
		next <- i
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "visits/s")
}

func BenchmarkFlush(b *testing.B) {
	const n = 10_000
	r := newBench(b, n)
	bumps := make([]store.Bump, n)
	for i, rec := range r.recs {
		if _, err := r.store.Enter(r.ctx, rec.SandboxID, rec.Revision, "request"); err != nil {
			b.Fatal(err)
		}
		bumps[i] = store.Bump{ID: rec.SandboxID, Kind: "request"}
	}
	b.ResetTimer()
	for b.Loop() {
		if err := r.store.Flush(r.ctx, bumps); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "bumps/s")
}

type bench struct {
	store *store.Store
	ctx   context.Context
	recs  []session.Record
}

func newBench(b *testing.B, sandboxes int) *bench {
	b.Helper()
	e, err := store.OpenEmbedded(b.Context(), store.EmbeddedConfig{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	s := store.New(e.Client(), store.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done; e.Close() })
	for s.Lease().ID == 0 {
		runtime.Gosched()
	}
	r := &bench{store: s, ctx: ctx, recs: make([]session.Record, sandboxes)}
	for i := range r.recs {
		rec := session.Record{SandboxID: fmt.Sprintf("sandbox-%05d", i), State: session.Running}
		if r.recs[i], err = s.Adopt(ctx, rec); err != nil {
			b.Fatal(err)
		}
	}
	return r
}

// While the store takes no writes, proxies serve without presence, and the
// leader may only decide again when they have had time to ENTER: room is a part
// of contact, also for a process that writes nothing itself.
func TestContact_isLostWhileTheStoreIsFull(t *testing.T) {
	t.Parallel()
	e := open(t, store.EmbeddedConfig{Dir: t.TempDir(), QuotaBytes: quota})
	r := newNode(t, e.Client(), "/full/", "node-a")
	defer r.stop()
	before := r.awaitContact(true)
	overfill(t, e, onManyKeys)
	lost := r.awaitContact(false) // though nobody has used the Store
	if lost == before || !r.View().Full() {
		t.Errorf("epoch %d, then %d; full: %t", before, lost, r.View().Full())
	}
	if l := r.Lease(); !l.Alive(time.Now(), 0) {
		t.Error("presence that stands is no longer believed")
	}

	if _, err := e.Client().Delete(r.ctx, "/filler/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	r.awaitContactAgain(before)
}
