package envd

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"

	"connectrpc.com/connect"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/filesystem/filesystemconnect"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/process/processconnect"
)

const (
	headerToken = "X-Access-Token"
	// headerAwake carries Connect-Timeout-Ms past the RPC library, which would
	// count the time of a pause.
	headerAwake   = "X-Envd-Awake-Timeout-Ms"
	headerTimeout = "Connect-Timeout-Ms"
	// maxMessage bounds one RPC message; contents of files go another way.
	maxMessage = 64 << 20

	unauthorized = "unauthorized access, please provide a valid access token or method signing if supported"
)

// server is the daemon of one sandbox.
type server struct {
	cfg    Config
	ip     string
	reaper *reaper

	mu       sync.Mutex // guards the following fields
	commands map[int]*command
	watchers map[string]*watcher
}

func newServer(cfg Config, ip string) *server {
	return &server{
		cfg: cfg, ip: ip, reaper: newReaper(),
		commands: map[int]*command{}, watchers: map[string]*watcher{},
	}
}

// handler is E2B's data plane of one sandbox.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	limit := connect.WithReadMaxBytes(maxMessage)
	mux.Handle(processconnect.NewProcessHandler(&processService{s}, limit))
	mux.Handle(filesystemconnect.NewFilesystemHandler(&filesystemService{s}, limit))
	mux.HandleFunc("GET /health", health)
	mux.HandleFunc("GET /envs", s.getEnvs)
	mux.HandleFunc("GET /metrics", s.getMetrics)
	mux.HandleFunc("GET /files", s.getFile)
	mux.HandleFunc("POST /files", s.postFile)
	return s.ownOnly(allowOrigins(s.authorise(awakeTimeout(mux))))
}

// ownOnly refuses what is meant for another sandbox: whoever sent it has an old
// idea of whose address this is.
func (s *server) ownOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t, err := e2b.ParseTarget(r.Host, r.Header); err == nil && t.SandboxID != s.cfg.SandboxID {
			e2b.WriteSandboxNotFound(w, r, t.SandboxID)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// allowOrigins lets pages of any origin call, as E2B's daemon does: what counts
// is the token, there are no cookies.
func allowOrigins(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", "*")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS")
			h.Set("Access-Control-Allow-Headers", "*, Authorization")
			h.Set("Access-Control-Max-Age", "7200")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// authorise wants the access token where the sandbox has one. /health needs none,
// and /files takes a signature in its place, see signature.go.
func (s *server) authorise(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.cfg.AccessToken == "", r.URL.Path == "/health", s.hasToken(r),
			r.URL.Path == "/files" && s.isSigned(r):
			next.ServeHTTP(w, r)
		default:
			writeError(w, http.StatusUnauthorized, unauthorized)
		}
	})
}

func (s *server) hasToken(r *http.Request) bool {
	return subtle.ConstantTimeCompare([]byte(r.Header.Get(headerToken)), []byte(s.cfg.AccessToken)) == 1
}

// awakeTimeout hides a call's timeout from the RPC library.
func awakeTimeout(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del(headerAwake)
		if v := r.Header.Get(headerTimeout); v != "" {
			r.Header.Del(headerTimeout)
			r.Header.Set(headerAwake, v)
		}
		next.ServeHTTP(w, r)
	})
}

func health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

func (s *server) getEnvs(w http.ResponseWriter, _ *http.Request) {
	env := s.cfg.Env
	if env == nil {
		env = map[string]string{}
	}
	writeJSON(w, http.StatusOK, env)
}

// writeError answers as E2B's daemon does; see also [e2b.WriteError].
func writeError(w http.ResponseWriter, status int, message string) {
	e2b.WriteError(w, status, message)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "rendering the answer")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that left is not our error
}
