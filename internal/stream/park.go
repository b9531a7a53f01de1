package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gobwas/ws"
)

// ErrNotParked says that a stream is not parked (any more).
var ErrNotParked = errors.New("the stream is not parked")

var (
	errBusy  = errors.New("the client can't be sent a frame now")
	errEnded = errors.New("the stream has ended")
)

const (
	reasonSevered = "the sandbox was paused"
	reasonTooMuch = "too much was sent while the sandbox slept"
)

// Park cuts the client off from an upstream that is being paused, until Unpark,
// or until Count has returned for a message of the client. Nothing reaches the
// upstream meanwhile: pings are answered here, noise is kept for later, up to
// 16 KiB. Bytes that the upstream has sent before still reach the client. Park
// does not block. A stream that is parked or ending stays so.
//
// If the upstream's connection ends meanwhile the client's stays open, and is
// closed with 1012 once the parking ends; one that was left in the middle of a
// frame is closed at once.
func (b *Body) Park() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.phase.Load() == phaseOpen && !b.parked.Load() {
		b.unsyncedPark()
		b.unsyncedInterrupt()
	}
}

// unsyncedPark must be called with b.mu held.
func (b *Body) unsyncedPark() {
	b.parked.Store(true)
	b.silent = true
	if b.asking != nil {
		b.asking()
	}
	if b.opts.KeepAlive == nil {
		return
	}
	b.alive = b.opts.KeepAlive()
	b.settled = b.alive.Silence > 0 && time.Since(b.began)-b.heard >= b.alive.Silence
	if b.alive.Every > 0 && b.opts.WebSocket {
		// the client may have waited for up to a period already
		b.beat = time.AfterFunc(b.alive.Every/2, b.keepBeating)
	}
}

// Unpark lets the stream go on: the upstream gets what was kept, then what comes.
// It does not block. A stream that is not parked stays as it is.
func (b *Body) Unpark() {
	b.mu.Lock()
	parked := b.unsyncedUnpark()
	severed := b.severed.Load()
	b.mu.Unlock()
	switch {
	case !parked:
	case severed:
		b.CloseWith(StatusServiceRestart, reasonSevered)
	case b.waiting.Load():
		go b.deliver() // ends with the stream: the upstream's connection is closed
	}
}

// unsyncedUnpark reports whether the stream was parked. b.mu must be held.
func (b *Body) unsyncedUnpark() bool {
	if !b.parked.Load() {
		return false
	}
	b.parked.Store(false)
	b.unparks++
	b.unsyncedStopBeating()
	b.unanswered.Store(0)
	for _, p := range b.pings {
		p.end(ErrNotParked)
	}
	b.pings = nil
	return true
}

// unsyncedStopBeating must be called with b.mu held.
func (b *Body) unsyncedStopBeating() {
	if b.beat != nil {
		b.beat.Stop()
		b.beat = nil
	}
}

// noteCounted notes the time since the begin, which takes half as long to read as
// that of the day.
func (b *Body) noteCounted() { b.lastCounted.Store(int64(time.Since(b.began)) + 1) }

func (b *Body) keepAlive() KeepAlive {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.alive
}

// keepBeating sends the client what it wants to see, again and again while the
// stream is parked.
func (b *Body) keepBeating() {
	alive := b.keepAlive()
	if alive.Pong != "" {
		b.unanswered.Add(1) // before the answer can come
	}
	if !b.parked.Load() || !b.inject(b.ctx, alive.frame(), true) {
		b.unanswered.Store(max(0, b.unanswered.Add(-1)))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.beat != nil {
		b.beat.Reset(alive.Every)
	}
}

// ping is one that waits for its pong.
type ping struct {
	payload string
	done    chan error
}

func (p *ping) end(err error) {
	select {
	case p.done <- err:
	default:
	}
}

// Ping asks the client of a parked stream whether it is still there, and returns
// nil once it has answered. Other errors than the context's are ErrNotParked, that
// the client is in the middle of a frame, and that the stream has ended.
func (b *Body) Ping(ctx context.Context) error {
	p, err := b.beginPing()
	if err != nil {
		return fmt.Errorf("pinging the client: %w", err)
	}
	if !b.inject(ctx, controlFrame(ws.OpPing, []byte(p.payload)), false) {
		p.end(errBusy)
	}
	select {
	case err = <-p.done:
	case <-ctx.Done():
		err = ctx.Err()
	case <-b.ctx.Done():
		err = errEnded
	}
	if err == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pings = slices.DeleteFunc(b.pings, func(other *ping) bool { return other == p })
	return fmt.Errorf("pinging the client: %w", err)
}

func (b *Body) beginPing() (*ping, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.phase.Load() != phaseOpen:
		return nil, errEnded
	case !b.parked.Load() || !b.opts.WebSocket:
		return nil, ErrNotParked
	}
	p := &ping{payload: string(binary.BigEndian.AppendUint64(nil, rand.Uint64())), done: make(chan error, 1)}
	b.pings = append(b.pings, p)
	return p, nil
}

// ponged takes a client's pong. It reports whether it answers a Ping; it then
// answers those before it as well.
func (b *Body) ponged(payload []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, p := range b.pings {
		if p.payload != string(payload) {
			continue
		}
		for _, p := range b.pings[:i+1] {
			p.end(nil)
		}
		b.pings = slices.Delete(b.pings, 0, i+1)
		return true
	}
	return false
}

// sever is called when the upstream's connection has ended without a farewell. It
// reports whether a pause has done that. Then the stream is parked without an
// upstream, or, where the pause is over already, closed with 1012.
func (b *Body) sever() bool {
	b.mu.Lock()
	unparks, parked, cut := b.unparks, b.parked.Load(), b.parked.Load() || b.silent
	farewell := b.server.closed || b.clientClosed.Load()
	whole := b.server.atBoundary()
	b.mu.Unlock()
	if !b.opts.WebSocket || farewell || !whole || !cut && !b.ask() {
		return false
	}

	b.mu.Lock()
	over := b.unparks != unparks || !parked && cut
	if !over && !b.parked.Load() {
		b.unsyncedPark()
	}
	b.severed.Store(true)
	b.mu.Unlock()
	_ = b.closeUpstream() // it ends a Write that is under way, too
	if over {
		b.CloseWith(StatusServiceRestart, reasonSevered)
	}
	b.writing.Lock() // what was under way has noted by now what it missed
	defer b.writing.Unlock()
	b.unwritable.Store(false)
	if b.missed.Swap(false) {
		b.count()
	}
	return true
}

// ask has the owner say whether the upstream was paused.
func (b *Body) ask() bool {
	if b.opts.OnUpstreamEnd == nil {
		return false
	}
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	b.mu.Lock()
	b.asking = stop
	if b.parked.Load() {
		stop()
	}
	b.mu.Unlock()
	paused := b.opts.OnUpstreamEnd(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asking = nil
	return paused || b.parked.Load()
}
