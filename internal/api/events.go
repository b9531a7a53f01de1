package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"
)

const (
	eventsType = "text/event-stream"
	// heartbeat is how long a stream of events says nothing at most: proxies on
	// the way end what seems dead, and a dead client is noticed by it.
	heartbeat = 15 * time.Second
	// readWithin is how long a client may take to read what was sent.
	readWithin = 30 * time.Second
	// reconnectAfter is what an EventSource is told to wait before it comes again.
	reconnectAfter = time.Second
)

// EventKind is what an event says.
type EventKind string

// The kinds of events.
const (
	EventSandbox EventKind = "sandbox" // how a sandbox is now
	EventGone    EventKind = "gone"    // there is no such sandbox any more, for this reader
	EventReset   EventKind = "reset"   // some changes are lost: list anew
)

// Event is one thing that a reader is told.
type Event struct {
	Kind EventKind
	// ID is what to resume from: everything up to this revision of the store has
	// been told, this event included.
	ID        int64
	SandboxID string
	Sandbox   Sandbox // with EventSandbox
}

// EventFilter says which sandboxes a reader is told of. Empty fields don't
// filter.
type EventFilter struct {
	Sandbox, Owner, Project string
	// Bound is the owner that the reader is bound to.
	Bound string
	// Claimed leaves out the sandboxes that have neither owner nor project.
	Claimed bool
}

// Matches tells whether a reader may know of a sandbox and wants to.
func (f EventFilter) Matches(id, owner, project string) bool {
	return (f.Sandbox == "" || f.Sandbox == id) &&
		(f.Owner == "" || f.Owner == owner) &&
		(f.Project == "" || f.Project == project) &&
		(f.Bound == "" || f.Bound == owner) &&
		(!f.Claimed || owner != "" || project != "")
}

// Events are what one reader is told. They belong to one goroutine.
type Events interface {
	// At is where the reader begins, to resume from before any event has come.
	At() int64
	// Next waits until there is something to tell, and gives some of it, in
	// order. It returns ctx's error when that ends, and another one where nothing
	// will be told any more.
	Next(ctx context.Context) ([]Event, error)
	// Close must be called.
	Close()
}

type eventsInput struct {
	Sandbox string `query:"sandbox" maxLength:"64" doc:"Only this sandbox. The stream begins with how it is, unless it is resumed."`
	Owner   string `query:"owner" maxLength:"256" doc:"Only this owner's."`
	Project string `query:"project" maxLength:"256" doc:"Only those of this project."`
	Last    string `query:"lastEventID" maxLength:"32" doc:"The same as the header, for clients that can't send it."`
	Header  string `header:"Last-Event-ID" maxLength:"32" doc:"The ID of the last event that was read: go on from there. Each sandbox that has changed since comes once, as it is now; the steps between are in its history."`
}

func (s *server) addEvents() {
	schema := &huma.Schema{Type: huma.TypeString, Description: "Server-sent events, UTF-8."}
	add(s, RoleViewer, huma.Operation{
		OperationID: "events", Method: http.MethodGet, Path: "/events",
		Summary: "Be told of changes",
		Description: "Server-sent events. sandbox: its data is the sandbox, as GET answers it; sent at each change, at most once a second where only its use has changed. " +
			"gone: its data is {\"sandboxID\"}; there is no such sandbox any more, or it is not for this reader. " +
			"reset: some changes are lost, because the ID that was resumed from is too old or the client read too slowly; list the sandboxes anew, what comes on this stream meanwhile is newer. " +
			"The ID of an event is to be resumed from, at any proxy, and nothing else. A comment comes every 15 s. A stream may end at any time; come again with the last ID.",
		Responses: map[string]*huma.Response{"200": {
			Description: "The stream", Content: map[string]*huma.MediaType{eventsType: {Schema: schema}},
		}},
		Errors:   []int{http.StatusNotFound},
		Metadata: badgeMay(maySee),
	}, s.events)
}

