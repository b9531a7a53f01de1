package noise

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Verdict says what a message is worth. Of several parts of a message the
// smallest verdict holds.
type Verdict uint8

const (
	// Counts is a message that a person may have sent. Zero: who forgets to judge, counts.
	Counts Verdict = iota
	// Noise is a message that no person sent, and that the server must get all the same.
	Noise
	// Swallow is noise that need not be delivered if it came while the server slept.
	Swallow
)

func (v Verdict) String() string {
	switch v {
	case Noise:
		return "noise"
	case Swallow:
		return "swallow"
	default:
		return "counts"
	}
}

// Message is one whole data message of the client, with its fragments put together.
type Message struct {
	// Binary tells a binary message from a text message.
	Binary bool
	// Size is the length of the payload in bytes, as far as it is known.
	Size int64
	// Payload is unmasked and inflated; nil where it could not be read, or is too
	// large to be looked into. Such a message counts. It is not kept.
	Payload []byte
}

// Config says what a Set goes by. The zero value is all presets and no rules.
type Config struct {
	// Presets are the names of those in use; nil means all, empty none.
	Presets []string `json:"presets,omitempty"`
	// Rules add to the presets.
	Rules []Rule `json:"rules,omitempty"`
	// Now is the clock; nil means time.Now.
	Now func() time.Time `json:"-"`
}

// Set holds the presets and rules of a site. Any number of goroutines may use it.
type Set struct {
	presets  []preset
	messages []messageRule
	requests []requestRule
	folders  *folders
}

// New compiles the rules. Its error names every rule that can't be meant.
func New(cfg Config) (*Set, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Set{folders: newFolders(cfg.Now)}
	var errs []error
	for _, name := range cfg.Presets {
		if !slices.Contains(Presets(), name) {
			errs = append(errs, fmt.Errorf("unknown preset %q: there are %s", name, strings.Join(Presets(), ", ")))
		}
	}
	for _, p := range presets {
		if cfg.Presets == nil || slices.Contains(cfg.Presets, p.name) {
			s.presets = append(s.presets, p)
		}
	}
	for i, r := range cfg.Rules {
		if err := s.add(r); err != nil {
			errs = append(errs, fmt.Errorf("noise rule %d %q: %w", i+1, r.name(), err))
		}
	}
	return s, errors.Join(errs...)
}

// Presets returns the names of all presets, in the order in which they are tried.
func Presets() []string {
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.name
	}
	return names
}

// Request tells whether no person sent r, and by which preset or rule. It looks
// at the line and the headers only; the body stays unread.
func (s *Set) Request(r *http.Request) (rule string, noise bool) {
	for _, p := range s.presets {
		if p.request == nil {
			continue
		}
		if what := p.request(s, r); what != "" {
			return p.name + ": " + what, true
		}
	}
	for i := range s.requests {
		if s.requests[i].matches(r) {
			return s.requests[i].name, true
		}
	}
	return "", false
}

// Reopens tells whether r opens a stream anew although it is no upgrade: the
// first polling request of a socket.io page that lost its connection. It is
// noise too (a forgotten tab sends it every 5 s), but who lets reconnects wake a
// sandbox a few times a day should treat it as one.
func (s *Set) Reopens(r *http.Request) bool {
	return s.has("socket.io") && opensPolling(r)
}

func (s *Set) has(name string) bool {
	return slices.ContainsFunc(s.presets, func(p preset) bool { return p.name == name })
}

// Stream returns the judge of the WebSocket that r opened, for the subprotocol
// that the server chose ("" none). It is never nil, and keeps nothing of r.
func (s *Set) Stream(r *http.Request, subprotocol string) *Stream {
	st := new(Stream)
	for _, p := range s.presets {
		if p.stream != nil && p.stream(r, subprotocol, st) {
			st.preset = p.name
			break
		}
	}
	for i := range s.messages {
		if s.messages[i].applies(r) {
			st.rules = append(st.rules, &s.messages[i])
		}
	}
	st.shareNames()
	return st
}

// Stream judges the messages of one WebSocket. One goroutine at a time may use it.
type Stream struct {
	preset  string
	judge   judge          // of the preset; nil: none
	rules   []*messageRule // the operator's, of this stream
	resends bool
	key     string
	ping    *pings
	alive   *KeepAlive // what the page wants to see; nil: what ping says
}

// judge knows one protocol. It may keep a few bytes from message to message.
type judge interface {
	judge(m Message) Verdict
}

// Judge says what m is worth. It allocates nothing, and keeps nothing of the payload.
func (s *Stream) Judge(m Message) Verdict {
	v := Counts
	if s.judge != nil {
		v = s.judge.judge(m) // even where a rule would do: it follows the protocol
	}
	if v != Counts || m.Payload == nil {
		return v
	}
	for _, r := range s.rules {
		if r.matches(m) {
			return Noise
		}
	}
	return Counts
}

// Preset names the preset that knows this stream, "" if none does.
func (s *Stream) Preset() string { return s.preset }

// Resends tells whether this stream continues an earlier one, and so begins with
// messages of that one. For its first seconds they prove nothing, unless the
// stream is parked.
func (s *Stream) Resends() bool { return s.resends }

// Key names the page across its reconnects: two streams of a sandbox with the
// same key are the same connection of the same page. "" means that it has no name.
func (s *Stream) Key() string { return s.key }

// KeepAlive is how a page is kept from giving up while the server sleeps.
type KeepAlive struct {
	// Ping is the message that is sent to it, every Every.
	Ping string
	// Binary tells a binary message from a text message.
	Binary bool
	// Pong is its answer, a text message that need not be delivered; "" if it gives none.
	Pong string
	// After is how long a message of the server the ping may follow, in bytes as
	// they were sent; 0: any. A longer one may go on in the next.
	After uint64
	// Silence is how long a server that runs is silent only between whole messages:
	// after it the ping may follow any.
	Silence time.Duration
	// Every is the server's own period, so far as it has been seen, or shorter than
	// the page's patience.
	Every time.Duration
}

// KeepAlive returns how to keep the page alive, nil where WebSocket's own pings do.
func (s *Stream) KeepAlive() *KeepAlive {
	if s.ping == nil {
		return s.alive
	}
	return &KeepAlive{Ping: "2", Pong: "3", Every: s.ping.every()}
}

// WantsServer tells whether ObserveServer learns anything from this server.
func (s *Stream) WantsServer() bool { return s.ping != nil }

// ObserveServer is told of a small text message of the server that came at now,
// readable, while the server ran. It is not kept.
func (s *Stream) ObserveServer(payload []byte, now time.Time) {
	if s.ping != nil {
		s.ping.observe(payload, now)
	}
}
