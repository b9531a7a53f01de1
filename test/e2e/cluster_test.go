package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	clusterIdle = 3 * time.Second

	// settled is how long after a change of leader, or a loss of the store, nothing is paused: the
	// lease's time, 2 s, and as much as a crashed leader's lease goes on.
	settled = 22 * time.Second
)

// cluster is Sandmen that are one: the same etcd, the same host.
type cluster struct {
	store   *etcd
	sandmen []*sandman
}

func startCluster(t *testing.T, n int) *cluster {
	t.Helper()
	c := &cluster{store: startEtcd(t)}
	host := startSandboxd(t, "")
	for range n {
		c.sandmen = append(c.sandmen, start(t, options{idle: clusterIdle, host: host.url, etcd: c.store.endpoint}))
	}
	return c
}

// leader returns the Sandman that leads, and the others, once one does.
func (c *cluster) leader(t *testing.T) (leader *sandman, others []*sandman) {
	t.Helper()
	eventually(t, settled, "a leader", func() bool {
		leader, others = nil, nil
		for _, s := range c.sandmen {
			switch {
			case s.process.ended():
			case s.leads(t):
				leader = s
			default:
				others = append(others, s)
			}
		}
		return leader != nil
	})
	return leader, others
}

type status struct {
	Status string `json:"status"`
	Node   string `json:"node"`
	Leader struct {
		Node string `json:"node"`
		Me   bool   `json:"me"`
	} `json:"leader"`
	Store struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	} `json:"store"`
}

func (s *sandman) status(t *testing.T) (st status) {
	t.Helper()
	a := s.call(t, http.MethodGet, "/status", "")
	a.decode(t, &st)
	return st
}

func (s *sandman) leads(t *testing.T) bool { return s.status(t).Leader.Me }

func TestCluster_proxiesAreOne(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	a, b := c.sandmen[0], c.sandmen[1]
	id, first := a.startAppIn(t)
	requireContinued(t, first, b.mustAsk(t, id), 1)

	// what goes through one keeps it awake for the other, whose pause by hand first waits for its
	// settle period
	slow := newRequest(t, http.MethodGet, a.request(t.Context(), http.MethodGet, id, appPort, "/slow?seconds=25", nil).URL.String(), nil)
	done := make(chan answer, 1)
	go func() {
		got, err := a.do(slow)
		if err != nil {
			t.Errorf("the download failed: %v", err)
		}
		done <- got
	}()
	eventually(t, readyWithin, "the download in flight", func() bool {
		return slices.Contains(a.record(t, id).AwakeBecause, "1 request through this proxy")
	})
	requireProblem(t, b.call(t, http.MethodPost, "/sandboxes/"+id+"/pause", ""), http.StatusConflict)
	if got := <-done; got.status != http.StatusOK || len(got.body) < 25 {
		t.Errorf("the download through the first proxy: %s", got)
	}

	b.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	a.awaitState(t, time.Second, id, "PAUSED")
	var all sync.WaitGroup
	for _, s := range c.sandmen {
		for range 20 {
			all.Go(func() {
				if _, err := s.ask(t.Context(), id); err != nil {
					t.Errorf("a request at the sleeping sandbox: %v", err)
				}
			})
		}
	}
	all.Wait()
	if wakes := a.record(t, id).Totals.Wakes; wakes != 1 {
		t.Errorf("40 requests through two proxies woke it %d times", wakes)
	}
}

func TestCluster_leadershipMovesWithoutAFailedRequest(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *sandman){
		"crash":   func(_ *testing.T, s *sandman) { s.process.kill() },
		"SIGTERM": func(t *testing.T, s *sandman) { s.process.end(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, 2)
			leader, others := c.leader(t)
			other := others[0]
			id, _ := other.startAppIn(t)

			stop := askAllTheTime(t, other, id)
			end(t, leader)
			eventually(t, settled, "the other to lead", func() bool { return other.leads(t) })
			stop()
			other.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
			other.mustAsk(t, id)
		})
	}
}

// askAllTheTime sends one request after the other until stop is called; none may fail.
func askAllTheTime(t *testing.T, s *sandman, id string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if _, err := s.ask(ctx, id); err != nil && ctx.Err() == nil {
				done <- fmt.Errorf("request %d: %w", n, err)
				return
			}
		}
		done <- nil
	}()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestCluster_startsWithoutItsStore(t *testing.T) {
	t.Parallel()
	store := newEtcd(t)
	host := startSandboxd(t, "")
	s := start(t, options{idle: clusterIdle, host: host.url, etcd: store.endpoint})
	if st := s.status(t); st.Store.OK || st.Status != "degraded" {
		t.Errorf("without a store the status is %+v", st)
	}
	store.start(t)
	eventually(t, settled, "the store in reach", func() bool { return s.status(t).Store.OK })
	id, _ := s.startAppIn(t)
	s.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	s.mustAsk(t, id)
}

func TestCluster_servesWithoutItsStore(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	s := c.sandmen[0]
	running, _ := s.startAppIn(t)
	sleeping, _ := s.startAppIn(t)
	s.pause(t, sleeping)

	stop := askAllTheTime(t, s, running)
	c.store.process.kill()
	eventually(t, settled, "the loss to be noticed", func() bool { return !s.status(t).Store.OK })
	s.mustAsk(t, sleeping) // through the host alone
	for _, id := range []string{running, sleeping} {
		if state := s.e2b.state(t, id); state != "running" {
			t.Errorf("without the store sandbox %s was %s", id, state)
		}
	}
	c.store.start(t)
	eventually(t, settled, "the store in reach", func() bool { return s.status(t).Store.OK })
	stop()
	for _, id := range []string{running, sleeping} {
		s.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
		s.mustAsk(t, id)
	}
}

// etcd is the store of a cluster, which can be ended and started again.
type etcd struct {
	dir      string
	endpoint string
	tls      *etcdTLS // nil: plain text
	process  *process
}

func newEtcd(t *testing.T) *etcd {
	t.Helper()
	return &etcd{dir: shortDir(t), endpoint: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
}

func startEtcd(t *testing.T) *etcd {
	t.Helper()
	e := newEtcd(t)
	e.start(t)
	return e
}

func (e *etcd) start(t *testing.T) {
	t.Helper()
	args := []string{"-dir", filepath.Join(e.dir, "etcd"), "-listen", e.endpoint}
	scheme, transport := "http", &http.Transport{DisableKeepAlives: true}
	if e.tls != nil {
		args = append(args, e.tls.arguments()...)
		scheme, transport.TLSClientConfig = "https", e.tls.client(t)
	}
	e.process = startProcess(t, e.dir, nil, etcdBinary, args...)
	e.process.await(t, func() bool {
		res, err := (&http.Client{Transport: transport}).Get(scheme + "://" + e.endpoint + "/health")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}
