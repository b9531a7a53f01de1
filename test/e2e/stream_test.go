package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// longerThanIdle is how many idle timeouts the streams of these tests last.
const longerThanIdle = 5

func TestSlowResponse_completesAndThenTheSandboxSleeps(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second})
	id, _ := s.startAppIn(t)
	seconds := longerThanIdle * int(s.idle/time.Second)
	watch := s.watchAwake(t, id)
	a := s.mustDo(t, s.request(t.Context(), http.MethodGet, id, appPort, fmt.Sprintf("/slow?seconds=%d", seconds), nil))
	watch.end(t)
	if want := strings.Repeat(".", seconds+1); a.status != http.StatusOK || a.body != want {
		t.Fatalf("wanted %d bytes, got %s", len(want), a)
	}
	s.requirePausedOnTime(t, id, a.lastByte(t))
}

func TestSlowUpload_completes(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second})
	id, _ := s.startAppIn(t)
	content := bytes.Repeat([]byte("u"), longerThanIdle*int(s.idle/time.Second))
	watch := s.watchAwake(t, id)
	a := s.mustDo(t, s.request(t.Context(), http.MethodPut, id, appPort, "/upload", oneByteASecond(t.Context(), content)))
	watch.end(t)
	want := sha256.Sum256(content)
	if a.status != http.StatusOK || a.body != hex.EncodeToString(want[:]) {
		t.Fatalf("wanted the checksum of %d bytes, got %s", len(content), a)
	}
}

func TestWebSocket_withFramesKeepsTheSandboxAwake(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second})
	id, _ := s.startAppIn(t)
	c := s.dial(t, id)
	watch := s.watchAwake(t, id)
	for range 2 * longerThanIdle {
		time.Sleep(s.idle / 2)
		requireEcho(t, c, "still here")
	}
	watch.end(t)
}

func TestWebSocket_thatOnlyPingsLetsTheSandboxSleep(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second})
	id, before := s.startAppIn(t)
	c := s.dial(t, id)
	lastUse := time.Now()
	requireEcho(t, c, "hello")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	closed := make(chan error, 1)
	go func() {
		_, _, err := c.Read(ctx) // reads the pongs, until somebody closes
		closed <- err
	}()
	go pingUntilDone(ctx, c, s.idle/4)
	s.requirePausedOnTime(t, id, lastUse)

	requireParked(t, s, id, c)

	requireContinued(t, before, s.mustAsk(t, id), 1)
	if err := c.Ping(ctx); err != nil {
		t.Errorf("after a wake by somebody else the stream does not answer a ping: %v", err)
	}
	select {
	case err := <-closed:
		t.Errorf("the stream was closed: %v", err)
	default:
	}
}

// A tab forgotten overnight goes on at the first key press in the morning: the message wakes the
// sandbox and is answered on the connection that was open all the time.
func TestWebSocket_thatSleptWakesTheSandboxByItsNextMessage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		host func(*testing.T) string
	}{
		{"on the local host", func(*testing.T) string { return "" }},
		{"on a host of its own", func(t *testing.T) string { return startSandboxd(t, "").url }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, options{host: test.host(t), idle: 3 * time.Second})
			id, before := s.startAppIn(t)
			c := s.dial(t, id)
			for n := 1; n <= 2; n++ {
				lastUse := time.Now()
				requireEcho(t, c, "good night")
				s.requirePausedOnTime(t, id, lastUse)
				requireStill(t, filepath.Join(before.Home, "ticks"))
				requireEcho(t, c, "good morning")
				if r := s.record(t, id); r.State != "RUNNING" || r.Totals.Pauses != n || r.Totals.Wakes != n {
					t.Errorf("after %d sleeps that a message ended the sandbox is %+v", n, r)
				}
			}
			requireContinued(t, before, s.mustAsk(t, id), 1)
		})
	}
}

// A host that cuts connections at a pause, as E2B does: the client's stays open, is answered, and is
// closed only when there is a running sandbox to come back to.
func TestWebSocket_thatTheHostCutsIsClosedOnceTheSandboxIsAwake(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		asks int64 // of the app, after the pause
		wake func(*testing.T, *sandman, *websocket.Conn, string)
	}{
		{"by its own message", 1, func(t *testing.T, _ *sandman, c *websocket.Conn, _ string) {
			if err := c.Write(t.Context(), websocket.MessageText, []byte("good morning")); err != nil {
				t.Fatal(err)
			}
		}},
		{"by somebody else", 2, func(t *testing.T, s *sandman, _ *websocket.Conn, id string) { s.mustAsk(t, id) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, options{host: startSandboxd(t, "cut_connections").url, idle: 3 * time.Second})
			id, before := s.startAppIn(t)
			c := s.dial(t, id)
			lastUse := time.Now()
			requireEcho(t, c, "good night")
			s.requirePausedOnTime(t, id, lastUse)

			closed := make(chan error, 1)
			go func() {
				_, _, err := c.Read(t.Context())
				closed <- err
			}()
			requireParked(t, s, id, c)
			test.wake(t, s, c, id)
			select {
			case err := <-closed:
				if websocket.CloseStatus(err) != websocket.StatusServiceRestart {
					t.Errorf("closed with %v, wanted status 1012", err)
				}
			case <-time.After(late):
				t.Fatal("not closed after the wake")
			}
			if r := s.record(t, id); r.State != "RUNNING" || r.Totals.Wakes != 1 {
				t.Errorf("when the client was told to come again the sandbox was %+v", r)
			}
			requireEcho(t, s.dial(t, id), "good morning")
			requireContinued(t, before, s.mustAsk(t, id), test.asks)
		})
	}
}

