package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that people can read in JSON: it is written as
// "10m0s", and read from such a string (a day may be written "1d") or from a
// number of seconds.
type Duration time.Duration

// ParseDuration reads "90s", "1h30m", "1d12h" or a bare number of seconds.
func ParseDuration(s string) (Duration, error) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		return fromSeconds(seconds)
	}
	if s == "" {
		return 0, errors.New("parsing duration: it is empty")
	}
	rest, total := s, time.Duration(0)
	if head, tail, ok := strings.Cut(s, "d"); ok {
		days, err := strconv.ParseFloat(head, 64)
		if err != nil || math.Abs(days) > maxSeconds/secondsPerDay {
			return 0, fmt.Errorf("parsing duration %q: not a number of days", s)
		}
		total, rest = time.Duration(days*float64(24*time.Hour)), tail
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil {
			return 0, fmt.Errorf("parsing duration %q: write it as 90s, 10m or 1d12h", s)
		}
		total += d
	}
	return Duration(total), nil
}

const (
	secondsPerDay = 24 * 60 * 60
	maxSeconds    = 100 * 365 * secondsPerDay // a century: far from overflow
)

func fromSeconds(seconds float64) (Duration, error) {
	if math.IsNaN(seconds) || math.Abs(seconds) > maxSeconds {
		return 0, fmt.Errorf("duration of %v seconds is out of range", seconds)
	}
	return Duration(seconds * float64(time.Second)), nil
}

// String is the form of time.Duration.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the duration as a string such as "10m0s".
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads a string as ParseDuration does, or a number of seconds.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var seconds float64
	if json.Unmarshal(b, &seconds) == nil {
		v, err := fromSeconds(seconds)
		*d = v
		return err
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("parsing duration %s: it is neither a string nor a number of seconds", b)
	}
	v, err := ParseDuration(s)
	*d = v
	return err
}
