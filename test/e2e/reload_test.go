package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// reload gives the running Sandman the configuration that o stands for, as an operator does.
func (s *sandman) reload(t *testing.T, o options, args ...string) {
	t.Helper()
	if out, err := s.tryReload(t, o, args...); err != nil {
		t.Fatalf("reloading: %v\n%s", err, out)
	}
}

func (s *sandman) tryReload(t *testing.T, o options, args ...string) ([]byte, error) {
	t.Helper()
	args = append([]string{"reload", "--config", o.config(t), "--address", "unix/" + s.adminSocket()}, args...)
	cmd := exec.CommandContext(t.Context(), sandmanBinary, args...)
	cmd.Dir = filepath.Dir(s.dir)
	cmd.Env = append(cmd.Environ(), "HOME="+cmd.Dir)
	for name, value := range s.environment(o) {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd.CombinedOutput()
}

func (s *sandman) adminSocket() string { return filepath.Join(s.dir, "admin.sock") }

// goroutines asks the admin endpoint how many there are, and for their stacks.
func (s *sandman) goroutines(t *testing.T) (total int, stacks string) {
	t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.adminSocket())
	}
	admin := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	res, err := admin.Do(newRequest(t, http.MethodGet, "http://localhost/debug/pprof/goroutine?debug=1", nil))
	if err != nil {
		t.Fatalf("asking for the goroutines: %v", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("reading the goroutines: %v", err)
	}
	if _, err := fmt.Sscanf(string(body), "goroutine profile: total %d", &total); err != nil {
		t.Fatalf("reading the goroutines: %v in %.80s", err, body)
	}
	return total, string(body)
}

// goroutinesIn counts those that have the function on their stack. The profile is groups, each of which
// begins with its number of goroutines.
func goroutinesIn(stacks, function string) (total int) {
	for group := range strings.SplitSeq(stacks, "\n\n") {
		if strings.Contains(group, function) {
			lines := strings.SplitAfter(group, "profile: total")
			var n int
			_, _ = fmt.Sscanf(lines[len(lines)-1], "%d @", &n)
			total += n
		}
	}
	return total
}

const reloadedIdle = 3 * time.Second

// reloads are the changes of a configuration that a reload has to bear.
func reloads() map[string]struct {
	change func(*options)
	args   []string
} {
	return map[string]struct {
		change func(*options)
		args   []string
	}{
		"nothing":              {func(*options) {}, []string{"--force"}},
		"another idle timeout": {func(o *options) { o.idle = reloadedIdle }, nil},
		"another site": {func(o *options) {
			o.caddyfile = strings.NewReplacer("# Everything else", "respond /another \"another site\"\n\n\t# Everything else")
		}, nil},
	}
}

func TestReload_losesAndCutsNothing(t *testing.T) {
	t.Parallel()
	for name, to := range reloads() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options{data: filepath.Join(shortDir(t), "d"), host: startSandboxd(t, "resume_delay=3s").url}
			s := start(t, o)
			used, before := s.startAppIn(t)
			held, _ := s.startAppIn(t)
			parked, _ := s.startAppIn(t)
			socket, sleeping := s.dial(t, used), s.dial(t, parked)
			requireEcho(t, socket, "before")
			requireEcho(t, sleeping, "good night")
			s.pause(t, held)
			s.pause(t, parked)

			const seconds = 8
			download := s.beginDownload(t, used, seconds)
			upload := s.begin(s.request(t.Context(), http.MethodPut, used, appPort, "/upload",
				oneByteASecond(t.Context(), bytes.Repeat([]byte("u"), seconds))))
			waiting := s.begin(s.request(t.Context(), http.MethodGet, held, appPort, "/state", nil))
			s.awaitState(t, 2*time.Second, held, "RESUMING")
			stop := askAllTheTime(t, s, used)

			node := s.status(t).Leader.Node
			to.change(&o)
			s.reload(t, o, to.args...)
			if now := s.status(t).Leader; name != "another idle timeout" && (!now.Me || now.Node != node) {
				t.Errorf("the leader was %s, and is %+v", node, now)
			}
			eventually(t, 2*time.Second, "a leader", func() bool { return s.leads(t) })

			requireEcho(t, socket, "after")
			requireEcho(t, sleeping, "good morning")
			for what, r := range map[string]<-chan result{"download": download, "upload": upload, "held request": waiting} {
				if got := <-r; got.err != nil || got.answer.status != http.StatusOK {
					t.Errorf("the %s that was in flight: %v; %s", what, got.err, got.answer)
				}
			}
			stop()
			requireContinued(t, before, s.mustAskOnce(t, used, before), 1)
			requireEcho(t, socket, "still")
			if o.idle > 0 {
				s.requireSleepsUnder(t, socket, used, o.idle)
			}
		})
	}
}

