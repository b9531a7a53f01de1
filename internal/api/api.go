package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

const (
	prefix = "/api/v1"
	// scheme names the bearer tokens in the OpenAPI file.
	scheme = "token"
	// maxBody bounds a request's body; metadata and environment variables of
	// a new sandbox are the largest.
	maxBody = 256 << 10
	// bodyWithin is how long a client may take to send it.
	bodyWithin = 10 * time.Second
	// maxName bounds owners and projects.
	maxName = 256
)

// Config is what the JSON API works with. All but Tokens are needed; without
// tokens nobody gets in.
type Config struct {
	Version string // Sandman's own, shown in /status
	Reader  Reader
	Actor   Actor
	Tokens  []Token
	// Ending ends the streams of events, whose clients come again: it is done
	// when this API is about to end. nil: never.
	Ending context.Context
	// AllowOrigins are those of pages that may use this API from elsewhere, or *.
	AllowOrigins []string
	RateLimit    RateLimit
	Log          *zap.Logger

	PricePerMinute float64       // of a running sandbox
	Currency       string        // of that price; "": none is told
	HostTimeout    time.Duration // the host's own, for comparison
}

type server struct {
	Config
	api    huma.API
	mux    *http.ServeMux
	limits limiters
}

// New returns the JSON API, which answers under /api/v1. The error says what
// is wrong with the tokens or the origins.
func New(cfg Config) (http.Handler, error) {
	if err := CheckTokens(cfg.Tokens); err != nil {
		return nil, fmt.Errorf("setting up the API: %w", err)
	}
	if err := CheckOrigins(cfg.AllowOrigins); err != nil {
		return nil, fmt.Errorf("setting up the API: %w", err)
	}
	s := &server{Config: cfg, mux: http.NewServeMux(), limits: limiters{limit: cfg.RateLimit, all: map[string]*rate.Limiter{}}}
	s.api = humago.NewWithPrefix(s.mux, prefix, humaConfig(cfg.Version))
	s.api.UseMiddleware(s.authorize)
	s.addStatus()
	s.addSandboxes()
	s.addWhy()
	s.addPolicies()
	s.addSavings()
	s.addEvents()
	s.addHolds()
	s.addRuns()
	s.addBadge()
	s.addAccess()
	document, err := json.Marshal(s.api.OpenAPI())
	if err != nil {
		return nil, fmt.Errorf("rendering the OpenAPI file: %w", err)
	}
	s.mux.HandleFunc("GET "+prefix+"/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(document)
	})
	return s, nil
}

// humaConfig has no documentation page: huma's loads scripts from elsewhere.
func humaConfig(version string) huma.Config {
	format := huma.Format{Marshal: writeJSON, Unmarshal: json.Unmarshal}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:       "Sandman",
				Version:     version,
				Description: "Sandboxes that sleep while nobody uses them. Every request but that for this file brings a bearer token; its role is named at each operation. Every error is a Problem.",
			},
			Components: &huma.Components{
				Schemas:         newRegistry(),
				SecuritySchemes: map[string]*huma.SecurityScheme{scheme: {Type: "http", Scheme: "bearer"}},
			},
		},
		Formats:                      map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{toProblem},
	}
}

// writeJSON tells a value that can't be rendered, which is our mistake, from a
// client that does not take the answer, which is nobody's.
func writeJSON(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, _ = w.Write(append(b, '\n'))
	return nil
}

// ServeHTTP answers everything, also what no operation is made for.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if s.allowOrigin(w, r) {
		return
	}
	h, pattern := s.mux.Handler(r)
	switch {
	case r.URL.EscapedPath() != path.Clean(r.URL.EscapedPath()): // the mux would redirect
		notARoute(r).write(w)
	case pattern == "":
		s.refuse(w, r, h)
	default:
		s.mux.ServeHTTP(w, r)
	}
}

// refuse asks the mux's own refusal whether it is the method that is wrong.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, refusal http.Handler) {
	probe := statusProbe{header: http.Header{}}
	refusal.ServeHTTP(&probe, r)
	if probe.status != http.StatusMethodNotAllowed {
		notARoute(r).write(w)
		return
	}
	allow := probe.header.Get("Allow")
	newProblem(http.StatusMethodNotAllowed, "method-not-allowed",
		fmt.Sprintf("%s does not work here; use %s.", shorten(r.Method), allow)).with("Allow", allow).write(w)
}

func notARoute(r *http.Request) *Problem {
	return newProblem(http.StatusNotFound, "no-such-route",
		fmt.Sprintf("There is nothing at %s; see %s/openapi.json.", shorten(r.URL.Path), prefix))
}

