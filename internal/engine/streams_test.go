package engine_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// tab is a stream whose client does nothing.
type tab struct {
	since time.Time

	mu     sync.Mutex // guards the following fields
	parked bool
}

func (t *tab) set(parked bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parked = parked
}

func (t *tab) Park()                    { t.set(true) }
func (t *tab) Unpark()                  { t.set(false) }
func (t *tab) CloseWith(uint16, string) {}

func (t *tab) Info() session.Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := session.Stream{Kind: "websocket", Path: "/ws", State: session.StreamDormant, Since: t.since}
	if t.parked {
		s.State = session.StreamParked
	}
	return s
}

// open adds streams to a sandbox.
func (n *node) open(id string, count int) []*tab {
	all := make([]*tab, count)
	for i := range all {
		all[i] = &tab{since: time.Now()}
		n.Streams().Add(id, all[i], engine.Page{Path: "/ws"})
	}
	return all
}

func (n *node) awaitAll(what string, tabs []*tab, state session.StreamState) {
	n.w.t.Helper()
	n.eventually(what, func() bool {
		for _, s := range tabs {
			if s.Info().State != state {
				return false
			}
		}
		return true
	})
}

// shows awaits that the API of this node shows so many streams.
func (n *node) shows(id string, want int, state session.StreamState) {
	n.w.t.Helper()
	n.eventually(fmt.Sprintf("%d streams of %s are shown, and %s", want, id, state), func() bool {
		all, err := n.OpenStreams(n.w.t.Context(), id)
		if err != nil {
			n.w.t.Fatal(err)
		}
		got := 0
		for _, node := range all {
			for _, s := range node.Streams {
				if s.State != state {
					return false
				}
			}
			got += node.Open()
		}
		return got == want
	})
}

func TestStreams_areParkedThroughAllProxiesWithTheSandbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start(nil), w.start(nil)
	id := a.create()
	b.await(id, session.Running)
	tabs := append(a.open(id, 3), b.open(id, 2)...)
	a.shows(id, 5, session.StreamDormant)
	b.shows(id, 5, session.StreamDormant)

	a.await(id, session.Paused) // idle: a dormant stream is no use
	a.awaitAll("all streams are parked", tabs, session.StreamParked)
	if sb, err := b.Get(t.Context(), id); err != nil || sb.Parked != 5 {
		t.Errorf("the record says that %d streams were open at the pause, %v; want 5", sb.Parked, err)
	}
	late := b.open(id, 1) // while it sleeps
	a.shows(id, 6, session.StreamParked)
	tabs = append(tabs, late...)

	b.request(id).end()
	a.awaitAll("no stream is parked any more", tabs, session.StreamDormant)
	for _, s := range tabs {
		a.Streams().Remove(id, s)
	}
	b.shows(id, 3, session.StreamDormant)

	b.pause(id, false)
	if sb, err := a.Get(t.Context(), id); err != nil || sb.Parked != 3 {
		t.Errorf("after a pause by hand the record says %d, %v; want 3", sb.Parked, err)
	}
	b.close()
	a.shows(id, 0, "") // they went with their proxy
}

// stored gives the revision of what is stored of this node's streams, 0 if
// there is nothing, and that of the store.
func (n *node) stored(id string) (rev, of int64) {
	n.w.t.Helper()
	resp, err := n.w.etcd.Get(n.w.t.Context(), n.w.prefix+"streams/"+id+"/"+n.Node())
	if err != nil {
		n.w.t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		rev = kv.ModRevision
	}
	return rev, resp.Header.Revision
}

func (n *node) isStored(id string) bool {
	rev, _ := n.stored(id)
	return rev != 0
}

// With a lease that has ended goes all that was told under it.
func TestStreams_areToldAnewWhereTheyAreLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start(nil)
	id := n.create()
	n.open(id, 1)
	var first int64
	n.eventually("the stream is stored", func() bool { first, _ = n.stored(id); return first != 0 })
	if _, err := w.etcd.Delete(t.Context(), w.prefix+"streams/"+id+"/"+n.Node()); err != nil {
		t.Fatal(err)
	}
	n.eventually("it is stored again", func() bool { rev, _ := n.stored(id); return rev > first })
	n.shows(id, 1, session.StreamDormant)
}

// Ten thousand streams of as many sandboxes are told of in a few Txns, and
// taken back in as few.
func TestStreams_tenThousandAreCheap(t *testing.T) {
	t.Parallel()
	const count = 10_000
	own, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	})
	n := newWorldOn(t, own.Client()).start(nil)
	id := func(i int) string { return fmt.Sprintf("i%d", i) }
	_, before := n.stored("none")
	began := time.Now()
	tabs := make([]*tab, count)
	for i := range tabs {
		tabs[i] = n.open(id(i), 1)[0]
	}
	added := time.Since(began)
	for i := 0; i < count; i += 100 { // some of each Txn
		n.eventually("it is stored", func() bool { return n.isStored(id(i)) })
	}
	t.Logf("%d streams were added in %s, and seen to be stored after %s", count, added, time.Since(began))
	for i, s := range tabs {
		n.Streams().Remove(id(i), s)
	}
	for i := 0; i < count; i += 100 {
		n.eventually("it is stored no more", func() bool { return !n.isStored(id(i)) })
	}
	_, after := n.stored("none")
	t.Logf("in %d Txns", after-before)
	if most := int64(2*count/128 + 60); after-before > most {
		t.Errorf("%d Txns to store %d streams and to take them back, want at most %d", after-before, count, most)
	}
}

// Streams come while the sandbox is paused and woken: none is left parked at a
// sandbox that runs, nor the other way round.
func TestStreams_comeBesidePausesAndWakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start(nil), w.start(nil)
	id := a.create()
	b.await(id, session.Running)
	stop := make(chan struct{})
	var opening sync.WaitGroup
	var mu sync.Mutex
	var tabs []*tab
	for _, n := range []*node{a, b} {
		opening.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
					s := n.open(id, 1)
					mu.Lock()
					tabs = append(tabs, s...)
					mu.Unlock()
				}
			}
		})
	}
	for range 5 {
		a.pause(id, false)
		b.request(id).end()
	}
	close(stop)
	opening.Wait()
	a.awaitAll("none is parked while it runs", tabs, session.StreamDormant)
	a.pause(id, false)
	a.awaitAll("all are parked while it sleeps", tabs, session.StreamParked)
	a.shows(id, len(tabs), session.StreamParked)
}

// What is refused is shown through every proxy, and a wake that is refused
// leaves the sandbox asleep.
func TestRefused_isShownThroughEveryProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start(nil), w.start(nil)
	id := a.sleeping()
	refused := fmt.Errorf("may not")
	_, err := b.try(t.Context(), id, wake.Cause{Reason: "request: GET /ws", May: func(session.Record) error { return refused }})
	if err != refused { //nolint:errorlint // it is returned as it is
		t.Fatalf("a wake that is refused ends with %v", err)
	}
	b.Streams().Refused(id, session.Refusal{Asker: "handshake", What: "GET /ws", Reason: "budget"})
	var why string
	a.eventually("the other proxy shows the refusal", func() bool {
		got, err := a.Why(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		why = strings.Join(got.Words, "\n")
		return len(got.Refused) == 1 && got.Refused[0].Node == b.Node() && got.Refused[0].Reason == "budget"
	})
	if !strings.Contains(why, "GET /ws") {
		t.Errorf("its words don't tell:\n%s", why)
	}
	a.await(id, session.Paused)
	if n := b.Streams().Refusals()["budget"]; n != 1 {
		t.Errorf("%d refusals are counted, want 1", n)
	}
}
