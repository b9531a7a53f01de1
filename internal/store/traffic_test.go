package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

func traffic(streams int) session.Traffic {
	t := session.Traffic{Refused: []session.Refusal{{At: time.Unix(1, 0).UTC(), What: "GET /favicon.ico", Reason: "favicon", Count: 2}}}
	for i := range streams {
		t.Streams = append(t.Streams, session.Stream{Kind: "websocket", Path: fmt.Sprint("/", i), State: session.StreamActive, Since: time.Unix(2, 0).UTC()})
	}
	return t
}

func (r *rig) putTraffic(all ...store.TrafficOf) {
	r.t.Helper()
	if err := r.PutTraffic(r.ctx, all); err != nil {
		r.t.Fatal(err)
	}
}

func TestPutTraffic_isSeenByAllAndGoesWithItsNode(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other := r.beside("node-b")
	rec := r.adopt("s", session.Running)
	mine, theirs := traffic(1), traffic(2)
	theirs.More = 5
	r.putTraffic(store.TrafficOf{ID: "s", Traffic: mine})
	other.putTraffic(store.TrafficOf{ID: "s", Traffic: theirs})
	late := r.beside("node-c") // by its list
	for _, of := range []*rig{r, other, late} {
		sb := of.see("s", "the traffic of both nodes", func(sb *store.Sandbox) bool { return len(sb.Traffic) == 2 })
		if sb.Streams() != 8 || sb.Revision != rec.Revision {
			t.Errorf("%d streams are open under revision %d, want 8 under %d", sb.Streams(), sb.Revision, rec.Revision)
		}
		if got, ok := sb.TrafficOf("node-a"); !ok || encode(got.Traffic()) != encode(mine) {
			t.Errorf("node-a tells %s, want %s", encode(got.Traffic()), encode(mine))
		}
		if got, ok := sb.TrafficOf("node-b"); !ok || encode(got.Traffic()) != encode(theirs) {
			t.Errorf("node-b tells %s, want %s", encode(got.Traffic()), encode(theirs))
		}
		if _, ok := sb.TrafficOf("node-c"); ok {
			t.Error("node-c tells something, too")
		}
	}
	other.stop()
	r.see("s", "a node takes its traffic with it", func(sb *store.Sandbox) bool { return len(sb.Traffic) == 1 && sb.Traffic[0].Node == "node-a" })
	r.putTraffic(store.TrafficOf{ID: "s"})
	r.see("s", "empty traffic is none", func(sb *store.Sandbox) bool { return len(sb.Traffic) == 0 })
	if r.mod("streams/s/node-a") != 0 {
		t.Error("its key still stands")
	}
}

// What is written at once must fit into what etcd takes, in number and size.
func TestPutTraffic_writesManyAndLarge(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	large := traffic(session.MaxStreams)
	for i := range large.Streams {
		large.Streams[i].Path = strings.Repeat("x", session.MaxText)
	}
	var all, none []store.TrafficOf
	for i := range 300 {
		id := fmt.Sprintf("s%d", i)
		all, none = append(all, store.TrafficOf{ID: id, Traffic: large}), append(none, store.TrafficOf{ID: id})
	}
	last := r.adopt("s299", session.Running)
	r.putTraffic(all...)
	r.see(last.SandboxID, "the last one's", func(sb *store.Sandbox) bool { return sb.Streams() == session.MaxStreams })
	for _, id := range []string{"s0", "s150"} {
		if r.mod("streams/"+id+"/node-a") == 0 {
			t.Errorf("that of %s is not stored", id)
		}
	}
	r.putTraffic(none...)
	r.see(last.SandboxID, "nothing of the last one", func(sb *store.Sandbox) bool { return len(sb.Traffic) == 0 })
	if r.mod("streams/s0/node-a") != 0 {
		t.Error("that of s0 is still stored")
	}
}

func TestPutTraffic_withoutALease(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stop()
	if err := r.PutTraffic(r.ctx, []store.TrafficOf{{ID: "s", Traffic: traffic(1)}}); !errors.Is(err, store.ErrNoLease) {
		t.Errorf("got %v, want ErrNoLease", err)
	}
}

// Traffic is no use: neither idleness nor a pause depends on it.
func TestPutTraffic_isNoActivity(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.adopt("s", session.Running)
	before, _ := r.View().Get("s")
	r.putTraffic(store.TrafficOf{ID: "s", Traffic: traffic(3)})
	after := r.see("s", "the traffic", func(sb *store.Sandbox) bool { return sb.Streams() == 3 })
	if !after.LastActive.Equal(before.LastActive) || after.Open() {
		t.Errorf("active at %s, open: %t; want %s, as before, and not open", after.LastActive, after.Open(), before.LastActive)
	}
	if slices.ContainsFunc(r.View().Broken(), func(b store.BrokenRecord) bool { return strings.Contains(b.Key, "streams") }) {
		t.Error("it can't be read")
	}
}
