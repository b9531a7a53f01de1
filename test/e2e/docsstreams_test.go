package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// What docs/editors-and-streams.md says of commands: one whose caller waits for its end with a limit keeps
// the sandbox awake; any other one does with its output, and not with the signs of life that its caller has
// asked for.
func TestDocs_connectedCommands(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second})

	t.Run("with a limit", func(t *testing.T) {
		t.Parallel()
		id := s.create(t)
		disconnect := s.connectCommand(t, id, "sleep 60", http.Header{"Connect-Timeout-Ms": {"60000"}})
		watch := s.watchAwake(t, id)
		time.Sleep(3 * s.idle)
		watch.end(t)
		disconnect()
		s.awaitState(t, s.idle+late, id, "PAUSED")
	})
	t.Run("signs of life", func(t *testing.T) {
		t.Parallel()
		id := s.create(t)
		s.connectCommand(t, id, "sleep 60", http.Header{"Keepalive-Ping-Interval": {"1"}})
		s.awaitState(t, s.idle+late, id, "PAUSED")
	})
	t.Run("disconnected", func(t *testing.T) {
		t.Parallel()
		id := s.create(t)
		disconnect := s.connectCommand(t, id, "while :; do echo .; sleep 0.1; done", nil)
		watch := s.watchAwake(t, id)
		time.Sleep(2 * s.idle)
		watch.end(t)
		disconnect()
		s.awaitState(t, s.idle+late, id, "PAUSED")
	})
}

// connectCommand starts a command, with what else the header says, and returns once its first event has
// come.
func (s *sandman) connectCommand(t *testing.T, id, command string, header http.Header) (disconnect func()) {
	t.Helper()
	message, err := json.Marshal(map[string]any{"process": map[string]any{"cmd": "/bin/sh", "args": []string{"-c", command}}, "stdin": false})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := newRequest(t, http.MethodPost, s.data+"/process.Process/Start", bytes.NewReader(envelope(message))).WithContext(ctx)
	r.Header.Set("E2b-Sandbox-Id", id)
	r.Header.Set("E2b-Sandbox-Port", "49983")
	r.Header.Set("Content-Type", "application/connect+json")
	r.Header.Set("Connect-Protocol-Version", "1")
	maps.Copy(r.Header, header)
	res, err := s.http.Do(r)
	if err != nil {
		t.Fatalf("starting a command: %v", err)
	}
	if _, err := res.Body.Read(make([]byte, 1)); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("starting a command: %s, %v", res.Status, err)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = new(bytes.Buffer).ReadFrom(res.Body) // ends with the context
	}()
	disconnect = func() {
		cancel()
		<-drained
		_ = res.Body.Close()
	}
	t.Cleanup(disconnect)
	return disconnect
}

// Where no message counts, whoever types is paused, as the page says.
func TestDocs_countNone(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second, caddyfile: with("count none")})
	id, _ := s.startAppIn(t)
	c := s.dial(t, id)
	requireEcho(t, c, "typed")
	typing, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { // until an answer doesn't come any more
		defer close(stopped)
		for typing.Err() == nil {
			if err := c.Write(typing, websocket.MessageText, []byte("typed")); err != nil {
				return
			}
			if _, _, err := c.Read(typing); err != nil {
				return
			}
		}
	}()
	s.awaitState(t, s.idle+late, id, "PAUSED")
	stop()
	<-stopped
}
