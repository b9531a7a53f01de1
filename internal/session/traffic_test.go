package session_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sandman-proxy/sandman/internal/session"
)

func TestStoredTraffic_countsWhatIsOpen(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]int{
		`{}`: 0,
		`{"streams":[{"kind":"websocket","state":"parked"},{}],"more":3}`: 5,
		`{"streams":[{}],"more":-4}`:                                      1, // nothing of ours
		`{"refused":[{"what":"GET /"}]}`:                                  0,
	} {
		got, err := session.StoredTraffic("n1", []byte(value))
		if err != nil || got.Open != want || got.Node != "n1" || got.Traffic().Open() != want {
			t.Errorf("%s: %+v, %v; want %d open", value, got, err, want)
		}
	}
	for _, value := range []string{``, `[`, `7`, `{"streams":{}}`, `{"more":"many"}`} {
		if got, err := session.StoredTraffic("n1", []byte(value)); err == nil {
			t.Errorf("%q was read as %+v", value, got)
		}
	}
}

func TestShorten_cutsNoCharacter(t *testing.T) {
	t.Parallel()
	for _, text := range []string{strings.Repeat("x", 500), strings.Repeat("ü", 300), strings.Repeat("語", 300), strings.Repeat("\x80", 300)} {
		got := session.Shorten(text)
		if len(got) > session.MaxText || len(got) < session.MaxText-10 && utf8.ValidString(text) || !utf8.ValidString(got) {
			t.Errorf("%.10q… is cut to %d bytes: %q", text, len(got), got)
		}
	}
	if fits := strings.Repeat("x", session.MaxText); session.Shorten(fits) != fits || session.Shorten("") != "" {
		t.Error("what fits was cut")
	}
}
