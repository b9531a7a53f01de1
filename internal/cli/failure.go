package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// The exit codes.
const (
	ExitOK          = 0
	ExitError       = 1   // whatever has no code of its own; of `status`: degraded
	ExitUsage       = 2   // the command line is wrong, or the API says so of a value in it
	ExitNotFound    = 3   // no such sandbox, or killed
	ExitRefused     = 4   // in use, changed meanwhile, or the token is missing, wrong or may not
	ExitUnreachable = 5   // Sandman, or what it needs, can't be reached now
	ExitInterrupted = 130 // Ctrl+C, as shells count it
)

// failure is an error that people read. Problem is the API's own answer, where
// there is one.
type failure struct {
	code    int
	text    string
	problem json.RawMessage
	err     error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.err }

func failf(code int, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &failure{code: code, text: err.Error(), err: errors.Unwrap(err)}
}

// exitCode gives the exit code of an error.
func exitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return ExitError
}

// problem is every error answer of the API.
type problem struct {
	Status   int      `json:"status"`
	Code     string   `json:"code"`
	Detail   string   `json:"detail"`
	InFlight []string `json:"inFlight,omitempty"`

	Parameter string `json:"-"` // that an older Sandman does not know
}

// asJSON is an error for programs: the API's own problem, or one of its shape.
func asJSON(err error) []byte {
	if f, ok := errors.AsType[*failure](err); ok && f.problem != nil {
		return f.problem
	}
	p := problem{Detail: err.Error(), Code: map[int]string{
		ExitUsage: "usage", ExitNotFound: "not-found", ExitRefused: "refused", ExitUnreachable: "unreachable", ExitInterrupted: "interrupted",
	}[exitCode(err)]}
	if p.Code == "" {
		p.Code = "error"
	}
	b, _ := json.Marshal(p) // strings and numbers only
	return b
}

// failureOf says what an error answer means for who typed the command.
func (c *client) failureOf(req request, res *http.Response, body []byte) error {
	var p problem
	if !isType(res, "application/problem+json") || json.Unmarshal(body, &p) != nil || p.Code == "" {
		return failf(ExitUnreachable, "what answers at %s is not Sandman's API (%s to %s %s). Say in %s where Sandman is", c.base, res.Status, req.method, req.path, urlVariable)
	}
	p.noteOlder()
	return &failure{code: codeOf(res.StatusCode, p.Code), text: c.wordsOf(req, p), problem: body}
}

// codeOlder stands for the codes of what a Sandman does not have.
const codeOlder = "no-such-route"

// noteOlder tells what an older Sandman does not have from what is wrong.
func (p *problem) noteOlder() {
	name, ok := strings.CutSuffix(p.Detail, ": unknown query parameter (see "+prefix+"/openapi.json)")
	switch {
	case p.Code == "invalid" && ok:
		p.Code, p.Parameter = codeOlder, strings.TrimPrefix(name, "query.")
	case p.Code == "method-not-allowed":
		p.Code = codeOlder
	}
}

func codeOf(status int, code string) int {
	switch {
	case code == codeOlder:
		return ExitError
	case status == http.StatusNotFound:
		return ExitNotFound
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusConflict, status == http.StatusPreconditionFailed:
		return ExitRefused
	case status == http.StatusBadRequest, status == http.StatusUnprocessableEntity:
		return ExitUsage
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return ExitUnreachable
	default:
		return ExitError
	}
}

// wordsOf are the API's own, but where they speak of HTTP.
func (c *client) wordsOf(req request, p problem) string {
	switch p.Code {
	case codeOlder:
		what := fmt.Sprintf("%s %s%s", req.method, prefix, req.path)
		if p.Parameter != "" {
			what += " with " + p.Parameter
		}
		return fmt.Sprintf("the Sandman at %s is older than this command: it has no %s. Update it", c.base, what)
	case "unauthorized":
		return fmt.Sprintf("the token from %s is none of those of the Sandman at %s. Is it another one's? Set %s to one of its tokens, or %s to its data folder", c.tokenFrom, c.base, tokenVariable, dataVariable)
	case "not-found":
		if req.sandbox != "" {
			return fmt.Sprintf("there is no sandbox %s, or this token may not see it. `sandbox list` shows those that there are", req.sandbox)
		}
	case "killed":
		return fmt.Sprintf("sandbox %s was killed, and is gone for good. Make a new one with `sandbox create`", req.sandbox)
	case "in-use":
		return fmt.Sprintf("sandbox %s is in use: %s. Try again later, or cut it off with --force", req.sandbox, strings.Join(p.InFlight, ", "))
	}
	detail, _, _ := strings.Cut(p.Detail, " (see /api/")
	return strings.TrimPrefix(strings.TrimPrefix(detail, "body."), "query.")
}
