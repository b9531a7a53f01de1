package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Config is what an editor goes by. All fields are required but SandboxID.
type Config struct {
	IP   string // the sandbox's own address, the only one that is listened on
	Port int
	Home string // the folder that is shown and edited
	// SandboxID guards against pages of other names that resolve to IP: only
	// hosts that name this sandbox are answered. "" answers any.
	SandboxID string
}

// FromEnvironment gives the Config of an editor inside a sandbox.
func FromEnvironment(port int) (Config, error) {
	c := Config{IP: os.Getenv("SANDBOX_IP"), Port: port, Home: os.Getenv("HOME"), SandboxID: os.Getenv("E2B_SANDBOX_ID")}
	if net.ParseIP(c.IP) == nil || c.Home == "" {
		return Config{}, errors.New("SANDBOX_IP or HOME is missing: this command runs inside a sandbox")
	}
	return c, nil
}

// Run serves the editor until ctx ends, and then returns nil. One line is
// written to out when it listens.
func Run(ctx context.Context, c Config, out io.Writer) error {
	e, err := newEditor(c)
	if err != nil {
		return err
	}
	defer e.close()
	ln, err := net.Listen("tcp", net.JoinHostPort(c.IP, strconv.Itoa(c.Port)))
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	// No timeouts but this one: a pause would be counted in them.
	srv := &http.Server{
		Handler: e.handler(), ReadHeaderTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	go e.life.watch(ctx)
	fmt.Fprintf(out, "%s http://%s\n", Listening, ln.Addr())
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// Listening begins the line that Run writes.
const Listening = "editor listening on"

// editor is one running editor.
type editor struct {
	cfg   Config
	files *files
	life  *life
	shell *shell
}

func newEditor(c Config) (*editor, error) {
	root, err := os.OpenRoot(c.Home)
	if err != nil {
		return nil, fmt.Errorf("opening the home folder: %w", err)
	}
	f := &files{root: root}
	if err := f.furnish(); err != nil {
		log.Printf("the examples could not be written: %v", err) // an empty home is no reason to fail
	}
	return &editor{cfg: c, files: f, life: newLife(root), shell: newShell(c.Home)}, nil
}

func (e *editor) close() {
	e.shell.close()
	_ = e.files.root.Close()
}

func (e *editor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /", newAssets())
	mux.HandleFunc("GET /api/state", e.getState)
	mux.HandleFunc("POST /api/count", e.postCount)
	mux.HandleFunc("GET /api/terminal", e.attach)
	e.files.register(mux)
	// neither pages of other sandboxes nor of the web may change anything
	return e.ownHost(secured(http.NewCrossOriginProtection().Handler(mux)))
}

// ownHost answers only hosts that name this sandbox, or nothing but a machine.
// A page of another site could make its own name resolve to our address, and
// would then be of the same origin as we are.
func (e *editor) ownHost(next http.Handler) http.Handler {
	own := strconv.Itoa(e.cfg.Port) + "-" + e.cfg.SandboxID
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		label, _, _ := strings.Cut(host, ".")
		named := strings.EqualFold(label, own) || strings.EqualFold(host, "localhost") || net.ParseIP(strings.Trim(host, "[]")) != nil
		if e.cfg.SandboxID != "" && !named {
			fail(w, http.StatusMisdirectedRequest, "this is the editor of another address")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// secured keeps the page from being framed, and from loading anything that is
// not its own. The terminal writes style elements.
func secured(next http.Handler) http.Handler {
	const policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
		"object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

func (e *editor) getState(w http.ResponseWriter, _ *http.Request) {
	answer(w, e.life.state())
}

func (e *editor) postCount(w http.ResponseWriter, _ *http.Request) {
	if err := e.life.count(); err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	answer(w, e.life.state())
}

func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(b, '\n'))
}

// fail answers with an error that the page shows as it is.
func fail(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message})
}
