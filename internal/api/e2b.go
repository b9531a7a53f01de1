package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log"
	"math"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/e2b"
)

// e2bUser is who asked, in the reasons of what came in through the E2B API.
const e2bUser = "the E2B API"

// E2BConfig is what the E2B pass-through works with, for one host.
type E2BConfig struct {
	Backend E2BBackend
	// Base is the host's API, and may have a path.
	Base *url.URL
	// Forward carries requests there; nil is http.DefaultTransport.
	Forward http.RoundTripper
	// HostKey is Sandman's own API key at the host. Callers who use the same
	// are tracked; without it nobody is.
	HostKey string
	// Domain is told to tracked callers as the sandboxes' own, so that their
	// traffic comes through Sandman. "" leaves the host's.
	Domain string
	Log    *zap.Logger
}

type passThrough struct {
	E2BConfig
	key      [sha256.Size]byte
	errorLog *log.Logger // of the proxy, which knows no other
}

// NewE2B returns the E2B API of one host as seen through Sandman. It expects
// paths as the host has them, such as /sandboxes: a prefix is the caller's to
// strip. Keys and bodies are neither kept nor logged.
func NewE2B(cfg E2BConfig) http.Handler {
	if cfg.Forward == nil {
		cfg.Forward = http.DefaultTransport
	}
	return &passThrough{E2BConfig: cfg, key: sha256.Sum256([]byte(cfg.HostKey)), errorLog: zap.NewStdLog(cfg.Log)}
}

func (p *passThrough) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.tracked(r) {
		p.forward(w, r, nil)
		return
	}
	switch c := parseCall(r); c.action {
	case actionCreate:
		p.create(w, r)
	case actionConnect:
		p.connect(w, r, c)
	case actionResume:
		p.resume(w, r, c)
	case actionPause:
		p.pause(w, r, c)
	case actionKill:
		p.kill(w, r, c)
	case actionFork:
		p.fork(w, r)
	case actionGet:
		p.forward(w, r, p.editSandbox)
	case actionTimeout:
		p.timeout(w, r, c)
	default:
		p.forward(w, r, nil)
	}
}

// tracked tells whether the caller uses the host's key.
func (p *passThrough) tracked(r *http.Request) bool {
	key := sha256.Sum256([]byte(r.Header.Get("X-API-Key")))
	return p.HostKey != "" && subtle.ConstantTimeCompare(key[:], p.key[:]) == 1
}

type action int

const (
	actionOther action = iota
	actionCreate
	actionConnect
	actionResume
	actionPause
	actionKill
	actionFork
	actionGet
	actionTimeout
)

// call is what a request means to Sandman.
type call struct {
	action action
	id     string // the sandbox's, without the client ID that old SDKs append
	v2     bool   // the newer generation of routes, with other defaults
}

// parseCall reads the path, in both generations. What it doesn't know, a
// malformed ID among it, is the host's to answer.
func parseCall(r *http.Request) call {
	path, v2 := strings.CutPrefix(r.URL.Path, "/v2")
	parts := strings.Split(path, "/")
	if len(parts) < 2 || parts[0] != "" || parts[1] != "sandboxes" {
		return call{}
	}
	if len(parts) == 2 {
		if r.Method == http.MethodPost {
			return call{action: actionCreate, v2: v2}
		}
		return call{}
	}
	id, _, _ := strings.Cut(parts[2], "-")
	if !e2b.ValidID(id) || len(parts) > 4 {
		return call{}
	}
	return call{action: actionOf(r.Method, parts[3:]), id: id, v2: v2}
}

// actionOf reads what follows the ID, if anything.
func actionOf(method string, rest []string) action {
	switch method + " " + strings.Join(rest, "/") {
	case "GET ":
		return actionGet
	case "DELETE ":
		return actionKill
	case "POST connect":
		return actionConnect
	case "POST resume":
		return actionResume
	case "POST pause":
		return actionPause
	case "POST timeout", "POST refreshes":
		return actionTimeout
	case "POST fork":
		return actionFork
	default:
		return actionOther
	}
}

// forward passes the request on, and the answer back as it comes in. Edit, if
// not nil, may change the answer; its body is plain then.
func (p *passThrough) forward(w http.ResponseWriter, r *http.Request, edit func(*http.Response) error) {
	if edit != nil {
		r = r.Clone(r.Context())
		r.Header.Set("Accept-Encoding", "identity")
	}
	p.pass(w, r, edit)
}

// pass passes the request on as it is. Look, if not nil, sees the answer first.
func (p *passThrough) pass(w http.ResponseWriter, r *http.Request, look func(*http.Response) error) {
	proxy := httputil.ReverseProxy{
		Transport:      p.Forward,
		FlushInterval:  -1,
		ModifyResponse: look,
		ErrorLog:       p.errorLog,
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.RawQuery = pr.In.URL.RawQuery // metadata is escaped three times: as it came
			pr.SetURL(p.Base)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			p.fail(w, r, "", &unreachableError{err})
		},
	}
	proxy.ServeHTTP(w, r)
}

// unreachableError is a request that the host has not answered.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string {
	return "the sandbox host does not answer: " + e.err.Error()
}
func (e *unreachableError) Unwrap() error { return e.err }

// fail answers with an error of the E2B API. The SDKs decide by the code in
// its body, and take 404 for "gone" and 409 for "not in this state".
func (p *passThrough) fail(w http.ResponseWriter, r *http.Request, id string, err error) {
	var (
		host        *e2b.Error
		unavailable *UnavailableError
		unreachable *unreachableError
	)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrKilled):
		e2b.WriteError(w, http.StatusNotFound, `Sandbox "`+id+`" doesn't exist or you don't have access to it`)
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		e2b.WriteError(w, statusClientGone, "the client has left")
	case errors.As(err, &host):
		p.failAsHost(w, host)
	case errors.As(err, &unavailable):
		setRetryAfter(w, unavailable.RetryAfter.Seconds())
		e2b.WriteError(w, http.StatusServiceUnavailable, unavailable.Reason)
	case errors.As(err, &unreachable):
		p.Log.Warn("the sandbox host does not answer an E2B API call", zap.String("method", r.Method), zap.Error(unreachable.err))
		e2b.WriteError(w, http.StatusBadGateway, "The sandbox host can't be reached")
	default:
		p.Log.Error("an E2B API call failed", zap.String("sandbox", id), zap.Error(err))
		setRetryAfter(w, 0)
		e2b.WriteError(w, http.StatusServiceUnavailable, "This could not be done at the moment, try again")
	}
}

// failAsHost passes on what the host has said to Sandman.
func (p *passThrough) failAsHost(w http.ResponseWriter, e *e2b.Error) {
	if e.RetryAfter > 0 {
		setRetryAfter(w, e.RetryAfter.Seconds())
	}
	status := e.Code
	if status < 400 || status > 599 { // not the API's word
		status = http.StatusBadGateway
	}
	e2b.WriteError(w, status, e.Message)
}

func setRetryAfter(w http.ResponseWriter, seconds float64) {
	w.Header().Set("Retry-After", strconv.Itoa(int(max(1, math.Ceil(seconds)))))
}