// requireParked fails the test unless pings of a client whose stream is being read are answered, and
// wake nothing.
func requireParked(t *testing.T, s *sandman, id string, c *websocket.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	for range 3 {
		if err := c.Ping(ctx); err != nil {
			t.Fatalf("a ping to a sandbox that sleeps: %v", err)
		}
	}
	if r := s.record(t, id); r.State != "PAUSED" {
		t.Fatalf("a ping has made it %s", r.State)
	}
}

func TestEventStream_keepsTheSandboxAwakeWhileItSpeaks(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second})
	id, before := s.startAppIn(t)
	events := s.listen(t, id, 500*time.Millisecond)
	watch := s.watchAwake(t, id)
	for range 4 * s.idle / (500 * time.Millisecond) {
		events.next(t, 3*time.Second)
	}
	watch.end(t)
	lastUse := time.Now()
	events.close()
	s.requirePausedOnTime(t, id, lastUse)

	// one that is silent is a forgotten tab
	lastUse = time.Now()
	events = s.listen(t, id, 0)
	events.next(t, 3*time.Second) // not only when a buffer is full
	s.requirePausedOnTime(t, id, lastUse)
	requireContinued(t, before, s.mustAsk(t, id), 1)
}

// eventStream is an EventSource's connection.
type eventStream struct {
	lines chan string
	close func()
}

// listen opens the app's stream of an event in each period, 0: one at the beginning only.
func (s *sandman) listen(t *testing.T, id string, every time.Duration) *eventStream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r := s.request(ctx, http.MethodGet, id, appPort, fmt.Sprintf("/events?every=%d", every.Milliseconds()), nil)
	r.Header.Set("Accept", "text/event-stream")
	res, err := s.http.Do(r)
	if err != nil {
		t.Fatalf("opening a stream of events: %v", err)
	}
	e := &eventStream{lines: make(chan string), close: cancel}
	go func() {
		defer res.Body.Close()
		defer close(e.lines)
		for scanner := bufio.NewScanner(res.Body); scanner.Scan(); {
			if line, ok := strings.CutPrefix(scanner.Text(), "data: "); ok {
				select {
				case e.lines <- line:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return e
}

func (e *eventStream) next(t *testing.T, within time.Duration) {
	t.Helper()
	select {
	case _, ok := <-e.lines:
		if !ok {
			t.Fatal("the stream of events has ended")
		}
	case <-time.After(within):
		t.Fatalf("no event within %s", within)
	}
}

func pingUntilDone(ctx context.Context, c *websocket.Conn, every time.Duration) {
	for ticker := time.NewTicker(every); ctx.Err() == nil; {
		_ = c.Ping(ctx) // fails when it is closed, which the reader reports
		select {
		case <-ctx.Done():
			ticker.Stop()
		case <-ticker.C:
		}
	}
}

// dial opens a WebSocket to the app in the sandbox.
func (e *e2b) dial(t *testing.T, id string) *websocket.Conn {
	t.Helper()
	url := e.request(t.Context(), http.MethodGet, id, appPort, "/ws", nil).URL.String()
	c, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: e.http})
	if err != nil {
		t.Fatalf("opening a WebSocket: %v", err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func requireEcho(t *testing.T, c *websocket.Conn, message string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // longer than anything is held
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
		t.Fatalf("sending over the WebSocket: %v", err)
	}
	if _, got, err := c.Read(ctx); err != nil || string(got) != message {
		t.Fatalf("wanted %q back over the WebSocket, got %q, %v", message, got, err)
	}
}

// oneByteASecond is a body whose length nobody knows beforehand.
func oneByteASecond(ctx context.Context, content []byte) io.Reader {
	r, w := io.Pipe()
	go func() {
		for _, b := range content {
			select {
			case <-ctx.Done():
				w.CloseWithError(ctx.Err())
				return
			case <-time.After(time.Second):
				if _, err := w.Write([]byte{b}); err != nil {
					return // the reader is gone
				}
			}
		}
		w.Close()
	}()
	return r
}

// awakeWatch looks at a sandbox's state all the time, and remembers the first that is not RUNNING.
type awakeWatch struct {
	stop chan struct{}
	err  chan error
}

func (s *sandman) watchAwake(t *testing.T, id string) *awakeWatch {
	t.Helper()
	w := &awakeWatch{stop: make(chan struct{}), err: make(chan error, 1)}
	request := func() *http.Request { return s.apiRequest(t, http.MethodGet, "/sandboxes/"+id, "") }
	go func() { w.err <- s.stayAwake(request, w.stop) }()
	return w
}

// stayAwake polls with the request until stop is closed, and returns an error if the state is ever
// another than RUNNING.
func (s *sandman) stayAwake(request func() *http.Request, stop <-chan struct{}) error {
	var first error
	for {
		a, err := s.do(request())
		if first == nil && (err != nil || !strings.Contains(a.body, `"RUNNING"`)) {
			first = errors.Join(err, fmt.Errorf("not awake all the time: %s", a))
		}
		select {
		case <-stop:
			return first
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// end fails the test unless the sandbox was RUNNING all the time.
func (w *awakeWatch) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	if err := <-w.err; err != nil {
		t.Error(err)
	}
}
