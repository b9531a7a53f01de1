package cli

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// clean makes text from elsewhere safe to show: a terminal obeys control
// characters, and some others make text read as what it is not.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || unicode.IsPrint(r) && r != utf8.RuneError {
			return r
		}
		return '�'
	}, s)
}

// cut shortens text to so many characters.
func cut(s string, most int) string {
	if most <= 0 || utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

// wrap gives text as lines that begin with indent and have at most width
// characters, where words allow it. Width 0: it stays one line.
func wrap(s string, width int, indent string) string {
	if width <= 0 {
		return indent + s
	}
	var b strings.Builder
	column := 0
	for w := range strings.FieldsSeq(s) {
		n := utf8.RuneCountInString(w)
		switch {
		case column == 0:
			b.WriteString(indent)
			column = len(indent)
		case column+1+n > width:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(w)
		column += n
	}
	return b.String()
}

// span is a duration as people say it, in its two largest units.
func span(d time.Duration) string {
	d = d.Abs()
	switch s := int(d.Round(time.Second).Seconds()); {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return units(s, 60, "m", "s")
	case s < 24*3600:
		return units(s/60, 60, "h", "m")
	default:
		return units(s/3600, 24, "d", "h")
	}
}

func units(n, per int, large, small string) string {
	if n%per == 0 {
		return fmt.Sprintf("%d%s", n/per, large)
	}
	return fmt.Sprintf("%d%s %d%s", n/per, large, n%per, small)
}

func millis(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

// ago is a time that has been.
func ago(t, now time.Time) string {
	if now.Sub(t) < time.Second {
		return "just now"
	}
	return span(now.Sub(t)) + " ago"
}

// until is a time to come.
func until(t, now time.Time) string {
	if t.Sub(now) < time.Second {
		return "now"
	}
	return "in " + span(t.Sub(now))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// bar draws a share of one, in so many characters.
func bar(share float64, width int) string {
	full := 0
	if !math.IsNaN(share) {
		full = int(math.Round(min(max(share, 0), 1) * float64(width)))
	}
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

func percent(share float64) string {
	if math.IsNaN(share) {
		return "–"
	}
	return fmt.Sprintf("%.0f %%", share*100)
}

// length is a duration of the command line, as the API reads them: with days,
// or as a bare number of seconds.
type length time.Duration

func (l *length) Type() string { return "duration" }

// String gives nothing for nothing, which help then does not show as a default.
func (l *length) String() string {
	if *l == 0 {
		return ""
	}
	return time.Duration(*l).String()
}

func (l *length) Set(s string) error {
	if seconds, err := strconv.ParseUint(s, 10, 31); err == nil {
		*l = length(seconds) * length(time.Second)
		return nil
	}
	rest, total := s, time.Duration(0)
	if days, tail, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 15)
		if err != nil {
			return errLength
		}
		total, rest = time.Duration(n)*24*time.Hour, tail
	}
	if rest != "" || total == 0 {
		d, err := time.ParseDuration(rest)
		if err != nil {
			return errLength
		}
		total += d
	}
	*l = length(total)
	return nil
}

var errLength = errors.New("write it as 90s, 10m or 1d12h")
