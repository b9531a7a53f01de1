package caddymodule

import (
	"net/http"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/noise"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/stream"
)

func TestInflatable_asksTheClientForNoContext(t *testing.T) {
	t.Parallel()
	const browser = "permessage-deflate; client_max_window_bits"
	tests := []struct {
		name            string
		offered, chosen []string
		want            string // what the client is answered
		inflatable      bool
	}{
		{"with parameters", []string{browser}, []string{"permessage-deflate; server_max_window_bits=12"}, "permessage-deflate; server_max_window_bits=12; client_no_context_takeover", true},
		{"alone", []string{"foo, permessage-deflate"}, []string{"permessage-deflate"}, "permessage-deflate; client_no_context_takeover", true},
		{"in a second line", []string{"foo", browser}, []string{"permessage-deflate ;"}, "permessage-deflate; client_no_context_takeover", true},
		{"asked for by the app", []string{browser}, []string{"permessage-deflate;client_no_context_takeover"}, "permessage-deflate;client_no_context_takeover", true},
		{"beside another", []string{browser}, []string{"permessage-deflate, foo"}, "permessage-deflate, foo", false},
		{"in two lines", []string{browser}, []string{"permessage-deflate", "foo"}, "permessage-deflate", false},
		{"another", []string{browser}, []string{"x-webkit-deflate-frame"}, "x-webkit-deflate-frame", false},
		{"not offered", []string{"foo"}, []string{"permessage-deflate"}, "permessage-deflate", false},
		{"nothing offered", nil, []string{"permessage-deflate"}, "permessage-deflate", false},
		{"none", []string{browser}, nil, "", false},
		{"quoted", []string{browser}, []string{`permessage-deflate; x=";"`}, `permessage-deflate; x=";"`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			// reverse_proxy spells the request's as RFC 6455 does
			request, answer := http.Header{"Sec-WebSocket-Extensions": tt.offered}, http.Header{}
			for _, line := range tt.chosen {
				answer.Add("Sec-WebSocket-Extensions", line)
			}
			if got := inflatable(request, answer); got != tt.inflatable {
				t.Errorf("inflatable = %v", got)
			}
			if got := answer.Get("Sec-WebSocket-Extensions"); got != tt.want {
				t.Errorf("the client is answered %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNewCounting_knowsThreeWords(t *testing.T) {
	t.Parallel()
	for what, want := range map[string][2]bool{"": {true, false}, "client": {true, false}, "both": {true, true}, "none": {false, false}} {
		c, err := newCounting(noise.Config{}, what)
		if err != nil || [2]bool{c.client, c.server} != want {
			t.Errorf("count %q = %+v, %v", what, c, err)
		}
	}
	if _, err := newCounting(noise.Config{}, "server"); err == nil {
		t.Error("count server is accepted")
	}
	if _, err := newCounting(noise.Config{Presets: []string{"emacs"}}, ""); err == nil {
		t.Error("an unknown preset is accepted")
	}
}

func TestRepeated_isARuleToAdd(t *testing.T) {
	t.Parallel()
	last := time.Now()
	tests := []struct {
		rule       noise.Rule
		what, want string
	}{
		{noise.Rule{Path: "/ws", Opcode: "text", Payload: `{"type":"tick"}`}, `text {"type":"tick"}`, `path /ws, opcode text, payload "{\"type\":\"tick\"}"`},
		{noise.Rule{Path: "/ws", Opcode: "binary", Length: "0"}, "binary of length 0", "path /ws, opcode binary, length 0"},
	}
	for _, tt := range tests {
		got := repeated(noise.Repeat{Count: 20, Every: 5 * time.Second, Last: last, Rule: tt.rule})
		want := session.Repeat{At: last.UTC(), Kind: "message", Path: "/ws", What: tt.what, Every: session.Duration(5 * time.Second), Count: 20, Rule: tt.want}
		if got != want {
			t.Errorf("repeated = %+v, want %+v", got, want)
		}
	}
}

// The two rooms know nothing of each other: what is said by one must mean the
// same to the other.
func TestJudge_translates(t *testing.T) {
	t.Parallel()
	for v, want := range map[noise.Verdict]stream.Verdict{noise.Counts: stream.Counts, noise.Noise: stream.Noise, noise.Swallow: stream.Swallow} {
		if stream.Verdict(v) != want {
			t.Errorf("%s means %d", v, want)
		}
	}
}
