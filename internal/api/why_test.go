package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/session"
)

func TestStreams_areListedByTheirProxies(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	if a := c.call(t, alice, "GET", sandboxes+"/ia/streams", ""); strings.TrimSpace(a.body) != `{"open":0,"streams":[]}` {
		t.Errorf("without any: %s", a)
	}
	m.traffic = []api.NodeTraffic{
		{Node: "n1", Traffic: session.Traffic{Streams: []session.Stream{
			{Kind: "websocket", Path: "/ws", Preset: "vscode", State: session.StreamActive, Since: day, LastCounted: day.Add(time.Minute)},
			{Kind: "upgrade", State: session.StreamDormant, Since: day},
		}}},
		{Node: "n2", Traffic: session.Traffic{More: 7, Streams: []session.Stream{{Kind: "websocket", State: session.StreamParked, Since: day}}}},
	}
	const want = `{"open":10,"streams":[` +
		`{"node":"n1","kind":"websocket","path":"/ws","preset":"vscode","state":"active","since":"2026-11-24T12:00:00Z","lastCounted":"2026-11-24T12:01:00Z"},` +
		`{"node":"n1","kind":"upgrade","state":"dormant","since":"2026-11-24T12:00:00Z"},` +
		`{"node":"n2","kind":"websocket","state":"parked","since":"2026-11-24T12:00:00Z"}]}`
	if a := c.call(t, alice, "GET", sandboxes+"/ia/streams", ""); strings.TrimSpace(a.body) != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
}

func TestWhy_showsAllThatCanBeKnown(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	at := day
	line := session.Transition{At: day, From: session.Pausing, To: session.Paused, Reason: "idle for 10m0s", Node: "n1", Op: "op1"}
	m.why = api.Why{
		Words: []string{"It runs.", "It is kept awake."}, State: session.Running, Since: day, Reason: "request: GET /", PauseAt: &at,
		KeptAwakeBy: []api.Keeper{{Kind: api.KeptByHold, Words: "hold", Count: 1, What: "build", Reason: "CI", By: "token ops", Until: &at}},
		Settings:    []api.Setting{{Name: "wakePolicy", Source: api.SetBySite, Words: "w"}},
		LastPause:   &line, LastWake: &line,
		LastError: &session.OpError{At: day, Op: session.OpPause, Message: "no", RetryAt: day, Failures: 2},
		Streams:   api.StreamCounts{Active: 1, Dormant: 2, Parked: 3, Unnamed: 4}, Parked: 5, ReconnectWakes: 6,
		Refused: []api.Refused{{
			Node: "n1", Refusal: session.Refusal{At: day, Asker: "bot", What: "GET /", Reason: "bot", Count: 3}, Words: "w", Change: "c",
		}},
		Repeats: []api.Repeat{{
			Node: "n1", Repeat: session.Repeat{At: day, Kind: "message", Path: "/ws", What: "ping", Every: session.Duration(time.Second), Count: 20, Rule: "r"}, Words: "w",
		}},
	}
	a := newClient(t, m, zap.NewNop()).call(t, viewer, "GET", sandboxes+"/ia/why", "") // held against the file
	for _, part := range []string{
		`"sandboxID":"ia"`, `"words":["It runs.","It is kept awake."]`, `"until":"2026-11-24T12:00:00Z"`, `"source":"site"`,
		`"lastPause":{"at":`, `"unnamed":4`, `"reconnectWakes":6`, `"change":"c"`, `"every":"1s"`, `"rule":"r"`, `"failures":2`,
	} {
		if !strings.Contains(a.body, part) {
			t.Errorf("%s lacks %s", a, part)
		}
	}
}

func TestWhy_isForThoseWhoMaySeeTheSandbox(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	for _, of := range []string{"/streams", "/why"} {
		for secret, want := range map[string]int{alice: http.StatusOK, aliceSee: http.StatusOK, viewer: http.StatusOK, bob: http.StatusNotFound} {
			if a := c.call(t, secret, "GET", sandboxes+"/ia"+of, ""); a.status != want {
				t.Errorf("%s by %s: %s, want %d", of, secret, a, want)
			}
		}
		if a := c.call(t, admin, "GET", sandboxes+"/inone"+of, ""); a.status != http.StatusNotFound {
			t.Errorf("%s of none: %s", of, a)
		}
	}
}
