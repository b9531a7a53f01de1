package engine

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

// Stream is one long connection that a client has open. Its methods may be
// called from any goroutine, and must not block. It is told apart from others
// by ==, so it is a pointer.
type Stream interface {
	// Park and Unpark are called by turns: the sandbox is about to sleep, and
	// nothing may reach it; it runs again.
	Park()
	Unpark()
	Info() session.Stream
	// CloseWith ends it with a WebSocket close code, where it has such.
	CloseWith(code uint16, reason string)
}

// Page is what tells by whom a stream was opened, as far as a proxy can know.
type Page struct {
	Key       string // names the page across its reconnects, "" where nothing does
	Path      string // without the query
	ClientIP  string
	UserAgent string
}

// is tells whether both may be the same page. A key alone decides where both
// have one: two tabs of one person differ in nothing else.
func (p Page) is(o Page) bool {
	if p.Key != "" && o.Key != "" {
		return p.Key == o.Key
	}
	return p.Path == o.Path && p.ClientIP == o.ClientIP && p.UserAgent == o.UserAgent
}

// RFC 6455's close code of an endpoint that goes away.
const statusGoingAway = 1001

// Goodbye tells a client to connect again, elsewhere or later.
func Goodbye(s Stream) { s.CloseWith(statusGoingAway, "the proxy is shutting down") }

// Streams knows the long connections of this process, and what was refused, by
// sandbox. It parks them as the records change, and has told what is open where.
type Streams struct {
	state func(id string) session.State // as the view has it

	mu       sync.Mutex // guards the following fields, and those of places
	places   map[string]*place
	told     map[string]*place   // those with refusals or repeats
	refusals map[string]uint64   // how many there were, by reason
	soon     map[string]struct{} // to be published at once
	later    map[string]struct{} // to be published some time
	leaving  bool                // no server closes streams at the end: what comes is closed at once

	kick chan struct{} // has a value when soon has
}

func newStreams(state func(id string) session.State) *Streams {
	return &Streams{
		state: state, places: map[string]*place{}, told: map[string]*place{}, refusals: map[string]uint64{},
		soon: map[string]struct{}{}, later: map[string]struct{}{}, kick: make(chan struct{}, 1),
	}
}

// place is one sandbox. Its fields are guarded by Streams.mu, but for ordering.
type place struct {
	id        string
	open      map[Stream]*openStream
	asleep    bool // streams are to be parked
	refused   []session.Refusal
	repeats   []session.Repeat
	published bool   // there may be something of it in the store
	states    states // of the streams, as they were published

	// ordering is held while streams are told whether to be parked, so that the
	// last that each hears is what is so. It is taken before Streams.mu.
	ordering sync.Mutex
}

// openStream is a stream with what is known of it.
type openStream struct {
	Stream
	page   Page
	parked bool // it was told so; guarded by place.ordering
}

// states counts streams by their state.
type states struct{ active, dormant, parked int }

// s.mu must be held.
func (s *Streams) unsyncedPlace(id string) *place {
	p := s.places[id]
	if p == nil {
		p = &place{id: id, open: map[Stream]*openStream{}}
		s.places[id] = p
	}
	return p
}

// Add takes in a stream of a sandbox, which is parked at once where the sandbox
// does not run. It must be followed by Remove.
func (s *Streams) Add(id string, stream Stream, page Page) {
	s.mu.Lock()
	p := s.unsyncedPlace(id)
	p.open[stream] = &openStream{Stream: stream, page: page}
	// The view shows a change before changed is called for it, which waits for
	// s.mu: none is missed.
	p.asleep = sleeps(s.state(id))
	s.unsyncedPublish(id)
	leaving := s.leaving
	s.mu.Unlock()
	if leaving {
		Goodbye(stream)
	}
	s.order(p)
}

// sleeps tells in which states nothing may reach the sandbox. Where nothing is
// known of it, or it is gone, there is nothing to wait for.
func sleeps(state session.State) bool {
	return state == session.Paused || state.Busy()
}

// Remove forgets a stream that has ended.
func (s *Streams) Remove(id string, stream Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.places[id]
	if p == nil || p.open[stream] == nil {
		return
	}
	delete(p.open, stream)
	s.unsyncedPublish(id)
}

// changed follows the record of a sandbox.
func (s *Streams) changed(id string, state session.State) {
	s.mu.Lock()
	p := s.places[id]
	if p == nil {
		s.mu.Unlock()
		return
	}
	var gone []Stream
	if state == session.Killed {
		gone = p.streams()
		p.refused, p.repeats = nil, nil
		delete(s.told, id)
	}
	turned := p.asleep != sleeps(state)
	p.asleep = sleeps(state)
	if turned || state == session.Killed {
		s.unsyncedPublish(id)
	}
	s.mu.Unlock()
	for _, stream := range gone {
		stream.CloseWith(statusGoingAway, "the sandbox is gone")
	}
	if turned {
		s.order(p)
	}
}

// order tells the streams of a sandbox what is so now. Those that end over it
// call Remove meanwhile.
func (s *Streams) order(p *place) {
	p.ordering.Lock()
	defer p.ordering.Unlock()
	s.mu.Lock()
	asleep, all := p.asleep, p.all()
	s.mu.Unlock()
	for _, o := range all {
		switch {
		case o.parked == asleep:
			continue
		case asleep:
			o.Park()
		default:
			o.Unpark()
		}
		o.parked = asleep
	}
}

// Streams.mu must be held.
func (p *place) all() []*openStream {
	all := make([]*openStream, 0, len(p.open))
	for _, o := range p.open {
		all = append(all, o)
	}
	return all
}

// Streams.mu must be held.
func (p *place) streams() []Stream {
	all := make([]Stream, 0, len(p.open))
	for stream := range p.open {
		all = append(all, stream)
	}
	return all
}

// Parked gives the parked streams of a sandbox that page may have opened, the
// newest first.
func (s *Streams) Parked(id string, page Page) []Stream {
	since := map[Stream]time.Time{}
	for _, o := range s.of(id) {
		if !o.page.is(page) {
			continue
		}
		if info := o.Info(); info.State == session.StreamParked {
			since[o.Stream] = info.Since
		}
	}
	return slices.SortedFunc(maps.Keys(since), func(a, b Stream) int { return since[b].Compare(since[a]) })
}

func (s *Streams) of(id string) []*openStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.places[id]; p != nil {
		return p.all()
	}
	return nil
}

// open is how many streams of a sandbox this process has open.
func (s *Streams) open(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.places[id]; p != nil {
		return len(p.open)
	}
	return 0
}

// Leave gives all that are open, to be said Goodbye to. Those that come later
// are closed as they come.
func (s *Streams) Leave() []Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
	var all []Stream
	for _, p := range s.places {
		all = append(all, p.streams()...)
	}
	return all
}
