package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", 400 * time.Millisecond: "0s", 59400 * time.Millisecond: "59s", 59500 * time.Millisecond: "1m", 61 * time.Second: "1m 1s",
		-90 * time.Second: "1m 30s", time.Hour: "1h", 3*time.Hour + 5*time.Minute + 59*time.Second: "3h 5m", 49 * time.Hour: "2d 1h", 48 * time.Hour: "2d",
	} {
		if got := span(d); got != want {
			t.Errorf("%s is %s, wanted %s", d, got, want)
		}
	}
}

func TestWrap_breaksBetweenWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text   string
		width  int
		indent string
		want   string
	}{
		{"one two three", 0, "  ", "  one two three"},
		{"one two three", 9, "", "one two\nthree"},
		{"one two three", 9, "  ", "  one two\n  three"},
		{"a-word-that-is-too-long x", 5, "", "a-word-that-is-too-long\nx"},
		{"ö ü ä", 3, "", "ö ü\nä"},
		{"", 5, "  ", ""},
	} {
		if got := wrap(c.text, c.width, c.indent); got != c.want {
			t.Errorf("%q at %d is %q, wanted %q", c.text, c.width, got, c.want)
		}
	}
}

func TestClean_leavesNothingThatATerminalObeys(t *testing.T) {
	t.Parallel()
	for r := range rune(0x20000) {
		if got := clean("a" + string(r) + "b"); strings.ContainsFunc(got, func(r rune) bool {
			return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x202e || r == 0x200b || r == 0x2028
		}) {
			t.Fatalf("%U is left in %q", r, got)
		}
	}
	if got := clean("\xff€ ü 好"); got != "�€ ü 好" {
		t.Errorf("it became %q", got)
	}
}

func TestBar(t *testing.T) {
	t.Parallel()
	for share, want := range map[float64]string{0: "░░░░", 0.5: "██░░", 1: "████", 7: "████", -1: "░░░░", math.NaN(): "░░░░"} {
		if got := bar(share, 4); got != want {
			t.Errorf("%v is %s", share, got)
		}
	}
}

func TestTable_alignsWhatIsPainted(t *testing.T) {
	t.Parallel()
	tab := table{head: []string{"A", "B"}, right: []bool{false, true}, most: 6}
	tab.add(cell{"grün", green}, text("1"))
	tab.add(text("much longer"), text("22"))
	want := "\x1b[2mA\x1b[0m        \x1b[2mB\x1b[0m\n\x1b[32mgrün\x1b[0m     1\nmuch …  22\n"
	if got := string(tab.render(true)); got != want {
		t.Errorf("got\n%q, wanted\n%q", got, want)
	}
}

func TestProgress_comesLateAndLeavesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen strings.Builder
		r := &run{err: &seen, errTerminal: true}
		stop := r.working("Pausing ia")
		time.Sleep(progressAfter - time.Millisecond)
		stop()
		if seen.String() != "" {
			t.Errorf("what is quick shows %q", seen.String())
		}
		stop = r.working("Pausing ia")
		time.Sleep(2*time.Second + progressEvery/2)
		stop()
		if s := seen.String(); !strings.Contains(s, "⠋ Pausing ia… 0s") || !strings.Contains(s, " Pausing ia… 2s") || !strings.HasSuffix(s, eraseLine) {
			t.Errorf("it shows %q", s)
		}
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A connection that has died without a word is given up, and the stream taken up
// where it was.
func TestFollower_givesUpASilentStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began, tries := time.Now(), []string{}
		c := &client{base: "http://sandman.test", http: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			tries = append(tries, fmt.Sprintf("%s at %s", r.Header.Get("Last-Event-ID"), time.Since(began)))
			if len(tries) == 2 {
				return nil, errors.New("no route to host")
			}
			if len(tries) == 3 {
				cancel()
			}
			in, out := io.Pipe()
			go func() {
				_, _ = io.WriteString(out, "id: 7\n\n")
				time.Sleep(15 * time.Second)
				_, _ = io.WriteString(out, ":\n\n")
				<-r.Context().Done()
				_ = out.CloseWithError(r.Context().Err())
			}()
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: in}, nil
		})}}
		var lost []error
		f := &follower{client: c, opened: func(bool) error { return nil }, lost: func(err error) { lost = append(lost, err) }}
		if err := f.follow(ctx); err != nil {
			t.Errorf("it ended with %v", err)
		}
		if want := []string{" at 0s", "7 at 1m1s", "7 at 1m3s"}; !slices.Equal(tries, want) || len(lost) != 1 || lost[0].Error() != "nothing has come for 45s" {
			t.Errorf("tries %q, wanted %q; lost by %v", tries, want, lost)
		}
	})
}

func TestRead_isThatOfServerSentEvents(t *testing.T) {
	t.Parallel()
	var got []event
	f := &follower{handle: func(e event) error { got = append(got, e); return nil }}
	_ = f.read(strings.NewReader(":hello\r\nevent: a\r\ndata:one\r\ndata:  two\r\nid: 1\r\n\r\nretry: x\nretry: 99999\nnot: known\nevent\ndata: three\n\nid: 2\n\nid: 3\ndata: cut off\n"))
	if want := []event{{"a", "one\n two"}, {"", "three"}}; !slices.Equal(got, want) || f.last != "2" || f.retry != retryMost {
		t.Errorf("read %q up to %q, to wait %s", got, f.last, f.retry)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("event: sandbox\nid: 1\ndata: {}\n\n")
	f.Fuzz(func(t *testing.T, in string) {
		fo := &follower{handle: func(e event) error {
			if e.data == "" {
				t.Error("an event without data")
			}
			return nil
		}}
		if err := fo.read(strings.NewReader(in)); err == nil {
			t.Error("a stream's end is no error")
		}
		if fo.retry < 0 || fo.retry > retryMost {
			t.Errorf("it would wait %s", fo.retry)
		}
	})
}

func TestTerminal_isNoFile(t *testing.T) {
	t.Parallel()
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if yes, _ := terminal(file); yes {
		t.Error("a file is taken for a terminal")
	}
}
