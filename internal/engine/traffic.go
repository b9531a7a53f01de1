package engine

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

const (
	// publishEvery is how often what is told of one sandbox is written at most.
	publishEvery = time.Second

	// reviewEvery is how often it is looked whether streams have become dormant
	// or active, which nobody tells.
	reviewEvery = 10 * time.Second

	// countEvery is how often it is written that something was refused again, or
	// has repeated itself: forgotten tabs try for ever.
	countEvery = time.Minute

	// maxTold is of how many sandboxes refusals and repeats are kept.
	maxTold = 1000

	// maxReasons bounds the kinds of refusals that are counted.
	maxReasons = 100
)

// Refused notes that a request did not wake a sandbox. A Count of 0 means 1, an
// At of zero now.
func (s *Streams) Refused(id string, r session.Refusal) {
	known := s.state(id) != ""
	r.Count = max(1, r.Count)
	if r.At.IsZero() {
		r.At = time.Now().UTC()
	}
	r.Asker, r.What, r.Reason = session.Shorten(r.Asker), session.Shorten(r.What), session.Shorten(r.Reason)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, counted := s.refusals[r.Reason]; counted || len(s.refusals) < maxReasons {
		s.refusals[r.Reason] += uint64(r.Count)
	}
	if !known { // whoever guesses IDs must not fill the memory
		return
	}
	p := s.unsyncedTell(id)
	if i := slices.IndexFunc(p.refused, r.Same); i >= 0 {
		r.Count += p.refused[i].Count
		p.refused = append(slices.Delete(p.refused, i, i+1), r)
		s.later[id] = struct{}{}
		return
	}
	p.refused = append(p.refused, r)
	p.refused = slices.Delete(p.refused, 0, max(0, len(p.refused)-session.MaxRefused))
	s.unsyncedPublish(id)
}

// Repeated notes that something comes at one period. The same again replaces
// what was known of it.
func (s *Streams) Repeated(id string, r session.Repeat) {
	known := s.state(id) != ""
	if r.At.IsZero() {
		r.At = time.Now().UTC()
	}
	r.Path, r.What = session.Shorten(r.Path), session.Shorten(r.What)
	if !known {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.unsyncedTell(id)
	if i := slices.IndexFunc(p.repeats, r.Same); i >= 0 {
		p.repeats = append(slices.Delete(p.repeats, i, i+1), r)
		s.later[id] = struct{}{}
		return
	}
	p.repeats = append(p.repeats, r)
	p.repeats = slices.Delete(p.repeats, 0, max(0, len(p.repeats)-session.MaxRepeats))
	s.unsyncedPublish(id)
}

// unsyncedTell gives the place of a sandbox that there is something to tell of,
// and forgets what it knows of another one where it knows too many. s.mu must
// be held.
func (s *Streams) unsyncedTell(id string) *place {
	p := s.unsyncedPlace(id)
	if s.told[id] = p; len(s.told) <= maxTold {
		return p
	}
	var oldest *place
	for _, other := range s.told {
		if other != p && (oldest == nil || other.lastTold().Before(oldest.lastTold())) {
			oldest = other
		}
	}
	oldest.refused, oldest.repeats = nil, nil
	delete(s.told, oldest.id)
	s.unsyncedPublish(oldest.id)
	return p
}

// lastTold is when there was something to tell last. Streams.mu must be held.
func (p *place) lastTold() time.Time {
	var last time.Time
	if n := len(p.refused); n > 0 {
		last = p.refused[n-1].At
	}
	if n := len(p.repeats); n > 0 && p.repeats[n-1].At.After(last) {
		last = p.repeats[n-1].At
	}
	return last
}

// Refusals counts what did not wake a sandbox since the start, by reason.
func (s *Streams) Refusals() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.refusals)
}

// Traffic is what this process tells of a sandbox, as it is now.
func (s *Streams) Traffic(id string) session.Traffic {
	t, _ := s.traffic(id)
	return t
}