// shorten bounds what an answer repeats of a request.
func shorten(s string) string {
	const most = 100
	s = strings.ToValidUTF8(s, "�")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// statusProbe takes an answer that nobody is to see.
type statusProbe struct {
	header http.Header
	status int
}

func (p *statusProbe) Header() http.Header         { return p.header }
func (p *statusProbe) WriteHeader(status int)      { p.status = status }
func (p *statusProbe) Write(b []byte) (int, error) { return len(b), nil }

type tokenKey struct{}

// authorize lets nobody through without a token of the role that the
// operation names in its security requirement.
func (s *server) authorize(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	const realm = `Bearer realm="sandman"`
	secret, ok := bearer(r.Header)
	if !ok {
		newProblem(http.StatusUnauthorized, "unauthorized", "Send a token, in the header Authorization: Bearer <token>.").
			with("WWW-Authenticate", realm).write(w)
		return
	}
	token, err := s.bearerOf(r.Context(), secret)
	if problem := new(Problem); errors.As(err, &problem) {
		problem.write(w)
		return
	}
	if err != nil {
		unauthorized(err).with("WWW-Authenticate", realm+`, error="invalid_token"`).write(w)
		return
	}
	if wait := s.limits.wait(token, time.Now()); wait > 0 {
		tooFast(wait).write(w)
		return
	}
	if why := token.mayNot(ctx.Operation()); why != "" {
		newProblem(http.StatusForbidden, "forbidden", why).
			with("WWW-Authenticate", realm+`, error="insufficient_scope"`).write(w)
		return
	}
	next(huma.WithValue(ctx, tokenKey{}, token))
}

// unauthorized says what to do about a token that is not taken. Those of badges
// are in the hands of people who know nothing of the configuration.
func unauthorized(err error) *Problem {
	switch {
	case errors.Is(err, errBadgeExpired):
		return newProblem(http.StatusUnauthorized, "expired", sentence(err)+" Reload the page that shows it, or make a new one.")
	case errors.Is(err, errNoBadge):
		return newProblem(http.StatusUnauthorized, "unauthorized", sentence(err)+" Reload the page that shows it, or make a new one.")
	}
	return newProblem(http.StatusUnauthorized, "unauthorized", sentence(err)+" Check it, and the configuration's tokens.")
}

var errNoToken = errors.New("this token is none of Sandman's")

// bearerOf gives whom a secret stands for. A [Problem] says that this can't be
// told now.
func (s *server) bearerOf(ctx context.Context, secret string) (Token, error) {
	if token, ok := find(s.Tokens, secret); ok {
		return token, nil
	}
	if strings.HasPrefix(secret, badgePrefix) {
		return s.badgeToken(ctx, secret)
	}
	return Token{}, errNoToken
}

// mayNot says why a bearer may not use an operation; "" if it may.
func (t Token) mayNot(op *huma.Operation) string {
	role := roleOf(op)
	switch needs := badgeNeeds(op); {
	case t.badge != nil && needs == "":
		return "A badge token is for one sandbox's badge, which has no use for this."
	case t.badge != nil && !t.badge.may(needs):
		return fmt.Sprintf("This badge token was not made for this: it takes %q in may.", needs)
	case t.badge == nil && t.Role.rank() < role.rank():
		return fmt.Sprintf("This takes the role %s, and the token %q has the role %s.", role, t.Name, t.Role)
	}
	return ""
}

// sentence makes an error's text one.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// response describes an answer that huma does not know of.
func (s *server) response(description, contentType string, body reflect.Type) *huma.Response {
	schema := s.api.OpenAPI().Components.Schemas.Schema(body, true, "")
	return &huma.Response{Description: description, Content: map[string]*huma.MediaType{contentType: {Schema: schema}}}
}

func roleOf(op *huma.Operation) Role { return Role(op.Security[0][scheme][0]) }

// add registers an operation. Handle gets the token that the request brought;
// its errors become problems.
func add[I, O any](s *server, role Role, op huma.Operation, handle func(context.Context, Token, *I) (*O, error)) {
	op.Security = []map[string][]string{{scheme: {string(role)}}}
	op.MaxBodyBytes, op.BodyReadTimeout = maxBody, bodyWithin
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity, http.StatusServiceUnavailable)
	if needs := badgeNeeds(&op); needs != "" {
		op.Extensions = map[string]any{badgeExtension: needs}
	}
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["default"] = s.response("Any other error", problemType, reflect.TypeFor[Problem]())
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		token, _ := ctx.Value(tokenKey{}).(Token)
		out, err := handle(ctx, token, in)
		if err == nil {
			return out, nil
		}
		p := problemOf(err)
		if p.Status == http.StatusInternalServerError {
			s.Log.Error("an API request failed", zap.String("operation", op.OperationID), zap.String("token", token.Name), zap.Error(err))
		}
		return nil, p
	})
}