func (s *server) events(ctx context.Context, who Token, in *eventsInput) (*huma.StreamResponse, error) {
	f := EventFilter{Sandbox: in.Sandbox, Owner: in.Owner, Project: in.Project, Bound: who.Owner, Claimed: !who.seesAll()}
	if who.badge != nil {
		f.Claimed = false
		if f.Sandbox == "" {
			f.Sandbox = who.badge.Sandbox
		}
	}
	if f.Sandbox != "" {
		if _, err := s.look(ctx, who, f.Sandbox); err != nil {
			return nil, err
		}
	}
	if s.Ending != nil && s.Ending.Err() != nil {
		return nil, &UnavailableError{Reason: "this process, or its configuration, is about to end", RetryAfter: reconnectAfter}
	}
	after, resumed := resumePoint(in)
	events, err := s.Reader.Watch(ctx, f, after, resumed)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer events.Close()
		r, w := humago.Unwrap(hc)
		ctx, cancel := s.untilEnd(r.Context(), who)
		defer cancel()
		tell(ctx, w, r.Method == http.MethodHead, events, s.Log)
	}}, nil
}

// resumePoint is where a client wants to go on. What is no ID of ours is as old
// as can be.
func resumePoint(in *eventsInput) (after int64, resumed bool) {
	last := in.Header
	if last == "" {
		last = in.Last
	}
	if last == "" {
		return 0, false
	}
	after, err := strconv.ParseInt(last, 10, 64)
	if err != nil || after < 0 {
		after = 0
	}
	return after, true
}

// untilEnd gives a context that ends with this API, too, and with a token that
// expires.
func (s *server) untilEnd(ctx context.Context, who Token) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	ends := []context.CancelFunc{cancel}
	if s.Ending != nil {
		stop := context.AfterFunc(s.Ending, cancel)
		ends = append(ends, func() { stop() })
	}
	if who.badge != nil {
		timer := time.AfterFunc(time.Until(who.badge.expires()), cancel)
		ends = append(ends, func() { timer.Stop() })
	}
	return ctx, func() {
		for _, end := range ends {
			end()
		}
	}
}

// tell writes events until ctx ends, or the client reads no more.
func tell(ctx context.Context, w http.ResponseWriter, headOnly bool, events Events, log *zap.Logger) {
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", eventsType)
	w.Header().Set("X-Accel-Buffering", "no") // nginx on the way would keep them
	w.WriteHeader(http.StatusOK)
	if headOnly {
		return
	}
	defer func() { _ = out.SetWriteDeadline(time.Time{}) }() // the connection may serve others
	batch := fmt.Appendf(nil, "retry: %d\nid: %d\n\n", reconnectAfter.Milliseconds(), events.At())
	for {
		_ = out.SetWriteDeadline(time.Now().Add(readWithin)) // where it can be set
		if _, err := w.Write(batch); err != nil || out.Flush() != nil {
			return
		}
		next, cancel := context.WithTimeout(ctx, heartbeat)
		told, err := events.Next(next)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			batch = []byte(":\n\n")
			continue
		case err != nil:
			return
		}
		if batch, err = render(told); err != nil {
			log.Error("events could not be rendered", zap.Error(err))
			return
		}
	}
}

func render(told []Event) ([]byte, error) {
	var b bytes.Buffer
	for _, e := range told {
		data, err := json.Marshal(e.data())
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "event: %s\nid: %d\ndata: %s\n\n", e.Kind, e.ID, data) // JSON has no line breaks
	}
	return b.Bytes(), nil
}

func (e Event) data() any {
	switch e.Kind {
	case EventSandbox:
		return newSandboxOutput(e.Sandbox).Body
	case EventGone:
		return struct {
			SandboxID string `json:"sandboxID"`
		}{e.SandboxID}
	default:
		return struct{}{}
	}
}
