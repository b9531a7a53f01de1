package e2b

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxErrorText bounds what an error repeats of somebody else's answer.
const maxErrorText = 256

// Error is an answer other than 2xx of the E2B API, or of whatever answered in
// its place.
type Error struct {
	// Status is the HTTP status.
	Status int
	// Code is the `code` of the JSON body. It is 0 where the body was no error
	// of the E2B API: a gateway's page, a cut answer.
	Code int
	// Message is the body's message, or the beginning of a body that had none.
	Message string
	// ErrorCode is the optional slug, such as "sandbox_capacity_unavailable".
	ErrorCode string
	// RetryAfter is how long the answer asks to wait, 0 where it doesn't say.
	RetryAfter time.Duration
}

// Error says what the API said, or that it was not the API that answered.
func (e *Error) Error() string {
	if e.Code == 0 {
		return fmt.Sprintf("HTTP status %d without an E2B error body: %q", e.Status, e.Message)
	}
	return fmt.Sprintf("E2B API error %d: %s", e.Code, e.Message)
}

// IsNotFound reports whether the API said that it does not know the sandbox. The
// body's code decides; a bare HTTP status 404 is not a not-found.
func IsNotFound(err error) bool { return hasCode(err, http.StatusNotFound) }

// IsConflict reports whether the API said that the sandbox's state does not
// allow the call, as in "already paused".
func IsConflict(err error) bool { return hasCode(err, http.StatusConflict) }

func hasCode(err error, code int) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// IsTemporary reports whether the answer itself asks to come back later: 429,
// 503 or 504. Here the HTTP status is enough, because it may well be a gateway
// that is busy. [Error.RetryAfter] says when.
func IsTemporary(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

type errorBody struct {
	Code      int    `json:"code"`
	Message   string `json:"message"`
	ErrorCode string `json:"error_code,omitempty"`
}

// WriteError answers with the error body of the E2B API. The code in the body
// is the status, as the SDKs expect.
func WriteError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, errorBody{Code: status, Message: message})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "rendering the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left is not our error
}

// newError reads an answer that is not 2xx. A body that can't be read as the
// API's own leaves Code 0, whatever the status says.
func newError(status int, h http.Header, body []byte, now time.Time) *Error {
	e := &Error{Status: status, RetryAfter: retryAfter(h.Get("Retry-After"), now)}
	var b errorBody
	if err := json.Unmarshal(body, &b); err == nil && b.Code != 0 {
		e.Code, e.Message, e.ErrorCode = b.Code, cut(b.Message), cut(b.ErrorCode)
		return e
	}
	e.Message = cut(string(body))
	return e
}

// retryAfter reads both forms of the header; what is neither, or past, is 0.
func retryAfter(v string, now time.Time) time.Duration {
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// cut shortens a text of unknown origin to what may be logged and shown.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "�")
	if len(s) <= maxErrorText {
		return s
	}
	end := maxErrorText
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}
