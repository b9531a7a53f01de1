package e2e_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Three processes are one Sandman, whoever of them dies, ends or is given another configuration.
func TestThreeProxies_loseNoRequestWhileLeadersGo(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c.requireOneLeader(t)
	id, before := c.sandmen[0].startAppIn(t)
	sleeper, _ := c.sandmen[1].startAppIn(t)
	crowd := c.askThroughAll(t, id)

	killed, _ := c.leader(t)
	crowd.leave(killed, dies)
	killed.process.kill()
	c.requireOneLeader(t)

	fresh := start(t, options{idle: clusterIdle, host: killed.host, etcd: c.store.endpoint})
	c.sandmen = append(c.sandmen, fresh)
	crowd.join(fresh)
	reloaded, _ := c.leader(t)
	node := reloaded.status(t).Node
	reloaded.reload(t, options{
		data: reloaded.dir, idle: clusterIdle, host: reloaded.host, etcd: c.store.endpoint,
		caddyfile: strings.NewReplacer("idle_timeout ", "hold 31s\n\t\tidle_timeout "),
	})
	if now := reloaded.status(t).Node; now == node {
		t.Errorf("after a reload with another hold the node is still %s", node)
	}
	c.requireOneLeader(t)

	ended, _ := c.leader(t)
	crowd.leave(ended, ends)
	began := ended.process.terminate(t)
	ended.process.requireEnded(t, began)
	c.requireOneLeader(t)

	asked := crowd.end(t)
	left := c.living()
	after := left[0].mustAsk(t, id)
	if after.Pid != before.Pid || after.Memory != before.Memory || after.Counter < before.Counter+asked+1 {
		t.Errorf("after %d answered requests the app went from %+v to %+v", asked, before, after)
	}
	if r := left[0].record(t, id); r.Totals.Pauses != 0 {
		t.Errorf("in constant use it was paused: %+v", r)
	}
	for _, id := range []string{id, sleeper} {
		c.requireSleepsAndWakesAsOne(t, id)
	}
}

// living are the processes that have not ended.
func (c *cluster) living() (living []*sandman) {
	for _, s := range c.sandmen {
		if !s.process.ended() {
			living = append(living, s)
		}
	}
	return living
}

// requireOneLeader waits until all that live name the same leader, which is one of them, and only one
// takes itself for it.
func (c *cluster) requireOneLeader(t *testing.T) {
	t.Helper()
	eventually(t, settled, "one leader, whom all know", func() bool {
		var leaders []string
		named := make(map[string]bool)
		for _, s := range c.living() {
			st := s.status(t)
			named[st.Leader.Node] = true
			if st.Leader.Me {
				leaders = append(leaders, st.Node)
			}
		}
		return len(leaders) == 1 && len(named) == 1 && named[leaders[0]]
	})
}

// requireSleepsAndWakesAsOne fails the test unless all see the sandbox pause once, and requests through
// all of them wake it once.
func (c *cluster) requireSleepsAndWakesAsOne(t *testing.T, id string) {
	t.Helper()
	all := c.living()
	all[0].awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	before := all[0].record(t, id).Totals
	for _, s := range all {
		s.awaitState(t, time.Second, id, "PAUSED")
	}
	var asking sync.WaitGroup
	for _, s := range all {
		for range 10 {
			asking.Go(func() {
				if _, err := s.ask(t.Context(), id); err != nil {
					t.Errorf("a request at the sleeping sandbox: %v", err)
				}
			})
		}
	}
	asking.Wait()
	for _, s := range all {
		eventually(t, time.Second, "one wake, whom all know of", func() bool {
			return s.record(t, id).Totals.Wakes == before.Wakes+1
		})
	}
}

// crowd asks a sandbox all the time through several proxies, as clients behind a balancer do.
type crowd struct {
	t     *testing.T
	ctx   context.Context
	stop  context.CancelFunc
	id    string
	all   sync.WaitGroup
	asked atomic.Int64

	mu   sync.Mutex // guards the following field
	gone map[*sandman]departure
}

func (c *cluster) askThroughAll(t *testing.T, id string) *crowd {
	ctx, stop := context.WithCancel(t.Context())
	w := &crowd{t: t, ctx: ctx, stop: stop, id: id, gone: make(map[*sandman]departure)}
	for _, s := range c.sandmen {
		w.join(s)
	}
	return w
}

// join begins to ask through one more.
func (w *crowd) join(s *sandman) { w.all.Go(func() { w.ask(s) }) }

// departure is how a proxy leaves its clients.
type departure int

const (
	stays departure = iota
	dies            // whatever its clients are told
	ends            // what it has accepted is answered: only new connections may be refused, or reset by the kernel
)

// leave says that s is about to be killed, or to be told to end.
func (w *crowd) leave(s *sandman, how departure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone[s] = how
}

func (w *crowd) left(s *sandman, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	how := w.gone[s]
	return how == dies || how == ends && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET))
}

func (w *crowd) ask(s *sandman) {
	for n := 0; w.ctx.Err() == nil; n++ {
		_, err := s.ask(w.ctx, w.id)
		switch {
		case err == nil:
			w.asked.Add(1)
		case w.ctx.Err() != nil:
		case w.left(s, err):
			return
		default:
			w.t.Errorf("request %d through %s: %v", n, s.url, err)
			return
		}
	}
}

// end tells how many were answered.
func (w *crowd) end(t *testing.T) int64 {
	t.Helper()
	w.stop()
	w.all.Wait()
	t.Logf("%d requests were answered", w.asked.Load())
	return w.asked.Load()
}
