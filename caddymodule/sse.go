package caddymodule

import (
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/engine"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/stream"
)

// eventStream is an answer of server-sent events, which lasts as long as the page
// that reads it. The record of a pause tells that it was open, so that the
// EventSource's reconnects are known for what they are.
type eventStream struct {
	*stream.Meter
	flight *flight
	info   session.Stream // but for what changes
	last   atomic.Int64   // Unix time in ns of the last bytes
}

// meterAnswer has what moves in an answer counted.
func (f *flight) meterAnswer(res *http.Response) {
	if f.target.Port == envdPort && f.meterEvents(res) {
		return
	}
	if !isEventStream(res.Header.Get("Content-Type")) {
		res.Body = stream.NewMeter(res.Body, f.bump, func() {})
		return
	}
	s := &eventStream{flight: f, info: session.Stream{Kind: "events", Path: shortened(f.arrived.URL.Path), Since: time.Now().UTC()}}
	s.last.Store(s.info.Since.UnixNano())
	s.Meter = stream.NewMeter(res.Body, s.bump, func() { f.engine.Streams().Remove(f.target.SandboxID, s) })
	f.engine.Streams().Add(f.target.SandboxID, s, f.page())
	res.Body = s
}

// isEventStream tells whether a type of content is that of server-sent events,
// whatever its parameters.
func isEventStream(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}

// meterEvents meters a stream of the sandbox's daemon: a command's, or that of
// watched files. Its signs of life are nobody's use. False: it is none.
func (f *flight) meterEvents(res *http.Response) bool {
	events := e2b.NewEvents(res.Header)
	if events == nil {
		return false
	}
	res.Body = stream.NewMeterOf(res.Body, events.In, f.bump, func() {})
	return true
}

func (s *eventStream) bump() {
	s.last.Store(time.Now().UnixNano())
	s.flight.bump()
}

// Park implements engine.Stream. Nothing goes to the sandbox that could be kept
// from it.
func (s *eventStream) Park() {}

// Unpark implements engine.Stream.
func (s *eventStream) Unpark() {}

// Info implements engine.Stream.
func (s *eventStream) Info() session.Stream {
	info := s.info
	info.LastCounted = time.Unix(0, s.last.Load()).UTC()
	switch {
	case s.flight.engine.State(s.flight.target.SandboxID) != session.Running:
		info.State = session.StreamParked
	case s.flight.visit.Counting():
		info.State = session.StreamActive
	default:
		info.State = session.StreamDormant
	}
	return info
}

// CloseWith implements engine.Stream. The answer breaks off, over which an
// EventSource comes again.
func (s *eventStream) CloseWith(uint16, string) { _ = s.Close() }

// Interface guard
var _ engine.Stream = (*eventStream)(nil)
