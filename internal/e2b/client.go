package e2b

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// maxBody bounds what is read of one answer. A full page of the list, a
	// hundred sandboxes with their metadata, stays far below it.
	maxBody = 4 << 20
	// listLimit is the largest page that the API gives.
	listLimit = "100"
	// headerAPIKey carries the key; header names are matched without case.
	headerAPIKey = "X-API-Key"
)

// Client calls the control plane of one E2B host. Its methods may be called at
// once from many goroutines. A call lasts as long as its context allows: the
// client has no timeout of its own and never repeats a call, because whether a
// pause may be repeated is a question that only the caller can answer.
type Client struct {
	base string
	key  string
	hc   *http.Client
}

// NewClient returns a client of the API at baseURL, which may have a path. A nil
// hc means one with the default transport. Redirects are not followed, whatever
// hc says: they would carry the key to another server.
func NewClient(baseURL, apiKey string, hc *http.Client) *Client {
	own := http.Client{}
	if hc != nil {
		own = *hc
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{base: strings.TrimRight(baseURL, "/"), key: apiKey, hc: &own}
}

// Create starts a sandbox.
func (c *Client) Create(ctx context.Context, n NewSandbox) (Sandbox, error) {
	var sb Sandbox
	_, err := c.do(ctx, http.MethodPost, "/sandboxes", n, &sb)
	if err == nil && sb.SandboxID == "" {
		err = errNoSandbox
	}
	if err != nil {
		return Sandbox{}, fmt.Errorf("creating a sandbox: %w", err)
	}
	return sb, nil
}

// errNoSandbox is a 2xx answer of JSON that holds no sandbox.
var errNoSandbox = errors.New("the answer holds no sandbox")

// Get asks for one sandbox. While the host is pausing it the answer is paused
// already, while it is resuming it the answer is paused still.
func (c *Client) Get(ctx context.Context, id string) (SandboxDetail, error) {
	var d SandboxDetail
	a, err := c.do(ctx, http.MethodGet, sandboxPath(id, ""), nil, &d)
	if err == nil {
		err = checkListed(id, d.ListedSandbox)
	}
	if err != nil {
		return SandboxDetail{}, fmt.Errorf("getting sandbox %q: %w", id, err)
	}
	d.AsOf = asOf(a.header)
	return d, nil
}

// asOf is the host's own time. The header has cut the fraction off: what is
// left of a lifetime must not seem longer for that.
func asOf(h http.Header) time.Time {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return time.Now()
	}
	return date.Add(time.Second)
}

// checkListed refuses JSON that some other service gave for a sandbox.
func checkListed(id string, s ListedSandbox) error {
	if s.SandboxID != id {
		return fmt.Errorf("%w with this ID", errNoSandbox)
	}
	return checkState(s.State)
}

func checkState(s State) error {
	if s != StateRunning && s != StatePaused {
		return fmt.Errorf("unknown state %q", cut(string(s)))
	}
	return nil
}

// List returns all running and paused sandboxes, whatever the number of pages.
// The pages are not one snapshot: a sandbox that changes meanwhile can be
// missing, and its absence proves nothing. None is returned twice.
func (c *Client) List(ctx context.Context) ([]ListedSandbox, error) {
	var all []ListedSandbox
	seen, tokens := map[string]bool{}, map[string]bool{"": true}
	for token := ""; ; {
		page, next, err := c.listPage(ctx, token, listLimit)
		if err != nil {
			return nil, fmt.Errorf("listing sandboxes: %w", err)
		}
		for _, s := range page {
			if !seen[s.SandboxID] {
				seen[s.SandboxID] = true
				all = append(all, s)
			}
		}
		if next == "" {
			return all, nil
		}
		// a host that names a page twice would keep us here for ever
		if tokens[next] {
			return nil, errors.New("listing sandboxes: the host repeats a page")
		}
		tokens[next] = true
		token = next
	}
}

// Ping tells whether the API is there and takes the key: by the smallest list
// that it gives.
func (c *Client) Ping(ctx context.Context) error {
	if _, _, err := c.listPage(ctx, "", "1"); err != nil {
		return fmt.Errorf("looking whether the host answers: %w", err)
	}
	return nil
}

// pageTimeout bounds one page. The whole list has no bound of its own: 100,000
// sandboxes are a thousand pages.
const pageTimeout = 30 * time.Second