// A reload to another store or with other times changes what new requests meet, and nothing for those
// that are under way.
func TestReload_toAnotherEtcdLosesNothing(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*testing.T, *options){
		"another etcd":   func(t *testing.T, o *options) { o.etcd = startEtcd(t).endpoint },
		"another prefix": func(_ *testing.T, o *options) { o.caddyfile = etcdBlock(o.etcd, "prefix /another/") },
		"other times": func(_ *testing.T, o *options) {
			o.caddyfile = strings.NewReplacer("idle_timeout ", "hold 20s\n\t\tdrain 3s\n\t\tlease_ttl 6s\n\t\tcheck_every 1m\n\t\tidle_timeout ")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := reloadOptions(t)
			s := start(t, o)
			u := s.beginUnderway(t)
			change(t, &o)
			s.reload(t, o)
			eventually(t, settled, "a leader", func() bool { return s.leads(t) })
			for _, id := range u.ids() {
				s.mustAsk(t, id) // now the new store knows them too, and may pause them
			}
			requireEchoSoon(t, u.parked, "good morning")
			u.requireUnharmed(t)
			requireEchoSoon(t, u.parked, "still here, too")
			for _, id := range u.ids() {
				s.awaitState(t, settled+late, id, "PAUSED")
			}
			requireEchoSoon(t, u.parked, "woken")
			requireEchoSoon(t, u.talk, "woken")
			s.mustAsk(t, u.downloading)
		})
	}
}

// What is under way at the former host comes to its end there; new requests find the new host's sandboxes.
func TestReload_toAnotherHostLosesNothingUnderWay(t *testing.T) {
	t.Parallel()
	for name, otherEtcd := range map[string]bool{"on the same etcd": false, "and another etcd": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, host := reloadOptions(t), startSandboxd(t, "")
			s := start(t, o)
			u := s.beginUnderway(t)
			o.host = host.url
			if otherEtcd {
				o.etcd = startEtcd(t).endpoint
			}
			s.reload(t, o)
			eventually(t, settled, "a leader", func() bool { return s.leads(t) })
			id, _ := s.startAppIn(t)
			if state := host.state(t, id); state != "running" {
				t.Errorf("a new sandbox is %q at the new host", state)
			}
			u.requireUnharmed(t)
			s.awaitState(t, settled+late, id, "PAUSED")
			s.mustAsk(t, id)
		})
	}
}

// reloadOptions are those before a reload, on an etcd and a host of their own.
func reloadOptions(t *testing.T) options {
	t.Helper()
	return options{
		data: filepath.Join(shortDir(t), "d"), idle: reloadedIdle,
		host: startSandboxd(t, "resume_delay=3s").url, etcd: startEtcd(t).endpoint,
	}
}

// underway is all that a reload can find: each in a sandbox of its own, which it alone keeps awake.
type underway struct {
	downloading, uploading, holding, talking, parking string // sandboxes

	began        time.Time
	results      map[string]<-chan result
	talk, parked *websocket.Conn
}

// underwaySeconds is longer than the idle timeout and the settle period after a reload.
const underwaySeconds = 25

func (s *sandman) beginUnderway(t *testing.T) *underway {
	t.Helper()
	u := new(underway)
	for _, id := range []*string{&u.downloading, &u.uploading, &u.holding, &u.talking, &u.parking} {
		*id, _ = s.startAppIn(t)
	}
	u.parked = s.dial(t, u.parking)
	requireEchoSoon(t, u.parked, "good night")
	s.awaitState(t, settled+late, u.parking, "PAUSED")
	s.awaitState(t, settled+late, u.holding, "PAUSED")
	u.talk = s.dial(t, u.talking)
	requireEchoSoon(t, u.talk, "hello")
	u.began = time.Now()
	u.results = map[string]<-chan result{
		"download": s.beginDownload(t, u.downloading, underwaySeconds),
		"upload": s.begin(s.request(t.Context(), http.MethodPut, u.uploading, appPort, "/upload",
			oneByteASecond(t.Context(), bytes.Repeat([]byte("u"), underwaySeconds)))),
	}
	requireEchoSoon(t, u.talk, "still here") // the others may have had to be woken first
	u.results["held request"] = s.begin(s.request(t.Context(), http.MethodGet, u.holding, appPort, "/state", nil))
	s.awaitState(t, 2*time.Second, u.holding, "RESUMING")
	return u
}

