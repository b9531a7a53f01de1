package session

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Traffic is what one proxy tells of a session beside who is present: its long
// connections, and what did not count or was not let through.
type Traffic struct {
	Streams []Stream  `json:"streams,omitempty"` // at most MaxStreams of those that are open
	More    int       `json:"more,omitempty"`    // how many more are open
	Refused []Refusal `json:"refused,omitempty"` // the last ones, the newest last
	Repeats []Repeat  `json:"repeats,omitempty"`
}

// MaxStreams, MaxRefused and MaxRepeats bound what one proxy tells of one
// session.
const (
	MaxStreams = 50
	MaxRefused = 20
	MaxRepeats = 10
)

// Open is how many streams are open.
func (t Traffic) Open() int { return len(t.Streams) + max(0, t.More) }

// Empty tells whether there is nothing to tell.
func (t Traffic) Empty() bool { return t.Open() == 0 && len(t.Refused) == 0 && len(t.Repeats) == 0 }

// StreamState is what an open stream is to its sandbox.
type StreamState string

// The states of a stream. One that is dormant does not keep its sandbox awake;
// a parked one waits for a sandbox that sleeps.
const (
	StreamActive  StreamState = "active"
	StreamDormant StreamState = "dormant"
	StreamParked  StreamState = "parked"
)

// Stream is one long connection.
type Stream struct {
	Kind   string      `json:"kind"`             // such as "websocket"
	Path   string      `json:"path,omitempty"`   // of its request, without the query
	Preset string      `json:"preset,omitempty"` // the preset that judges its messages
	State  StreamState `json:"state"`
	Since  time.Time   `json:"since"` // when it was opened

	// LastCounted is when something last came through it that counted. Of a
	// stream that is active it is as old as the last change that was written.
	LastCounted time.Time `json:"lastCounted,omitzero"`
}

// Refusal is a request that might have woken a sleeping sandbox and did not.
type Refusal struct {
	At     time.Time `json:"at"`              // the last time
	Asker  string    `json:"asker,omitempty"` // what kind of request it was taken for
	What   string    `json:"what"`            // such as "GET /api/status"
	Reason string    `json:"reason"`          // a word that names the rule, such as "prefetch"
	Count  int       `json:"count"`           // how often, one after the other
}

// Same tells whether o is the same refusal at another time.
func (r Refusal) Same(o Refusal) bool {
	return r.Asker == o.Asker && r.What == o.What && r.Reason == o.Reason
}

// Repeat is something that comes at one period, as no person sends it: a rule
// that calls it noise may be missing.
type Repeat struct {
	At    time.Time `json:"at"`             // the last time
	Kind  string    `json:"kind"`           // "message" or "request"
	Path  string    `json:"path,omitempty"` // of the stream or request, without the query
	What  string    `json:"what"`           // the payload, or the request, as people read it
	Every Duration  `json:"every"`
	Count int       `json:"count"`          // how often it came so far
	Rule  string    `json:"rule,omitempty"` // what to add to the configuration
}

// Same tells whether o is the same repeat, seen later.
func (r Repeat) Same(o Repeat) bool {
	return r.Kind == o.Kind && r.Path == o.Path && r.What == o.What
}

// MaxText bounds each text that clients choose, in bytes.
const MaxText = 200

// Shorten cuts text to MaxText bytes, not within a character.
func Shorten(text string) string {
	const more = "…"
	if len(text) <= MaxText {
		return text
	}
	return strings.ToValidUTF8(text[:MaxText-len(more)], "") + more
}

// NodeTraffic is the Traffic of one proxy as it is stored. There may be one for
// each session while hardly any is looked at, so it is kept as it came.
type NodeTraffic struct {
	Node   string
	Open   int // how many streams it has open
	stored []byte
}

// StoredTraffic takes over the value that a proxy has stored. The error says
// that it can't be read.
func StoredTraffic(node string, value []byte) (NodeTraffic, error) {
	var t Traffic
	if err := json.Unmarshal(value, &t); err != nil {
		return NodeTraffic{}, fmt.Errorf("decoding traffic: %w", err)
	}
	return NodeTraffic{Node: node, Open: t.Open(), stored: value}, nil
}

// Traffic gives what the proxy told.
func (n NodeTraffic) Traffic() Traffic {
	var t Traffic
	_ = json.Unmarshal(n.stored, &t) // StoredTraffic has read it, so it can be
	return t
}