func (c *Client) listPage(ctx context.Context, token, limit string) (page []ListedSandbox, next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	q := "?state=running,paused&limit=" + limit
	if token != "" {
		q += "&nextToken=" + url.QueryEscape(token)
	}
	res, err := c.do(ctx, http.MethodGet, "/v2/sandboxes"+q, nil, &page)
	if err != nil {
		return nil, "", err
	}
	if page == nil {
		return nil, "", errors.New("the answer holds no list")
	}
	for _, s := range page {
		if s.SandboxID == "" {
			return nil, "", errNoSandbox
		}
		if err := checkState(s.State); err != nil {
			return nil, "", fmt.Errorf("sandbox %q: %w", cut(s.SandboxID), err)
		}
	}
	return page, res.header.Get("X-Next-Token"), nil
}

type timeoutBody struct {
	Timeout int32 `json:"timeout"`
}

// Connect resumes a paused sandbox and extends the lifetime of a running one to
// at least timeout from now, which is rounded up to seconds. Resumed is false
// where it was running already.
func (c *Client) Connect(ctx context.Context, id string, timeout time.Duration) (sb Sandbox, resumed bool, err error) {
	res, err := c.do(ctx, http.MethodPost, sandboxPath(id, "/connect"), timeoutBody{seconds(timeout)}, &sb)
	if err == nil && sb.SandboxID != id {
		err = fmt.Errorf("%w with this ID", errNoSandbox)
	}
	if err != nil {
		return Sandbox{}, false, fmt.Errorf("connecting to sandbox %q: %w", id, err)
	}
	return sb, res.status == http.StatusCreated, nil
}

// Pause pauses a sandbox and returns when the host has done it. A conflict
// ([IsConflict]) means that it was paused already, or that a resume is under
// way. After any other error, a cancelled context included, the state is not
// known: the host may have carried it out.
func (c *Client) Pause(ctx context.Context, id string) error {
	if _, err := c.do(ctx, http.MethodPost, sandboxPath(id, "/pause"), struct{}{}, nil); err != nil {
		return fmt.Errorf("pausing sandbox %q: %w", id, err)
	}
	return nil
}

// Kill ends a sandbox, running or paused, for good.
func (c *Client) Kill(ctx context.Context, id string) error {
	if _, err := c.do(ctx, http.MethodDelete, sandboxPath(id, ""), nil, nil); err != nil {
		return fmt.Errorf("killing sandbox %q: %w", id, err)
	}
	return nil
}

// SetTimeout makes a running sandbox's lifetime end d from now, rounded up to
// seconds, be that later or sooner than before.
func (c *Client) SetTimeout(ctx context.Context, id string, d time.Duration) error {
	if _, err := c.do(ctx, http.MethodPost, sandboxPath(id, "/timeout"), timeoutBody{seconds(d)}, nil); err != nil {
		return fmt.Errorf("setting the timeout of sandbox %q: %w", id, err)
	}
	return nil
}

// sandboxPath escapes the ID, so that no ID can name another route.
func sandboxPath(id, action string) string {
	return "/sandboxes/" + url.PathEscape(id) + action
}

// seconds rounds up, as the SDKs do, and stays within what the API takes.
func seconds(d time.Duration) int32 {
	s := math.Ceil(d.Seconds())
	return int32(min(max(s, 0), math.MaxInt32))
}

// answer is what a 2xx answer says besides its body.
type answer struct {
	status int
	header http.Header
}

// do makes one call. A nil in sends no body, a nil out ignores the answer's.
func (c *Client) do(ctx context.Context, method, path string, in, out any) (answer, error) {
	req, err := c.newRequest(ctx, method, path, in)
	if err != nil {
		return answer{}, err
	}
	res, err := c.hc.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	body, err := readBody(res)
	if err != nil {
		return answer{}, err
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return answer{}, newError(res.StatusCode, res.Header, body, time.Now())
	}
	if out == nil {
		return answer{res.StatusCode, res.Header}, nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return answer{}, fmt.Errorf("reading the answer (status %d, %q): %w", res.StatusCode, cut(string(body)), err)
	}
	return answer{res.StatusCode, res.Header}, nil
}

func (c *Client) newRequest(ctx context.Context, method, path string, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("rendering the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set(headerAPIKey, c.key)
	return req, nil
}

// readBody reads a whole answer of at most maxBody bytes. What is larger or cut
// is an error and not an answer: half of a body may well parse as another one.
func readBody(res *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer (status %d): %w", res.StatusCode, err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("reading the answer (status %d): larger than %d MiB", res.StatusCode, maxBody>>20)
	}
	return body, nil
}