func (u *underway) ids() []string {
	return []string{u.downloading, u.uploading, u.holding, u.talking, u.parking}
}

// requireUnharmed fails the test unless all requests come to their end, and the stream that is in use
// goes on.
func (u *underway) requireUnharmed(t *testing.T) {
	t.Helper()
	for time.Since(u.began) < (underwaySeconds+5)*time.Second {
		began := time.Now()
		requireEchoSoon(t, u.talk, "still here")
		if took := time.Since(began); took > late {
			t.Errorf("a message on a stream that is in use took %s", took)
		}
		time.Sleep(time.Second)
	}
	for what, r := range u.results {
		select {
		case got := <-r:
			if got.err != nil || got.answer.status != http.StatusOK {
				t.Errorf("the %s that was in flight: %v; %s", what, got.err, got.answer)
			}
		case <-time.After(late):
			t.Errorf("the %s that was in flight has not ended", what)
		}
	}
}

// requireEchoSoon is requireEcho for a stream that may hang.
func requireEchoSoon(t *testing.T, c *websocket.Conn, message string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settled)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
		t.Fatalf("sending %q over the WebSocket: %v", message, err)
	}
	if _, got, err := c.Read(ctx); err != nil || string(got) != message {
		t.Fatalf("wanted %q back over the WebSocket, got %q, %v", message, got, err)
	}
}

// requireSleepsUnder fails the test unless a stream of the former configuration goes by the idle timeout
// of this one, and can wake the sandbox still.
func (s *sandman) requireSleepsUnder(t *testing.T, c *websocket.Conn, id string, idle time.Duration) {
	t.Helper()
	s.idle = idle
	lastUse := time.Now()
	requireEcho(t, c, "last use")
	s.requirePausedOnTime(t, id, lastUse)
	requireEcho(t, c, "woken")
	watch := s.watchAwake(t, id)
	for range 6 {
		time.Sleep(idle / 2)
		requireEcho(t, c, "in use")
	}
	watch.end(t)
}

// mustAskOnce asks the app, and takes what others have asked of it out of its count.
func (s *sandman) mustAskOnce(t *testing.T, id string, before appState) appState {
	t.Helper()
	after := s.mustAsk(t, id)
	after.Counter, after.Lines = before.Counter+1, before.Lines+1
	return after
}

// begin sends a request and goes on.
func (s *sandman) begin(r *http.Request) <-chan result {
	done := make(chan result, 1)
	go func() {
		a, err := s.do(r)
		done <- result{a, err}
	}()
	return done
}

// A configuration that can't be loaded leaves all as it was.
func TestReload_thatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	o := options{data: filepath.Join(shortDir(t), "d"), idle: reloadedIdle}
	s := start(t, o)
	id, before := s.startAppIn(t)
	busy := listenSomewhere(t)
	bad := o
	bad.idle = time.Minute
	bad.caddyfile = strings.NewReplacer("# The quick start:", "# not the quick start", "http://:{$SANDMAN_PORT:8080} {", fmt.Sprintf(
		"http://:%d {\n\tbind 127.0.0.1\n\trespond no\n}\n\nhttp://:{$SANDMAN_PORT:8080} {", busy))
	if out, err := s.tryReload(t, bad); err == nil {
		t.Fatalf("a configuration whose port is taken was loaded:\n%s", out)
	}
	lastUse := time.Now()
	requireContinued(t, before, s.mustAsk(t, id), 1)
	s.requirePausedOnTime(t, id, lastUse)
	requireContinued(t, before, s.mustAsk(t, id), 2)
}

