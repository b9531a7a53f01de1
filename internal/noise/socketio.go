package noise

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Socket.io speaks engine.io, whose packets begin with a digit:
//
//	0 open   1 close   2 ping   3 pong   4 message   5 upgrade   6 noop
//
// In version 4 the server pings and the page answers. A message of socket.io
// begins with a digit of its own: 40 connects to a namespace, 42 is an event.

func socketIOStream(r *http.Request, _ string, s *Stream) bool {
	q, ok := engineQuery(r)
	if !ok || q.Get("transport") != "websocket" {
		return false
	}
	s.judge = socketIOJudge{connects: ofSocketIO(r)}
	if q.Get("EIO") == "4" {
		s.ping = new(pings)
	}
	return true
}

func engineQuery(r *http.Request) (url.Values, bool) {
	if !strings.Contains(r.URL.RawQuery, "EIO=") {
		return nil, false
	}
	q := r.URL.Query()
	return q, q.Get("EIO") != "" && q.Get("transport") != ""
}

// ofSocketIO tells socket.io from engine.io without it, where 40 may be somebody's key 0.
func ofSocketIO(r *http.Request) bool { return strings.Contains(r.URL.Path, "/socket.io/") }

type socketIOJudge struct {
	connects bool // 40… is socket.io's CONNECT
	rules    []names
}

func (j socketIOJudge) judge(m Message) Verdict {
	if m.Binary || m.Payload == nil {
		return Counts
	}
	switch string(m.Payload) {
	case "3":
		return Swallow // whoever pinged has his answer; the server counts from its own pings
	case "2", "5", "6", "2probe", "3probe":
		return Noise
	}
	if j.connects && isConnect(m.Payload) || haveAny(j.rules, nil, socketIOEvent(m.Payload)) {
		return Noise
	}
	return Counts
}

func (j socketIOJudge) withNames(rules []names) judge { j.rules = rules; return j }

func isConnect(p []byte) bool {
	rest, ok := bytes.CutPrefix(p, []byte("40"))
	return ok && (len(rest) == 0 || rest[0] == '/' || rest[0] == '{')
}

// socketIOEvent returns the name of an event: 42["name",…], 42/chat,7["name",…].
func socketIOEvent(p []byte) []byte {
	rest, ok := bytes.CutPrefix(p, []byte("42"))
	if !ok {
		return nil
	}
	_, rest, ok = bytes.Cut(rest, []byte(`["`))
	if !ok {
		return nil
	}
	name, _, _ := bytes.Cut(rest, []byte(`"`))
	return name
}

// socketIORequest knows long polling: the GET that waits for the server's
// messages, and the POST that brings the page's, whose length tells a pong from
// an event: an event has eight bytes at least.
func socketIORequest(_ *Set, r *http.Request) string {
	q, ok := engineQuery(r)
	if !ok || q.Get("transport") != "polling" {
		return ""
	}
	switch {
	case r.Method == http.MethodGet:
		return "poll for messages"
	case r.Method != http.MethodPost || q.Get("sid") == "":
		return ""
	case q.Get("EIO") == "4" && r.ContentLength == 1, q.Get("EIO") == "3" && r.ContentLength == 3: // "3", "1:2"
		return "ping or pong"
	case q.Get("EIO") == "4" && r.ContentLength == 2 && ofSocketIO(r):
		return "connect"
	}
	return ""
}

func opensPolling(r *http.Request) bool {
	q, ok := engineQuery(r)
	return ok && r.Method == http.MethodGet && q.Get("transport") == "polling" && q.Get("sid") == ""
}

// defaultPing is engine.io's own period.
const defaultPing = 25 * time.Second

// pings learns how often a server pings: from what it says when it opens the
// connection, or else from its pings.
type pings struct {
	said, seen time.Duration
	last       time.Time
}

// every gives the shortest period that is known: a page bears more pings than it expects, not fewer.
func (p *pings) every() time.Duration {
	switch {
	case p.said > 0:
		return p.said
	case p.seen > 0:
		return min(p.seen, defaultPing)
	default:
		return defaultPing
	}
}

// minPing keeps a broken or hostile server from making its proxy busy.
const minPing = time.Second

func (p *pings) observe(payload []byte, now time.Time) {
	switch {
	case string(payload) == "2":
		if gap := now.Sub(p.last); !p.last.IsZero() && gap > 0 && (p.seen == 0 || gap < p.seen) {
			p.seen = max(gap, minPing)
		}
		p.last = now
	case len(payload) > 1 && payload[0] == '0' && payload[1] == '{':
		var open struct {
			PingInterval int64 `json:"pingInterval"`
		}
		const most = int64(24 * time.Hour / time.Millisecond)
		if json.Unmarshal(payload[1:], &open) == nil && open.PingInterval > 0 && open.PingInterval <= most {
			p.said = max(time.Duration(open.PingInterval)*time.Millisecond, minPing)
		}
	}
}
