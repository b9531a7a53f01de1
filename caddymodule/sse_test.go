package caddymodule

import "testing"

func TestIsEventStream(t *testing.T) {
	t.Parallel()
	for contentType, want := range map[string]bool{
		"text/event-stream":                 true,
		"text/event-stream; charset=utf-8":  true,
		"Text/Event-Stream ;charset=\"utf-": true,
		"text/event-stream;":                true,
		"text/event-streams":                false,
		"text/plain; a=text/event-stream":   false,
		"":                                  false,
	} {
		if got := isEventStream(contentType); got != want {
			t.Errorf("%q: %t, want %t", contentType, got, want)
		}
	}
}