// Caddy has to know that an address stays open, or it would wait the delay out.
func TestReload_isNotHeldUpByTheShutdownDelay(t *testing.T) {
	t.Parallel()
	o := options{data: filepath.Join(shortDir(t), "d"), caddyfile: strings.NewReplacer("persist_config off", "persist_config off\n\tshutdown_delay 1s")}
	s := start(t, o)
	s.reload(t, o, "--force")
	if strings.Contains(s.process.log.String(), "shutdown scheduled") {
		t.Error("the reload waited for the delay")
	}
}

// A configuration whose app doesn't start gets no request, whether its sites are opened before or not.
func TestReload_thatFailsToStartLosesNothing(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	o := options{data: filepath.Join(dir, "d")}
	s := start(t, o)
	id, _ := s.startAppIn(t)
	inUse := filepath.Join(dir, "etcd") // whose start fails after a second
	holdDatabase(t, filepath.Join(inUse, "etcd/member/snap/db"))
	bad := o
	bad.caddyfile = strings.NewReplacer("etcd {$SANDMAN_ETCD:embedded}", "etcd embedded "+inUse)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asking sync.WaitGroup
	answered := make([]atomic.Int64, 4)
	for n := range answered {
		asking.Go(func() {
			for ctx.Err() == nil {
				r := s.request(ctx, http.MethodGet, id, appPort, "/state", nil)
				r.Close = true // a connection of its own
				a, err := s.do(r)
				if ctx.Err() != nil {
					return
				}
				if err != nil || a.status != http.StatusOK {
					t.Errorf("%v; %s", err, a)
					return
				}
				answered[n].Add(1)
			}
		})
	}
	for range 5 { // apps are started in any order
		if out, err := s.tryReload(t, bad); err == nil || !bytes.Contains(out, []byte("in use by another process")) {
			t.Fatalf("a configuration whose etcd's folder is in use: %v\n%s", err, out)
		}
		for n := range answered {
			before := answered[n].Load()
			eventually(t, late, "an answer", func() bool { return answered[n].Load() > before || t.Failed() })
		}
	}
	cancel()
	asking.Wait()
}

// holdDatabase makes a file that looks to etcd as if another process had it open.
func holdDatabase(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

// listenSomewhere takes a port of loopback until the test ends.
func listenSomewhere(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func TestReload_leavesNothingBehind(t *testing.T) {
	t.Parallel()
	o := options{data: filepath.Join(shortDir(t), "d"), idle: reloadedIdle}
	s := start(t, o)
	id, before := s.startAppIn(t)
	s.reload(t, o, "--force")
	base, _ := s.goroutines(t)
	for n := range 10 {
		o.idle = reloadedIdle + time.Duration(n%2)*time.Second
		s.reload(t, o, "--force")
		s.mustAsk(t, id)
	}
	now, stacks := s.goroutines(t)
	for deadline := time.Now().Add(20 * time.Second); now > base+5; now, stacks = s.goroutines(t) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before:\n%s", now, base, stacks)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n := goroutinesIn(stacks, "etcdserver.(*EtcdServer).run+"); n != 1 {
		t.Errorf("%d etcds run:\n%s", n, stacks)
	}
	lastUse := time.Now()
	requireContinued(t, before, s.mustAskOnce(t, id, before), 1)
	s.idle = o.idle
	s.requirePausedOnTime(t, id, lastUse)
}

// What a sandbox has asked for itself yields to limits that come later.
func TestReload_lowersTheLongestIdleTimeout(t *testing.T) {
	t.Parallel()
	o := options{data: filepath.Join(shortDir(t), "d")}
	s := start(t, o)
	id := s.create(t)
	s.call(t, http.MethodPatch, "/sandboxes/"+id, `{"idleTimeout":"5m"}`)
	s.awaitState(t, late, id, "RUNNING")
	o.caddyfile, o.idle = strings.NewReplacer("idle_timeout {", "limits {\n\t\t\tidle_timeout 0 3s\n\t\t}\n\t\tidle_timeout {"), reloadedIdle
	s.reload(t, o)
	s.awaitState(t, reloadedIdle+late, id, "PAUSED")
	if r := s.record(t, id); r.Reason != "idle for 3s" {
		t.Errorf("it was paused because: %q", r.Reason)
	}
	o.caddyfile = nil
	s.reload(t, o)
	s.call(t, http.MethodPost, "/sandboxes/"+id+"/resume", "")
	time.Sleep(2 * reloadedIdle) // a pause that must not come has no event
	s.awaitState(t, late, id, "RUNNING")
}
