package api

import (
	"fmt"
	"net/http"
	"time"
)

const momentDoc = "a date such as 2026-11-24, in UTC, or a time such as 2026-11-24T12:00:00Z"

// span is what from and to of a query mean: from then, until before then. Zero
// times are no bounds.
type span struct {
	from, until time.Time
}

// spanOf reads from and to. A date stands for its whole day.
func spanOf(from, to string) (s span, err error) {
	if s.from, err = moment("from", from, 0); err != nil {
		return s, err
	}
	if s.until, err = moment("to", to, 24*time.Hour); err != nil {
		return s, err
	}
	if !s.from.IsZero() && !s.until.IsZero() && !s.from.Before(s.until) {
		return s, badQuery("to", "it is before from")
	}
	return s, nil
}

// moment reads a date, to which it adds day, or a time.
func moment(parameter, s string, day time.Duration) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t.Add(day), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, badQuery(parameter, "want "+momentDoc)
	}
	return t.UTC(), nil
}

func badQuery(parameter, message string) error {
	p := newProblem(http.StatusUnprocessableEntity, "invalid", fmt.Sprintf("query.%s: %s (see %s/openapi.json)", parameter, message, prefix))
	p.Errors = []FieldError{{Location: "query." + parameter, Message: message}}
	return p
}
