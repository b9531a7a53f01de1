package caddymodule

import (
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/sandman-proxy/sandman/internal/session"
)

// eventNames are the states whose coming is told of.
var eventNames = map[session.State]string{
	session.Paused:  "sandman_paused",
	session.Running: "sandman_resumed",
	session.Killed:  "sandman_killed",
}

// waitingEvents is how many events may wait for slow subscribers.
const waitingEvents = 1024

// announcer tells Caddy's events app of transitions, in their order. The
// engine that leads is the one that tells, so that in a cluster each is told
// once; what subscribers do holds up nothing but the next event.
type announcer struct {
	app    atomic.Pointer[App] // the newest that uses the engine
	queue  chan session.Record
	stop   chan struct{}
	logger *zap.Logger
}

func newAnnouncer(logger *zap.Logger) *announcer {
	return &announcer{queue: make(chan session.Record, waitingEvents), stop: make(chan struct{}), logger: logger}
}

// changed must not block: it is called by the engine's watch.
func (a *announcer) changed(from session.State, r session.Record) {
	switch {
	case eventNames[r.State] == "", from == r.State:
		return
	case r.State == session.Running && from != session.Resuming, r.State == session.Paused && from == session.Resuming:
		return // a pause or a resume that came to nothing
	}
	select {
	case a.queue <- r:
	default:
		a.logger.Warn("an event was dropped: its subscribers are too slow", zap.String("sandbox", r.SandboxID), zap.String("state", string(r.State)))
	}
}

// run emits until stop is closed.
func (a *announcer) run() {
	for {
		select {
		case r := <-a.queue:
			a.emit(r)
		case <-a.stop:
			return
		}
	}
}

func (a *announcer) emit(r session.Record) {
	app := a.app.Load()
	if app == nil || app.ctx.Err() != nil {
		return
	}
	v, err := app.ctx.AppIfConfigured("events")
	if err != nil {
		return
	}
	if events := v.(*caddyevents.App); events.ShouldEmit(eventNames[r.State]) {
		events.Emit(app.ctx, eventNames[r.State], map[string]any{
			"id": r.SandboxID, "state": string(r.State), "reason": r.Reason, "since": r.Since,
			"owner": r.Owner, "project": r.Project,
		})
	}
}
