package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
)

const (
	problemType = "application/problem+json"
	// statusClientGone is nginx's: nobody reads the answer, only logs do.
	statusClientGone = 499
	// retryDefault is what a client is asked to wait where nobody knows better.
	retryDefault = 5 * time.Second
)

// Problem is every error answer of the API (RFC 9457). Programs decide by
// Code, which stays; people read Detail, which says what to do.
//
//nolint:errname // RFC 9457's word, and the schema's name in the OpenAPI file
type Problem struct {
	Title    string       `json:"title" doc:"The HTTP status in words."`
	Status   int          `json:"status" doc:"The HTTP status."`
	Code     string       `json:"code" doc:"What is wrong, for programs: not-found, killed, in-use, not-running, conflict, changed, invalid, unauthorized, expired, forbidden, unavailable, host-error…"`
	Detail   string       `json:"detail" doc:"What is wrong and what to do, for people."`
	Errors   []FieldError `json:"errors,omitempty" nullable:"false" doc:"What is wrong with which part of the request."`
	InFlight []string     `json:"inFlight,omitempty" nullable:"false" doc:"With in-use: what is in flight."`

	header http.Header
}

// FieldError is what is wrong with one part of a request.
type FieldError struct {
	Location string `json:"location,omitempty" doc:"Such as body.idleTimeout or query.limit."`
	Message  string `json:"message"`
}

func newProblem(status int, code, detail string) *Problem {
	title := http.StatusText(status)
	if status == statusClientGone {
		title = "Client Closed Request"
	}
	return &Problem{Title: title, Status: status, Code: code, Detail: detail}
}

// Error, GetStatus, GetHeaders and ContentType are what huma asks of an error.
func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders returns the headers that belong to the problem.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType is that of RFC 9457.
func (p *Problem) ContentType(string) string { return problemType }

func (p *Problem) with(name, value string) *Problem {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set(name, value)
	return p
}

// retryAfter rounds up to the header's seconds, at least one.
func (p *Problem) retryAfter(d time.Duration) *Problem {
	if d <= 0 {
		d = retryDefault
	}
	return p.with("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
}

// write answers a request that no operation has taken on.
func (p *Problem) write(w http.ResponseWriter) {
	body, _ := json.Marshal(p) // strings and numbers only
	maps.Copy(w.Header(), p.header)
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a client that left is not our error
}

// problemOf is the one place where a backend's error becomes a status.
func problemOf(err error) *Problem {
	var (
		problem     *Problem
		inUse       *InUseError
		unavailable *UnavailableError
		host        *e2b.Error
		limit       *LimitError
	)
	switch {
	case errors.As(err, &problem):
		return problem
	case errors.As(err, &limit):
		return limit.problem()
	case errors.Is(err, ErrNoPolicy):
		return newProblem(http.StatusNotFound, "no-policy", "There is no policy of this name. PUT one here, or leave it: then the defaults hold.")
	case errors.Is(err, ErrNotFound):
		return newProblem(http.StatusNotFound, "not-found", "No such sandbox. Check its ID, or register it with POST /api/v1/sandboxes.")
	case errors.Is(err, ErrKilled):
		return newProblem(http.StatusNotFound, "killed", "The sandbox is gone for good. Create a new one.")
	case errors.As(err, &inUse):
		p := newProblem(http.StatusConflict, "in-use", "The sandbox is in use: "+strings.Join(inUse.What, ", ")+". Try again later, or pause it all the same with ?force=true.")
		p.InFlight = inUse.What
		return p
	case errors.Is(err, ErrNotRunning):
		return newProblem(http.StatusConflict, "not-running", "The sandbox does not run, and this wakes none. Resume it first.")
	case errors.Is(err, ErrForeignProject):
		return newProblem(http.StatusForbidden, "forbidden", "The project has a policy. A token that is bound to an owner puts no sandbox into such a project unless its owner has one there, and takes none out. Ask an operator.")
	case errors.Is(err, ErrTooManyHolds):
		return newProblem(http.StatusConflict, "too-many-holds", "The sandbox has as many holds as it may have. End one first.")
	case errors.Is(err, ErrTooManyAnswers):
		return newProblem(http.StatusTooManyRequests, "too-many-keys", "Too many Idempotency-Keys of this token are known, each for 24 h. Wait until some of them end, or send the request without one.").retryAfter(time.Minute)
	case errors.Is(err, session.ErrConflict), errors.Is(err, session.ErrTransition):
		return newProblem(http.StatusConflict, "conflict", "The sandbox has changed meanwhile. Look at it again, and decide anew.")
	case errors.As(err, &unavailable):
		return newProblem(http.StatusServiceUnavailable, "unavailable", unavailable.Reason+". Try again later.").retryAfter(unavailable.RetryAfter)
	case errors.As(err, &host):
		return hostProblem(host)
	case errors.Is(err, context.Canceled):
		return newProblem(statusClientGone, "client-gone", "The client has left.")
	case errors.Is(err, context.DeadlineExceeded):
		return newProblem(http.StatusServiceUnavailable, "timeout", "It took too long. Look at the sandbox before you try again: it may be done yet.").retryAfter(0)
	default:
		return newProblem(http.StatusInternalServerError, "internal", "Something went wrong inside Sandman; its log says what.")
	}
}

// hostProblem passes on the host's word, and its status where it asks to come
// back later.
func hostProblem(e *e2b.Error) *Problem {
	detail := "The sandbox host says: " + e.Message
	switch {
	case e.Status == http.StatusTooManyRequests:
		return newProblem(e.Status, "host-limit", detail).retryAfter(e.RetryAfter)
	case e2b.IsTemporary(e):
		return newProblem(http.StatusServiceUnavailable, "host-unavailable", detail).retryAfter(e.RetryAfter)
	default:
		return newProblem(http.StatusBadGateway, "host-error", detail)
	}
}

// toProblem makes huma's own errors ours, on their way out.
func toProblem(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := newProblem(m.Status, requestCode(m.Status), "")
	lines := []string{}
	for _, e := range m.Errors {
		if e == nil {
			continue
		}
		// the value is left out: it is the client's own, and as long as it likes
		p.Errors = append(p.Errors, FieldError{Location: e.Location, Message: e.Message})
		lines = append(lines, strings.TrimPrefix(e.Location+": "+e.Message, ": "))
	}
	p.Detail = strings.Join(lines, "; ")
	switch {
	case m.Status == http.StatusUnsupportedMediaType:
		p.Detail = "Send the body as application/json."
	case p.Detail == "":
		p.Detail = m.Detail
	}
	p.Detail += fmt.Sprintf(" (see %s/openapi.json)", prefix)
	return p, nil
}

// requestCode names what is wrong with a request that no handler has seen.
func requestCode(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "bad-request"
	case http.StatusRequestTimeout:
		return "request-timeout"
	case http.StatusRequestEntityTooLarge:
		return "too-large"
	case http.StatusUnsupportedMediaType:
		return "unsupported-media-type"
	case http.StatusUnprocessableEntity:
		return "invalid"
	default:
		return "internal"
	}
}
