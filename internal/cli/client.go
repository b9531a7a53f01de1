package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	urlVariable   = "SANDMAN_URL"
	portVariable  = "SANDMAN_PORT"
	dataVariable  = "SANDMAN_DATA"
	tokenVariable = "SANDMAN_TOKEN"

	defaultPort = "8080"
	defaultData = ".sandman"
	prefix      = "/api/v1"

	// dialWithin bounds connecting, quickly what answers from memory, and slowly
	// what waits for a sandbox host.
	dialWithin = 5 * time.Second
	quickly    = 30 * time.Second
	slowly     = 10 * time.Minute

	maxAnswer = 64 << 20
)

// client calls one Sandman.
type client struct {
	base      string // its URL, without a slash at the end
	token     string
	tokenFrom string // where the token was found, in words
	http      *http.Client
}

// newClient finds Sandman and the token by the environment, as the quick start's
// Caddyfile does.
func newClient(getenv func(string) string) (*client, error) {
	base, err := findURL(getenv)
	if err != nil {
		return nil, err
	}
	c := &client{base: base, http: &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: dialWithin}).DialContext,
			TLSHandshakeTimeout: dialWithin,
			ForceAttemptHTTP2:   true,
		},
		// the API redirects nowhere, and the token is for nobody else
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	c.token, c.tokenFrom, err = findToken(getenv)
	return c, err
}

func findURL(getenv func(string) string) (string, error) {
	raw := strings.TrimRight(getenv(urlVariable), "/")
	if raw == "" {
		port := getenv(portVariable)
		if port == "" {
			port = defaultPort
		}
		return "http://localhost:" + port, nil
	}
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", failf(ExitUsage, "%s is %q, and should be like http://localhost:8080 or https://sandman.example.com", urlVariable, raw)
	}
	return raw, nil
}

// findToken reads the token. In the Caddyfile's variable there may also be a
// hash, which says nothing of the token, or "generate".
func findToken(getenv func(string) string) (token, from string, err error) {
	said := "is not set"
	switch t := strings.TrimSpace(getenv(tokenVariable)); {
	case strings.HasPrefix(t, "sha256:"), strings.HasPrefix(t, "{"):
		said = "has no token but " + strings.ToValidUTF8(t[:min(len(t), 7)], "") + "…"
	case t == "generate":
		said = "says generate"
	case t != "":
		return t, tokenVariable, nil
	}
	dir := getenv(dataVariable)
	if dir == "" {
		dir = defaultData
	}
	path := filepath.Join(dir, "token")
	shown := path
	if !filepath.IsAbs(path) {
		shown = "." + string(filepath.Separator) + path
	}
	b, err := os.ReadFile(path)
	if token = strings.TrimSpace(string(b)); err == nil && token != "" {
		return token, shown, nil
	}
	return "", "", failf(ExitRefused, "no token found: %s %s, and %s %s. Run this in the folder that Sandman runs in, or set %s to its data folder or %s to a token",
		tokenVariable, said, shown, whyNot(err), dataVariable, tokenVariable)
}

func whyNot(err error) string {
	switch {
	case err == nil:
		return "is empty"
	case errors.Is(err, fs.ErrNotExist):
		return "does not exist"
	case errors.Is(err, fs.ErrPermission):
		return "is another user's"
	default:
		return "can't be read: " + err.Error()
	}
}

// request is one call of the API.
type request struct {
	method  string
	path    string // below /api/v1
	query   url.Values
	body    any           // sent as JSON; nil: none
	sandbox string        // whom it is about, for errors
	within  time.Duration // 0: quickly
}

// reply is what the API has answered, and its clock: this machine's may be
// another.
type reply struct {
	body json.RawMessage
	now  time.Time
}

// decode reads the answer.
func (r reply) decode(v any) error {
	if err := json.Unmarshal(r.body, v); err != nil {
		return failf(ExitError, "reading Sandman's answer: %w", err)
	}
	return nil
}

// call makes a request and waits for the answer. Its errors are failures.
func (c *client) call(ctx context.Context, req request) (reply, error) {
	if req.within == 0 {
		req.within = quickly
	}
	bounded, cancel := context.WithTimeout(ctx, req.within)
	defer cancel()
	res, err := c.send(bounded, req, nil)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	switch {
	case err != nil:
		return reply{}, c.unreachable(bounded, req, err)
	case res.StatusCode == http.StatusNoContent:
	case !isType(res, "application/json"):
		return reply{}, failf(ExitUnreachable, "what answers at %s is not Sandman's API: its answer is no JSON. Say in %s where Sandman is", c.base, urlVariable)
	}
	return reply{bytes.TrimRight(body, "\n"), clockOf(res)}, nil
}

// send makes a request and gives the answer, if it is no error.
func (c *client) send(ctx context.Context, req request, header http.Header) (*http.Response, error) {
	var body io.Reader
	if req.body != nil {
		b, err := json.Marshal(req.body)
		if err != nil {
			return nil, fmt.Errorf("writing the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	target := c.base + prefix + req.path
	if len(req.query) > 0 {
		target += "?" + req.query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, req.method, target, body)
	if err != nil {
		return nil, failf(ExitUsage, "%w", err)
	}
	maps.Copy(r.Header, header)
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("User-Agent", "sandman-cli")
	if req.body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(ctx, req, err)
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, c.unreachable(ctx, req, err)
	}
	return nil, c.failureOf(req, res, bytes.TrimSpace(b))
}

var errInterrupted = errors.New("interrupted")

// unreachable says why there is no answer.
func (c *client) unreachable(ctx context.Context, req request, err error) error {
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		err = urlErr.Err // without the URL, which is said already
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled) && req.method == http.MethodGet:
		return failf(ExitInterrupted, "%w", errInterrupted)
	case errors.Is(ctx.Err(), context.Canceled):
		return failf(ExitInterrupted, "%w. What was asked for may be done yet: look before you try again", errInterrupted)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return failf(ExitUnreachable, "the Sandman at %s has not answered for %s. What was asked for may be done yet: look before you try again", c.base, span(req.within))
	default:
		return failf(ExitUnreachable, "no Sandman can be reached at %s: %w. Start it with `sandman run`, or say in %s where it is", c.base, err, urlVariable)
	}
}

func isType(res *http.Response, want string) bool {
	got, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	return err == nil && got == want
}

func clockOf(res *http.Response) time.Time {
	now, here := time.Now(), res.Header.Get("Date")
	// the header has whole seconds, so that a clock which goes right is better
	if at, err := http.ParseTime(here); err == nil && now.Sub(at).Abs() > 2*time.Second {
		return at
	}
	return now
}

// sandboxPath is the path of a sandbox. An ID with a slash in it is no ID, and
// must not become another path.
func sandboxPath(id string, more ...string) string {
	parts := append([]string{"/sandboxes", id}, more...)
	for i := range parts[1:] {
		parts[i+1] = url.PathEscape(parts[i+1])
	}
	return strings.Join(parts, "/")
}
