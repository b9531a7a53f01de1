package engine

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

// tab is a stream whose client is the test.
type tab struct {
	info session.Stream

	mu       sync.Mutex // guards the following fields
	parks    []bool     // what it was told, true: to park
	closed   []uint16
	onParked func()
}

func newTab(path string) *tab {
	return &tab{info: session.Stream{Kind: "websocket", Path: path, State: session.StreamActive, Since: time.Now()}}
}

func (t *tab) tell(park bool) {
	t.mu.Lock()
	t.parks = append(t.parks, park)
	do := t.onParked
	t.mu.Unlock()
	if do != nil {
		do()
	}
}

func (t *tab) Park()   { t.tell(true) }
func (t *tab) Unpark() { t.tell(false) }

func (t *tab) CloseWith(code uint16, _ string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = append(t.closed, code)
}

func (t *tab) Info() session.Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	info := t.info
	if n := len(t.parks); n > 0 && t.parks[n-1] {
		info.State = session.StreamParked
	}
	return info
}

func (t *tab) become(state session.StreamState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.info.State = state
}

func (t *tab) wantTold(tt *testing.T, when string, want ...bool) {
	tt.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Equal(t.parks, want) {
		tt.Errorf("%s: the stream was told to park: %v, want %v", when, t.parks, want)
	}
}

// records are what the view would have, and what follows its changes.
type records struct {
	*Streams
	mu     sync.Mutex
	states map[string]session.State
}

func newRecords() *records {
	r := &records{states: map[string]session.State{}}
	r.Streams = newStreams(func(id string) session.State {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.states[id]
	})
	return r
}

// set changes a record as the watch does: it is seen before it is told of.
func (r *records) set(id string, state session.State) {
	r.mu.Lock()
	r.states[id] = state
	r.mu.Unlock()
	r.changed(id, state)
}

func TestStreams_areParkedWhileTheSandboxDoesNotRun(t *testing.T) {
	t.Parallel()
	r := newRecords()
	r.set("s", session.Running)
	early, other, late, unknown := newTab("/"), newTab("/"), newTab("/"), newTab("/")
	r.Add("s", early, Page{})
	r.Add("other", other, Page{})
	for _, state := range []session.State{session.Pausing, session.Paused, session.Resuming} {
		r.set("s", state)
		early.wantTold(t, string(state), true)
	}
	r.Add("s", late, Page{})
	late.wantTold(t, "it came while it slept", true)
	r.set("s", session.Running)
	r.set("s", session.Running) // settings
	early.wantTold(t, "it runs again", true, false)
	late.wantTold(t, "it runs again", true, false)
	other.wantTold(t, "another sandbox has slept")
	r.Remove("s", early)
	r.set("s", session.Pausing)
	early.wantTold(t, "it has ended before", true, false)
	r.Add("nobody-knows", unknown, Page{})
	unknown.wantTold(t, "nothing is known of its sandbox")
}

func TestStreams_endWithTheirSandbox(t *testing.T) {
	t.Parallel()
	r := newRecords()
	r.set("s", session.Paused)
	s := newTab("/")
	r.Add("s", s, Page{})
	r.Refused("s", session.Refusal{What: "GET /", Reason: "bot"})
	r.set("s", session.Killed)
	if !slices.Equal(s.closed, []uint16{statusGoingAway}) {
		t.Errorf("closed with %v, want %d", s.closed, statusGoingAway)
	}
	if got := r.Traffic("s"); len(got.Refused) != 0 {
		t.Errorf("of a sandbox that is gone is told %+v", got.Refused)
	}
}

// A stream that ends over being parked is forgotten meanwhile.
func TestStreams_mayEndWhenTheyAreTold(t *testing.T) {
	t.Parallel()
	r := newRecords()
	r.set("s", session.Running)
	s := newTab("/")
	s.onParked = func() { r.Remove("s", s) }
	r.Add("s", s, Page{})
	r.set("s", session.Pausing)
	s.wantTold(t, "it sleeps", true)
	if n := r.Streams.open("s"); n != 0 {
		t.Errorf("%d are open still", n)
	}
}

