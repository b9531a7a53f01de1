package e2e_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A proxy whose watch can't go on, because etcd has forgotten what came after it was cut off, lists
// anew: what others did meanwhile is seen, and nothing is lost.
func TestThreeProxies_findTheirWayBackBehindACompaction(t *testing.T) {
	t.Parallel()
	for _, cut := range []string{"the leader", "another"} {
		t.Run(cut+" was cut off", func(t *testing.T) {
			t.Parallel()
			testCompaction(t, cut == "the leader")
		})
	}
}

func testCompaction(t *testing.T, leader bool) {
	c, links := startLinked(t, 3)
	c.requireOneLeader(t)
	away, others := c.leader(t)
	if !leader {
		away, others[0] = others[0], away
	}
	busy, _ := away.startAppIn(t)
	patched, _ := away.startAppIn(t)
	asleep, _ := away.startAppIn(t)
	stayed, _ := away.startAppIn(t)
	for _, id := range []string{patched, asleep, stayed} {
		away.configure(t, id, `{"idleTimeout":"10m"}`)
	}
	crowd := c.askThroughAll(t, busy)
	away.mustAsk(t, stayed)
	c.store.awaitAbsence(t, stayed) // and nothing of away's is under way

	links[away].setCut(true)
	eventually(t, settled, "the loss of contact", func() bool { return !away.status(t).Store.OK })
	other := others[0]
	eventually(t, settled, "its node to be gone, and a leader", func() bool {
		st := other.status(t)
		return st.Store.OK && st.Leader.Node != "" && st.Leader.Node != away.status(t).Node
	})
	other.configure(t, patched, `{"idleTimeout":"7m"}`)
	eventually(t, settled, "a pause by hand", func() bool {
		return other.call(t, http.MethodPost, "/sandboxes/"+asleep+"/pause", "").status == http.StatusOK
	})
	born, bornState := other.startAppIn(t)
	other.configure(t, born, `{"idleTimeout":"10m"}`)
	away.mustAsk(t, stayed) // served without the store
	c.store.compact(t)

	links[away].setCut(false)
	eventually(t, settled, "contact again", func() bool { return away.status(t).Store.OK })
	// that, and no other way back, is what is tested here
	eventually(t, settled, "a watch that fell behind the compaction", func() bool {
		return strings.Contains(away.process.log.String(), "required revision has been compacted")
	})
	requireSame(t, away, other, busy, patched, asleep, stayed, born)
	if r := away.record(t, asleep); r.State != "PAUSED" {
		t.Errorf("what was paused meanwhile is %s", r.State)
	}
	requireContinued(t, bornState, away.mustAsk(t, born), 1)
	away.mustAsk(t, asleep)
	c.requireOneLeader(t)
	crowd.end(t)
	if r := away.record(t, busy); r.Totals.Pauses != 0 {
		t.Errorf("in constant use it was paused: %+v", r)
	}
	c.requireSleepsAndWakesAsOne(t, busy)
	c.requirePausedOnTime(t, busy)
}

// requirePausedOnTime fails the test unless the sandbox is paused when its idle time is over. Where a
// busy machine let the store be silent meanwhile, that may be a settle period later.
func (c *cluster) requirePausedOnTime(t *testing.T, id string) {
	t.Helper()
	before := c.contacts()
	lastUse := time.Now()
	c.sandmen[0].mustAsk(t, id)
	c.sandmen[0].awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	quiet := time.Since(lastUse)
	if quiet < clusterIdle || quiet > clusterIdle+late && c.contacts() == before {
		t.Errorf("asleep %s after its last use, with an idle timeout of %s", quiet, clusterIdle)
	}
}

func (c *cluster) contacts() (n int) {
	for _, s := range c.sandmen {
		n += s.contacts()
	}
	return n
}

// requireSame fails the test unless both show the same of the sandboxes.
func requireSame(t *testing.T, a, b *sandman, ids ...string) {
	t.Helper()
	for _, id := range ids {
		var one, two record
		eventually(t, 5*time.Second, "the same of sandbox "+id+" at both proxies", func() bool {
			one, two = a.record(t, id), b.record(t, id)
			return one.State == two.State && one.Reason == two.Reason && one.Since.Equal(two.Since) &&
				one.IdleTimeout == two.IdleTimeout && one.Totals == two.Totals
		})
	}
}

// compact makes etcd forget all but its present revision.
func (e *etcd) compact(t *testing.T) {
	t.Helper()
	client := e.client(t)
	now, err := client.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(t.Context(), now.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
}

// startLinked starts a cluster in which each has a link of its own to etcd.
func startLinked(t *testing.T, n int) (*cluster, map[*sandman]*link) {
	t.Helper()
	c, links := &cluster{store: startEtcd(t)}, make(map[*sandman]*link)
	host := startSandboxd(t, "")
	for range n {
		l := newLink(t, c.store.endpoint)
		s := start(t, options{idle: clusterIdle, host: host.url, etcd: l.listener.Addr().String()})
		c.sandmen, links[s] = append(c.sandmen, s), l
	}
	return c, links
}

// link leads a port of its own to etcd's, until it is cut.
type link struct {
	listener net.Listener
	all      sync.WaitGroup

	mu    sync.Mutex // guards the following fields
	cut   bool
	conns []net.Conn
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener}
	l.all.Go(func() { l.accept(to) })
	t.Cleanup(func() { _ = listener.Close(); l.setCut(true); l.all.Wait() })
	return l
}

// setCut breaks what is connected, and lets nobody through until it is taken back.
func (l *link) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

func (l *link) accept(to string) {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		server := l.connect(client, to)
		if server == nil {
			_ = client.Close()
			continue
		}
		for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
			l.all.Go(func() {
				_, _ = io.Copy(way[0], way[1]) // ends with either side
				_ = way[0].Close()
				_ = way[1].Close()
			})
		}
	}
}

func (l *link) connect(client net.Conn, to string) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		return nil
	}
	l.conns = append(l.conns, client, server)
	return server
}
