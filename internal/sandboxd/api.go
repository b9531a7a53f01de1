package sandboxd

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
)

const (
	// maxRequest bounds a call's body, as at E2B.
	maxRequest = 16 << 20
	// callTimeout is how long a call waits for a transition; that goes on.
	callTimeout = 70 * time.Second
	// minRefresh is the least that a refresh extends a lifetime by.
	minRefresh = 15 * time.Second
	maxRefresh = 3600
)

// api is the control plane.
type api struct{ host *Host }

// Handler serves the E2B API and the data plane on one origin: a request that
// names a sandbox, by host or by headers, goes to the sandbox.
func (h *Host) Handler() http.Handler {
	control, data := (&api{h}).routes(), newDataPlane(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target, err := e2b.ParseTarget(r.Host, r.Header)
		switch {
		case err == nil:
			data.serve(w, r, target)
		case errors.Is(err, e2b.ErrNoTarget):
			control.ServeHTTP(w, r)
		default:
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
}

// routes are those of both generations of SDKs.
func (a *api) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sandboxes", a.create(generation1))
	mux.HandleFunc("POST /v2/sandboxes", a.create(generation2))
	mux.HandleFunc("GET /sandboxes", a.listRunning)
	mux.HandleFunc("GET /v2/sandboxes", a.list)
	mux.HandleFunc("GET /sandboxes/{id}", a.sandbox(a.get))
	mux.HandleFunc("DELETE /sandboxes/{id}", a.sandbox(a.kill))
	mux.HandleFunc("GET /sandboxes/{id}/metrics", a.sandbox(a.metrics))
	for _, v := range []struct {
		prefix string
		g      generation
		bodied bool
	}{{"", generation1, true}, {"/v2", generation2, false}} {
		mux.HandleFunc("POST "+v.prefix+"/sandboxes/{id}/connect", a.sandbox(a.connect(v.g, v.bodied)))
		mux.HandleFunc("POST "+v.prefix+"/sandboxes/{id}/resume", a.sandbox(a.resume))
		mux.HandleFunc("POST "+v.prefix+"/sandboxes/{id}/pause", a.sandbox(a.pause))
		mux.HandleFunc("POST "+v.prefix+"/sandboxes/{id}/timeout", a.sandbox(a.timeout))
		mux.HandleFunc("POST "+v.prefix+"/sandboxes/{id}/refreshes", a.sandbox(a.refresh))
	}
	open := http.NewServeMux()
	open.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "Health check successful")
	})
	open.Handle("/", a.authorise(mux))
	return open
}

func (a *api) authorise(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("X-API-Key")), []byte(a.host.cfg.APIKey)) != 1 {
			e2b.WriteError(w, http.StatusUnauthorized, "Invalid API key")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// sandbox finds the sandbox of the path, {id} or the old {id}-{client}.
func (a *api) sandbox(next func(http.ResponseWriter, *http.Request, *sandbox)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.PathValue("id"), "-")
		if len(parts) > 2 || !e2b.ValidID(parts[0]) || !e2b.ValidID(parts[len(parts)-1]) {
			e2b.WriteError(w, http.StatusBadRequest, "Invalid sandbox ID")
			return
		}
		s, err := a.host.find(parts[0])
		if err != nil {
			notFound(w, parts[0])
			return
		}
		next(w, r, s)
	}
}

