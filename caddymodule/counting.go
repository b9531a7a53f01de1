package caddymodule

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/sandman-proxy/sandman/internal/noise"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/stream"
)

// counting is what of a site's long connections counts.
type counting struct {
	noise          *noise.Set
	client, server bool // whose messages do
}

// newCounting is told what counts: "client", which "" means too, "both" or
// "none".
func newCounting(cfg noise.Config, what string) (*counting, error) {
	c := new(counting)
	switch what {
	case "", "client":
		c.client = true
	case "both":
		c.client, c.server = true, true
	case "none":
	default:
		return nil, fmt.Errorf("count %q: want client, both or none", what)
	}
	var err error
	c.noise, err = noise.New(cfg)
	return c, err
}

// judge is the one of a WebSocket. The goroutines of both directions, and the
// engine's, use it.
type judge struct {
	path   string
	repeat func(noise.Repeat) // is told what comes at one period

	mu      sync.Mutex // guards the following fields
	noise   *noise.Stream
	repeats noise.Repeats
	counted int       // messages that repeats has seen
	last    time.Time // of the last message that counted
}

const (
	// repeatPause keeps a busy stream's messages from being compared: among
	// others, one more that repeats itself keeps nothing awake.
	repeatPause = time.Second

	// repeatLook is how many messages there are between two looks for repeats.
	repeatLook = 10

	// maxResends is how long a stream that continues another may send again what
	// that one has sent; a quarter of the idle timeout where that is less.
	maxResends = 10 * time.Second
)

func (j *judge) judge(m stream.Message) stream.Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	v := j.noise.Judge(noise.Message(m))
	if v == noise.Counts {
		j.unsyncedLook(noise.Message(m), time.Now())
	}
	return stream.Verdict(v)
}

// unsyncedLook looks whether a message that counts comes at one period.
func (j *judge) unsyncedLook(m noise.Message, now time.Time) {
	busy := now.Sub(j.last) < repeatPause
	j.last = now
	if busy {
		return
	}
	j.repeats.Message(j.path, m, now)
	if j.counted++; j.counted%repeatLook == 0 {
		for _, r := range j.repeats.Suggested(now) {
			j.repeat(r)
		}
	}
}

func (j *judge) observeServer(payload []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.noise.ObserveServer(payload, time.Now())
}

func (j *judge) keepAlive() stream.KeepAlive {
	j.mu.Lock()
	defer j.mu.Unlock()
	return stream.KeepAlive(*j.noise.KeepAlive())
}

// judgeBy has the messages of a WebSocket judged by what is known of the app
// that has answered the handshake.
func (u *upgrade) judgeBy(set *noise.Set, opts *stream.Options, answer http.Header) {
	f := u.flight
	j := &judge{path: u.info.Path, noise: set.Stream(f.arrived, answer.Get("Sec-WebSocket-Protocol"))}
	j.repeat = func(r noise.Repeat) { f.engine.Streams().Repeated(f.target.SandboxID, repeated(r)) }
	u.info.Preset, u.page.Key = j.noise.Preset(), j.noise.Key()
	opts.Judge = j.judge
	if j.noise.KeepAlive() != nil {
		opts.KeepAlive = j.keepAlive
	}
	if j.noise.WantsServer() {
		opts.ObserveServer = j.observeServer
	}
	if j.noise.Resends() {
		opts.Resends = min(maxResends, f.idleTimeout()/4)
	}
}

// repeated is a message that comes at one period as people read it, with the
// rule that would make noise of it.
func repeated(r noise.Repeat) session.Repeat {
	what := r.Rule.Opcode + " " + r.Rule.Payload
	if r.Rule.Payload == "" {
		what = r.Rule.Opcode + " of length " + r.Rule.Length
	}
	return session.Repeat{
		At: r.Last.UTC(), Kind: "message", Path: r.Rule.Path, What: what,
		Every: session.Duration(r.Every), Count: r.Count, Rule: ruleText(r.Rule),
	}
}

// ruleText is a rule about messages as it is configured.
func ruleText(r noise.Rule) string {
	text := "path " + r.Path + ", opcode " + r.Opcode
	if r.Payload == "" {
		return text + ", length " + r.Length
	}
	return text + ", payload " + strconv.Quote(r.Payload)
}