// However streams come beside changes of the record, each hears in the end what
// is so.
func TestStreams_missNoChange(t *testing.T) {
	t.Parallel()
	states := []session.State{session.Running, session.Pausing, session.Paused, session.Resuming}
	for range 200 {
		r := newRecords()
		var all sync.WaitGroup
		tabs := make([]*tab, 8)
		for i := range tabs {
			tabs[i] = newTab("/")
			all.Go(func() { r.Add("s", tabs[i], Page{}) })
		}
		last := states[len(tabs)%len(states)]
		all.Go(func() {
			for _, state := range append(states, last) {
				r.set("s", state)
			}
		})
		all.Wait()
		for _, s := range tabs {
			if parked := s.Info().State == session.StreamParked; parked != sleeps(last) {
				t.Fatalf("parked: %t under a record that is %s; it was told %v", parked, last, s.parks)
			}
			for i := 1; i < len(s.parks); i++ {
				if s.parks[i] == s.parks[i-1] {
					t.Fatalf("told the same twice: %v", s.parks)
				}
			}
		}
	}
}

func TestStreams_findsTheParkedOnesOfAPage(t *testing.T) {
	t.Parallel()
	r := newRecords()
	r.set("s", session.Running)
	ann := Page{Path: "/ws", ClientIP: "10.0.0.1", UserAgent: "Firefox"}
	keyed, otherKey := ann, ann
	keyed.Key, otherKey.Key = "one", "two"
	pages := map[string]Page{
		"ann": ann, "keyed": keyed, "other key": otherKey,
		"other path": {Path: "/", ClientIP: ann.ClientIP, UserAgent: ann.UserAgent},
		"other IP":   {Path: ann.Path, ClientIP: "10.0.0.2", UserAgent: ann.UserAgent},
		"other UA":   {Path: ann.Path, ClientIP: ann.ClientIP, UserAgent: "curl"},
		"key alone":  {Key: "one", Path: "/elsewhere", ClientIP: "10.9.9.9"},
	}
	names := map[Stream]string{}
	for i, name := range slices.Sorted(maps.Keys(pages)) {
		s := newTab("/ws")
		s.info.Since = time.Unix(int64(i), 0)
		names[s] = name
		r.Add("s", s, pages[name])
	}
	found := func(page Page) (got []string) {
		for _, s := range r.Parked("s", page) {
			got = append(got, names[s])
		}
		return got
	}
	if got := found(ann); got != nil {
		t.Errorf("found %q where none is parked", got)
	}
	r.set("s", session.Paused)
	for _, c := range []struct {
		page Page
		want []string
	}{
		{ann, []string{"other key", "keyed", "ann"}}, // the newest first
		{keyed, []string{"keyed", "key alone", "ann"}},
		{Page{Key: "none"}, nil},
		{pages["other IP"], []string{"other IP"}},
	} {
		if got := found(c.page); !slices.Equal(got, c.want) {
			t.Errorf("%+v: found %q, want %q", c.page, got, c.want)
		}
	}
	if got := r.Parked("another", ann); got != nil {
		t.Errorf("found %d streams of a sandbox that has none", len(got))
	}
}

func TestStreams_areToldGoodbye(t *testing.T) {
	t.Parallel()
	r := newRecords()
	before, after := newTab("/"), newTab("/")
	r.Add("s1", before, Page{})
	left := r.Leave()
	if len(left) != 1 || left[0] != Stream(before) || len(before.closed) != 0 {
		t.Fatalf("left %v, closed %v; want the one stream, for the caller to close", left, before.closed)
	}
	r.Add("s2", after, Page{})
	if !slices.Equal(after.closed, []uint16{statusGoingAway}) {
		t.Errorf("a stream that came later is closed with %v, want %d at once", after.closed, statusGoingAway)
	}
}
