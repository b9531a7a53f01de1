package session

import "time"

// MinIdleTimeout is the shortest idle timeout that the protocol bears: it must
// exceed the time in which a proxy that lost its presence has put it again.
const MinIdleTimeout = 2 * time.Second

// Activity is the last sign of use of a session, as it is stored.
type Activity struct {
	LastActivity time.Time `json:"lastActivity"`      // wall clock, for people
	QuietMs      int64     `json:"quietMs,omitempty"` // age of the last counted byte when this was written, by the writer's monotonic clock
	Open         bool      `json:"open"`              // a visit has begun and nobody has closed it
	Kind         string    `json:"kind,omitempty"`    // what it was, such as "request" or "websocket"
	Node         string    `json:"node,omitempty"`
}

// Quiet is QuietMs as a duration.
func (a Activity) Quiet() time.Duration { return time.Duration(a.QuietMs) * time.Millisecond }

// Hold keeps a sandbox awake until it expires.
type Hold struct {
	Name      string    `json:"name"`
	Reason    string    `json:"reason,omitempty"`
	By        string    `json:"by,omitempty"` // name of the token that put it
	ExpiresAt time.Time `json:"expiresAt"`
}

// Same tells whether o says the same.
func (h Hold) Same(o Hold) bool {
	return h.Name == o.Name && h.Reason == o.Reason && h.By == o.By && h.ExpiresAt.Equal(o.ExpiresAt)
}

// Linger is how long presence outlives the last request, so that a page's next
// request finds it in memory: a quarter of the idle timeout, at most 1 s.
func Linger(idleTimeout time.Duration) time.Duration {
	return min(time.Second, idleTimeout/4)
}

// Transition is one line of a session's history.
type Transition struct {
	At     time.Time `json:"at"`
	From   State     `json:"from,omitempty"` // "" where the session begins
	To     State     `json:"to"`
	Reason string    `json:"reason"`
	Node   string    `json:"node,omitempty"` // the proxy that wrote it
	Op     string    `json:"op,omitempty"`   // ID of the op that it begins or ends
}

// Between gives the history line of the step from one record to the next.
func Between(from, to Record, node string) Transition {
	t := Transition{At: to.Since, From: from.State, To: to.State, Reason: to.Reason, Node: node}
	if failed := resumeFailed(from, to); failed != nil { // of which the record tells in LastError
		t.At, t.Reason = failed.At, failed.words()
	}
	for _, r := range []Record{from, to} {
		if r.Op != nil {
			t.Op = r.Op.ID
		}
	}
	return t
}