func (a *api) kill(w http.ResponseWriter, r *http.Request, s *sandbox) {
	if err := s.kill(r.Context()); err != nil {
		fail(w, s.id, err, "Error killing sandbox")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *api) pause(w http.ResponseWriter, r *http.Request, s *sandbox) {
	var body struct {
		Memory *bool `json:"memory"`
	}
	if err := readOptionalJSON(r, &body); err != nil {
		invalid(w, err)
		return
	}
	err := s.pause(r.Context(), body.Memory == nil || *body.Memory)
	if errors.Is(err, errPaused) {
		e2b.WriteError(w, http.StatusConflict, fmt.Sprintf("Error pausing sandbox - sandbox '%s' is already paused", s.id))
		return
	}
	if err != nil {
		fail(w, s.id, err, "Error pausing sandbox")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// connect takes a timeout, which the first generation must send.
func (a *api) connect(g generation, bodied bool) func(http.ResponseWriter, *http.Request, *sandbox) {
	return func(w http.ResponseWriter, r *http.Request, s *sandbox) {
		var body struct {
			Timeout *int32 `json:"timeout"`
		}
		if err := readOptionalJSON(r, &body); err != nil {
			invalid(w, err)
			return
		}
		if body.Timeout == nil && bodied {
			invalid(w, errors.New("timeout is missing"))
			return
		}
		timeout := g.timeout
		if body.Timeout != nil {
			timeout = *body.Timeout
		}
		if !a.allowed(w, timeout) {
			return
		}
		resumed, err := s.connect(r.Context(), seconds(timeout))
		if err != nil {
			fail(w, s.id, err, "Error resuming sandbox")
			return
		}
		status := http.StatusOK
		if resumed {
			status = http.StatusCreated
		}
		writeJSON(w, status, s.wire())
	}
}

// allowed answers a timeout that can't be.
func (a *api) allowed(w http.ResponseWriter, timeout int32) bool {
	maxRun := a.host.currentFaults().MaxRun
	switch {
	case timeout < 0:
		invalid(w, errors.New("timeout must not be negative"))
		return false
	case maxRun > 0 && seconds(timeout) > maxRun:
		e2b.WriteError(w, http.StatusBadRequest, errTimeoutTooLong(maxRun).Error())
		return false
	}
	return true
}

func (a *api) resume(w http.ResponseWriter, r *http.Request, s *sandbox) {
	var body struct {
		Timeout   *int32 `json:"timeout"`
		AutoPause *bool  `json:"autoPause"`
	}
	if err := readOptionalJSON(r, &body); err != nil {
		invalid(w, err)
		return
	}
	timeout := generation1.timeout
	if body.Timeout != nil {
		timeout = *body.Timeout
	}
	if !a.allowed(w, timeout) {
		return
	}
	err := s.resume(r.Context(), seconds(timeout), body.AutoPause)
	if errors.Is(err, errRunning) {
		e2b.WriteError(w, http.StatusConflict, fmt.Sprintf("Sandbox %s is already running", s.id))
		return
	}
	if err != nil {
		fail(w, s.id, err, "Error resuming sandbox")
		return
	}
	writeJSON(w, http.StatusCreated, s.wire())
}

func (a *api) timeout(w http.ResponseWriter, r *http.Request, s *sandbox) {
	var body struct {
		Timeout *int32 `json:"timeout"`
	}
	err := readJSON(r, &body)
	if err == nil && (body.Timeout == nil || *body.Timeout < 0) {
		err = errors.New("timeout must be a number of seconds")
	}
	if err != nil {
		invalid(w, err)
		return
	}
	setTimeout(w, s, seconds(*body.Timeout), false)
}

func (a *api) refresh(w http.ResponseWriter, r *http.Request, s *sandbox) {
	var body struct {
		Duration *int32 `json:"duration"`
	}
	err := readOptionalJSON(r, &body)
	if err == nil && body.Duration != nil && (*body.Duration < 0 || *body.Duration > maxRefresh) {
		err = fmt.Errorf("duration must be from 0 to %d", maxRefresh)
	}
	if err != nil {
		invalid(w, err)
		return
	}
	d := minRefresh
	if body.Duration != nil {
		d = max(d, seconds(*body.Duration))
	}
	setTimeout(w, s, d, true)
}

func setTimeout(w http.ResponseWriter, s *sandbox, d time.Duration, onlyExtend bool) {
	if err := s.setTimeout(d, onlyExtend); err != nil {
		fail(w, s.id, err, "Error setting sandbox timeout")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

var errTimeoutTooShort = errors.New("Timeout must be greater than 0") //nolint:staticcheck // the API's words

func errTimeoutTooLong(maxRun time.Duration) error {
	//nolint:staticcheck // the API's words
	return fmt.Errorf("Timeout cannot be greater than %s hours", strconv.FormatFloat(maxRun.Hours(), 'f', -1, 64))
}

// fail is where an outcome becomes an answer.
func fail(w http.ResponseWriter, id string, err error, otherwise string) {
	switch {
	case errors.Is(err, ErrUnknown):
		notFound(w, id)
	case errors.Is(err, errKilling):
		e2b.WriteError(w, http.StatusConflict, fmt.Sprintf("Sandbox %q is being killed", id))
	case errors.Is(err, errPausing):
		e2b.WriteError(w, http.StatusConflict, fmt.Sprintf("Sandbox %q is being paused", id))
	case errors.Is(err, errWaited):
		e2b.WriteError(w, http.StatusInternalServerError, "Error waiting for sandbox state change")
	case errors.Is(err, errMaxRun):
		e2b.WriteError(w, http.StatusBadRequest, "Max instance length exceeded")
	case errors.Is(err, errCapacity):
		e2b.WriteError(w, http.StatusServiceUnavailable, "Failed to place sandbox: no capacity")
	case errors.Is(err, context.DeadlineExceeded):
		e2b.WriteError(w, http.StatusGatewayTimeout, otherwise+": it takes too long")
	default:
		e2b.WriteError(w, http.StatusInternalServerError, otherwise)
	}
}

func notFound(w http.ResponseWriter, id string) {
	e2b.WriteError(w, http.StatusNotFound, fmt.Sprintf("Sandbox %q doesn't exist or you don't have access to it", id))
}

func invalid(w http.ResponseWriter, err error) {
	e2b.WriteError(w, http.StatusBadRequest, "validation error: "+err.Error())
}

// readJSON reads a body that must be there.
func readJSON(r *http.Request, v any) error {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	return json.Unmarshal(b, v)
}

// readOptionalJSON reads a body if there is one. Only its end tells: SDKs send
// bodies in chunks, without a length.
func readOptionalJSON(r *http.Request, v any) error {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	if strings.TrimSpace(string(b)) == "" {
		return nil
	}
	return json.Unmarshal(b, v)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		e2b.WriteError(w, http.StatusInternalServerError, "rendering the answer")
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that left is not our error
}
