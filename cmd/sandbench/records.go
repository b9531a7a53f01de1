package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
)

// recordsCommand makes this program a host of sandboxes without processes: the
// E2B API over HTTP with a record for each sandbox, and a data plane that
// answers in the sandboxes' stead while they run. It is for measurements with
// more sandboxes than this machine has memory for; pausing and resuming cost it
// nothing, and keep nothing. With SANDBOXD_FAULTS=cut_connections it cuts the
// WebSockets of a sandbox that is paused, as cmd/sandboxd does.
const recordsCommand = "records"

// timesPath is where the host tells what it saw, in Unix time in ns: of each
// sandbox the end of its last answer, and the coming of its last pause call.
const timesPath = "/sandbench/times"

// hostTimes is one sandbox in that answer.
type hostTimes struct {
	Served   int64 `json:"served"`
	Paused   int64 `json:"paused"`
	Connects int   `json:"connects"` // that found it paused
}

type recordsHost struct {
	cuts bool

	mu  sync.Mutex // guards the following fields
	all map[string]*sandboxRecord
}

type sandboxRecord struct {
	e2b.ListedSandbox
	hostTimes
	sockets []io.Closer // to be cut at the next pause
}

func runRecords(listen string) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	faults, err := sandboxd.ParseFaults(os.Getenv("SANDBOXD_FAULTS"))
	if err != nil {
		return err
	}
	h := &recordsHost{cuts: faults.CutConnections, all: make(map[string]*sandboxRecord)}
	server := http.Server{Handler: h.handler(), ReadHeaderTimeout: time.Minute}
	return server.Serve(ln)
}

func (h *recordsHost) handler() http.Handler {
	api := http.NewServeMux()
	api.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	api.HandleFunc("GET "+timesPath, h.times)
	api.HandleFunc("POST /sandboxes", h.create)
	api.HandleFunc("GET /v2/sandboxes", h.list)
	api.HandleFunc("GET /sandboxes/{id}", h.with(func(w http.ResponseWriter, s *sandboxRecord) {
		answerJSON(w, http.StatusOK, e2b.SandboxDetail{ListedSandbox: s.ListedSandbox})
	}))
	api.HandleFunc("DELETE /sandboxes/{id}", h.with(func(w http.ResponseWriter, s *sandboxRecord) {
		delete(h.all, s.SandboxID)
		w.WriteHeader(http.StatusNoContent)
	}))
	api.HandleFunc("POST /sandboxes/{id}/pause", h.with(pauseRecord))
	api.HandleFunc("POST /sandboxes/{id}/connect", h.with(connectRecord))
	api.HandleFunc("POST /sandboxes/{id}/timeout", h.with(func(w http.ResponseWriter, s *sandboxRecord) {
		s.EndAt = time.Now().Add(24 * time.Hour)
		w.WriteHeader(http.StatusNoContent)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target, err := e2b.ParseTarget(r.Host, r.Header)
		if errors.Is(err, e2b.ErrNoTarget) {
			api.ServeHTTP(w, r)
			return
		}
		h.serve(w, r, target)
	})
}

// with looks the sandbox of the path up, and holds the lock meanwhile.
func (h *recordsHost) with(do func(http.ResponseWriter, *sandboxRecord)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		s := h.all[r.PathValue("id")]
		if s == nil {
			e2b.WriteError(w, http.StatusNotFound, "no such sandbox")
			return
		}
		do(w, s)
	}
}

func (h *recordsHost) create(w http.ResponseWriter, r *http.Request) {
	var n e2b.NewSandbox
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		e2b.WriteError(w, http.StatusBadRequest, err.Error())
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	s := &sandboxRecord{ListedSandbox: e2b.ListedSandbox{
		TemplateID: n.TemplateID, SandboxID: fmt.Sprintf("i%020d", len(h.all)), StartedAt: now, EndAt: now.Add(24 * time.Hour),
		State: e2b.StateRunning, EnvdVersion: "0.2.0", Metadata: n.Metadata,
	}}
	h.all[s.SandboxID] = s
	answerJSON(w, http.StatusCreated, s.wire())
}

func (s *sandboxRecord) wire() e2b.Sandbox {
	return e2b.Sandbox{TemplateID: s.TemplateID, SandboxID: s.SandboxID, ClientID: "records", EnvdVersion: s.EnvdVersion}
}

func (h *recordsHost) list(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := []e2b.ListedSandbox{}
	for id, s := range h.all {
		if id > r.URL.Query().Get("nextToken") {
			all = append(all, s.ListedSandbox)
		}
	}
	slices.SortFunc(all, func(a, b e2b.ListedSandbox) int { return strings.Compare(a.SandboxID, b.SandboxID) })
	const page = 100 // E2B's own
	if len(all) > page {
		all = all[:page]
		w.Header().Set("X-Next-Token", all[page-1].SandboxID)
	}
	answerJSON(w, http.StatusOK, all)
}

func pauseRecord(w http.ResponseWriter, s *sandboxRecord) {
	if s.State == e2b.StatePaused {
		e2b.WriteError(w, http.StatusConflict, "it is paused already")
		return
	}
	now := time.Now()
	s.State, s.EndAt, s.Paused = e2b.StatePaused, now, now.UnixNano()
	for _, c := range s.sockets {
		_ = c.Close()
	}
	s.sockets = nil
	w.WriteHeader(http.StatusNoContent)
}

func connectRecord(w http.ResponseWriter, s *sandboxRecord) {
	status := http.StatusOK
	if s.State == e2b.StatePaused {
		status = http.StatusCreated
		s.State, s.StartedAt = e2b.StateRunning, time.Now()
		s.Connects++
	}
	s.EndAt = time.Now().Add(24 * time.Hour)
	answerJSON(w, status, s.wire())
}

func (h *recordsHost) times(w http.ResponseWriter, _ *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	times := make(map[string]hostTimes, len(h.all))
	for id, s := range h.all {
		times[id] = s.hostTimes
	}
	answerJSON(w, http.StatusOK, times)
}

// serve is the data plane: one JSON object, or a WebSocket that echoes.
func (h *recordsHost) serve(w http.ResponseWriter, r *http.Request, t e2b.Target) {
	h.mu.Lock()
	s := h.all[t.SandboxID]
	runs := s != nil && s.State == e2b.StateRunning
	h.mu.Unlock()
	switch {
	case !runs:
		e2b.WriteSandboxNotFound(w, r, t.SandboxID)
		return
	case r.Header.Get("Upgrade") != "":
		if conn, err := acceptWebSocket(w, r, ""); err == nil {
			h.toBeCut(s, conn)
			echo(conn)
		}
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}\n")
	_ = http.NewResponseController(w).Flush()
	h.mu.Lock()
	s.Served = time.Now().UnixNano()
	h.mu.Unlock()
}

// toBeCut notes the WebSocket of a sandbox, where pauses cut them.
func (h *recordsHost) toBeCut(s *sandboxRecord, conn io.Closer) {
	if !h.cuts {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.State != e2b.StateRunning {
		_ = conn.Close()
		return
	}
	s.sockets = append(s.sockets, conn)
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
