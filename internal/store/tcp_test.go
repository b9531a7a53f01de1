package store_test

import (
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/store"
)

// remote is an etcd server on TCP that can be stopped and started again with
// its data, at the address of the wire in front of it.
type remote struct {
	t     *testing.T
	dir   string
	front *wire
	etcd  *embed.Etcd
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	s := &remote{t: t, dir: t.TempDir(), front: newWire(t, "")}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *remote) start() {
	s.t.Helper()
	listen := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "remote", s.dir
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ListenPeerUrls = nil
	cfg.BcryptCost = 4 // the least: the server shares our time
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{listen}, []url.URL{listen}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		s.t.Fatal("etcd does not get ready")
	}
	s.etcd = etcd
	s.front.setTarget(etcd.Clients[0].Addr().String())
}

// stop cuts the connections first, as a crash does: etcd would wait for the
// clients' streams to end.
func (s *remote) stop() {
	if s.etcd == nil {
		return
	}
	s.front.setTarget("")
	s.etcd.Close()
	s.etcd = nil
}

func (s *remote) address() string { return s.front.address() }

func (s *remote) dial() *clientv3.Client { return dial(s.t, s.address()) }

func dial(t *testing.T, address string) *clientv3.Client {
	t.Helper()
	c, err := store.Dial(store.DialConfig{Endpoints: []string{address}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// wire forwards TCP connections until it is cut: then nothing gets through
// any more, and nobody is told.
type wire struct {
	listener net.Listener
	all      sync.WaitGroup

	mu     sync.Mutex // guards the following fields
	flow   *sync.Cond
	target string // "": nobody there
	cut    bool
	over   bool
	conns  []net.Conn
}

func newWire(t *testing.T, target string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, target: target}
	w.flow = sync.NewCond(&w.mu)
	w.all.Go(w.accept)
	t.Cleanup(w.close)
	return w
}

func (w *wire) address() string { return w.listener.Addr().String() }

func (w *wire) setCut(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	w.flow.Broadcast()
}

// setTarget closes the connections to the old target.
func (w *wire) setTarget(target string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target = target
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *wire) close() {
	w.listener.Close()
	w.setTarget("")
	w.mu.Lock()
	w.over = true
	w.flow.Broadcast()
	w.mu.Unlock()
	w.all.Wait()
}

func (w *wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		server := w.connect(client)
		if server == nil {
			client.Close()
			continue
		}
		w.all.Go(func() { w.copy(client, server) })
		w.all.Go(func() { w.copy(server, client) })
	}
}

func (w *wire) connect(client net.Conn) net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.target == "" {
		return nil
	}
	server, err := net.Dial("tcp", w.target)
	if err != nil {
		return nil
	}
	w.conns = append(w.conns, client, server)
	return server
}

func (w *wire) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w.awaitFlow()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (w *wire) awaitFlow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.cut && !w.over {
		w.flow.Wait()
	}
}