func (s *Streams) traffic(id string) (session.Traffic, states) {
	s.mu.Lock()
	p := s.places[id]
	if p == nil {
		s.mu.Unlock()
		return session.Traffic{}, states{}
	}
	t := session.Traffic{Refused: slices.Clone(p.refused), Repeats: slices.Clone(p.repeats)}
	open := p.streams()
	s.mu.Unlock()

	all, n := make([]session.Stream, len(open)), states{}
	for i, stream := range open {
		all[i] = stream.Info()
		all[i].Path = session.Shorten(all[i].Path)
		n.add(all[i].State)
	}
	// those that keep the sandbox awake before those that don't
	slices.SortFunc(all, func(a, b session.Stream) int {
		return cmp.Or(cmp.Compare(a.State, b.State), b.LastCounted.Compare(a.LastCounted), a.Since.Compare(b.Since), cmp.Compare(a.Path, b.Path))
	})
	most := min(len(all), session.MaxStreams)
	t.Streams, t.More = slices.Clone(all[:most]), len(all)-most
	return t, n
}

func (n *states) add(state session.StreamState) {
	switch state {
	case session.StreamDormant:
		n.dormant++
	case session.StreamParked:
		n.parked++
	default:
		n.active++
	}
}

// unsyncedPublish has what is told of a sandbox written. s.mu must be held.
func (s *Streams) unsyncedPublish(id string) {
	s.soon[id] = struct{}{}
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// lost is called where what this process had told of a sandbox is gone from the
// store: with an earlier lease, or because it was taken back.
func (s *Streams) lost(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.places[id]; p != nil && p.published {
		s.unsyncedPublish(id)
	}
}

// publish writes what changes, each sandbox at most once a second, until ctx is
// done.
func (s *Streams) publish(ctx context.Context, put func(context.Context, []store.TrafficOf) error, log *zap.Logger) {
	review, count := time.NewTicker(reviewEvery), time.NewTicker(countEvery)
	defer review.Stop()
	defer count.Stop()
	pace := time.NewTimer(0)
	defer pace.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-review.C:
			s.review()
			continue
		case <-count.C:
			s.count()
			continue
		case <-s.kick:
		}
		err := s.write(ctx, put)
		if err != nil && !failing && ctx.Err() == nil {
			log.Warn("what streams are open can't be written, and is tried again", zap.Error(err))
		}
		failing = err != nil
		pace.Reset(publishEvery)
		select {
		case <-ctx.Done():
		case <-pace.C:
		}
	}
}

// write writes what is due. What could not be written stays due.
func (s *Streams) write(ctx context.Context, put func(context.Context, []store.TrafficOf) error) error {
	s.mu.Lock()
	due := s.soon
	s.soon = make(map[string]struct{})
	s.mu.Unlock()
	all := make([]store.TrafficOf, 0, len(due))
	for id := range due {
		t, n := s.traffic(id)
		if s.worth(id, t, n) {
			all = append(all, store.TrafficOf{ID: id, Traffic: t})
		}
	}
	if len(all) == 0 {
		return nil
	}
	err := put(ctx, all)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range all {
		switch p := s.places[t.ID]; {
		case err != nil:
			s.unsyncedPublish(t.ID)
		case t.Empty() && p != nil:
			p.published = false
			s.unsyncedDrop(p)
		}
	}
	return err
}

// worth tells whether something has to be written of a sandbox, and notes that
// it will be. Streams that came and went meanwhile are not.
func (s *Streams) worth(id string, t session.Traffic, n states) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.places[id]
	if p == nil {
		return false
	}
	p.states = n
	if t.Empty() && !p.published {
		s.unsyncedDrop(p)
		return false
	}
	p.published = true
	return true
}

// unsyncedDrop forgets a sandbox that there is nothing of. s.mu must be held.
func (s *Streams) unsyncedDrop(p *place) {
	if len(p.open) == 0 && len(p.refused) == 0 && len(p.repeats) == 0 && !p.published {
		delete(s.places, p.id)
		delete(s.told, p.id)
	}
}

// review has published what has become dormant, or active, since it was.
func (s *Streams) review() {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.places))
	s.mu.Unlock()
	for _, p := range all {
		var now states
		for _, o := range s.of(p.id) {
			now.add(o.Info().State)
		}
		s.mu.Lock()
		if now != p.states && len(p.open) > 0 {
			s.unsyncedPublish(p.id)
		}
		s.mu.Unlock()
	}
}

// count has published what was merely counted.
func (s *Streams) count() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.later {
		s.unsyncedPublish(id)
	}
	clear(s.later)
}
