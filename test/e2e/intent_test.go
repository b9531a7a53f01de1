package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const chromium = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"

type headers map[string]string

// asks is a request as one kind of client sends it, for the app's state unless path is set.
func (s *sandman) asks(t *testing.T, id, method, path string, h headers) *http.Request {
	t.Helper()
	r := s.request(t.Context(), method, id, appPort, path, nil)
	for name, value := range h {
		r.Header.Set(name, value)
	}
	return r
}

// with gives the sandbox's site options of its own.
func with(lines ...string) *strings.Replacer {
	return strings.NewReplacer("\tsandman_proxy\n", "\tsandman_proxy {\n"+strings.Join(lines, "\n")+"\n\t}\n")
}

var (
	prefetch  = headers{"Sec-Purpose": "prefetch;prerender", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none", "Sec-Fetch-User": "?1", "Accept": "text/html"}
	reload    = headers{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
	events    = headers{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin", "Accept": "text/event-stream", "User-Agent": chromium}
	handshake = headers{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
		"Origin": "http://editor.example.com", "User-Agent": chromium,
	}
)

// Who can't be a person does not wake a sandbox, and is told so at once in a way that nothing stores.
func TestIntent_whatNobodyAskedForDoesNotWake(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, _ := s.startAppIn(t)
	s.pause(t, id)
	for name, tt := range map[string]struct {
		path string
		h    headers
	}{
		"prefetch":               {"/state", prefetch},
		"prefetch of plain http": {"/state", headers{"Purpose": "prefetch", "User-Agent": chromium, "Accept": "text/html"}},
		"favicon":                {"/favicon.ico", headers{"User-Agent": chromium, "Accept": "image/*"}},
		"cross-site image":       {"/state", headers{"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}},
		"bot":                    {"/state", headers{"User-Agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Accept": "text/html"}},
		"service worker":         {"/sw.js", headers{"Service-Worker": "script", "Sec-Fetch-Dest": "serviceworker", "Sec-Fetch-Mode": "same-origin"}},
	} {
		began := time.Now()
		a := s.mustDo(t, s.asks(t, id, http.MethodGet, tt.path, tt.h))
		if requireProblem(t, a, http.StatusServiceUnavailable); a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: it may be stored: %v", name, a.header)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s was refused only after %s", name, took)
		}
	}
	s.requireAsleep(t, id, 0)
	eventually(t, late, "all refusals told", func() bool {
		var why struct{ Refused []struct{ Count int } }
		s.call(t, http.MethodGet, "/sandboxes/"+id+"/why", "").decode(t, &why)
		told := 0
		for _, r := range why.Refused {
			told += r.Count
		}
		return told == 6
	})
}

// requireAsleep fails the test if the sandbox has been woken.
func (s *sandman) requireAsleep(t *testing.T, id string, wakes int) {
	t.Helper()
	if r := s.record(t, id); r.State != "PAUSED" || r.Totals.Wakes != wakes {
		t.Errorf("the sandbox was woken: %+v", r)
	}
}

func TestIntent_whoMayBeAPersonWakes(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, before := s.startAppIn(t)
	askers := map[string]headers{
		"program":            {},
		"navigation":         {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none", "Sec-Fetch-User": "?1", "Accept": "text/html"},
		"plain navigation":   {"Upgrade-Insecure-Requests": "1", "User-Agent": chromium, "Accept": "text/html,*/*"},
		"link on other site": {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site", "Accept": "text/html"},
		"page's fetch":       {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"},
		"scripted reload":    reload, // no stream was open at the pause
	}
	n := 0
	for name, h := range askers {
		s.pause(t, id)
		var state appState
		a := s.mustDo(t, s.asks(t, id, http.MethodGet, "/state", h))
		if a.status != http.StatusOK {
			t.Errorf("%s: %s", name, a)
			continue
		}
		n++
		a.decode(t, &state)
		requireContinued(t, before, state, int64(n))
	}
	if r := s.record(t, id); r.Totals.Wakes != len(askers) {
		t.Errorf("%d askers woke it %d times", len(askers), r.Totals.Wakes)
	}
}

// Pages that were open at the pause come again by themselves: a few times a day they may.
func TestIntent_reconnectsHaveABudget(t *testing.T) {
	t.Parallel()
	s := start(t, options{caddyfile: with("reconnect_wakes 2")})
	id, before := s.startAppIn(t)
	c := s.dial(t, id)
	requireEcho(t, c, "open")
	reading, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { _, _, _ = c.Read(reading) }() // answers pings

	s.pause(t, id)
	s.mustDo(t, s.asks(t, id, http.MethodGet, "/state", reload)).require(t, http.StatusOK)
	s.pause(t, id)
	if err := s.receivesEvents(t, id); err != nil {
		t.Errorf("an EventSource within the budget: %v", err)
	}
	s.pause(t, id)
	s.requireRefusedReconnects(t, id, 2)

	requireContinued(t, before, s.mustAsk(t, id), 2) // a program may
	if r := s.record(t, id); r.Totals.Wakes != 3 {
		t.Errorf("woken %d times", r.Totals.Wakes)
	}
}

func (s *sandman) receivesEvents(t *testing.T, id string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r := s.asks(t, id, http.MethodGet, "/events?every=0", events)
	res, err := s.http.Do(r.WithContext(ctx))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	first := make([]byte, len("data: 0"))
	if _, err := res.Body.Read(first); err != nil || string(first) != "data: 0" {
		return fmt.Errorf("status %d, first %q: %w", res.StatusCode, first, err)
	}
	return nil
}

// requireRefusedReconnects fails the test unless each kind of reconnect is refused in its own way.
func (s *sandman) requireRefusedReconnects(t *testing.T, id string, wakes int) {
	t.Helper()
	a := s.mustDo(t, s.asks(t, id, http.MethodGet, "/state", reload))
	requirePage(t, a, http.StatusServiceUnavailable)
	if !strings.Contains(a.body, `action="/.well-known/sandman/wake"`) || strings.Contains(a.body, `id="wake" method="post" action="/.well-known/sandman/wake" hidden`) || a.header.Get("Refresh") != "" {
		t.Errorf("the page has no button, or comes again by itself: %s", a)
	}
	if err := s.receivesEvents(t, id); err == nil || strings.Contains(err.Error(), "status") {
		t.Errorf("an EventSource was answered, which ends it for good: %v", err)
	}
	requireProblem(t, s.mustDo(t, s.asks(t, id, http.MethodGet, "/ws", handshake)), http.StatusServiceUnavailable)
	s.requireAsleep(t, id, wakes)
}

// A forgotten page of server-sent events, on a host that cuts it off at each pause, comes again every
// few seconds: it may wake the sandbox as often as other pages that were open, and no more.
func TestIntent_anEventSourceThatIsCutHasABudget(t *testing.T) {
	t.Parallel()
	s := start(t, options{host: startSandboxd(t, "cut_connections").url, idle: 3 * time.Second, caddyfile: with("reconnect_wakes 1")})
	id, _ := s.startAppIn(t)
	done, stop := context.WithCancel(t.Context())
	defer stop()
	page := make(chan struct{})
	go func() {
		defer close(page)
		for done.Err() == nil {
			s.readEvents(done, t, id)
			select {
			case <-done.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	eventually(t, 30*time.Second, "a wake by the page, and a refusal", func() bool {
		var why struct{ Refused []struct{ Reason string } }
		s.call(t, http.MethodGet, "/sandboxes/"+id+"/why", "").decode(t, &why)
		return len(why.Refused) > 0 && why.Refused[0].Reason == "reconnect-budget"
	})
	s.requireAsleep(t, id, 1)
	if n := s.reconnectWakes(t, id); n != 1 {
		t.Errorf("%d reconnects are counted", n)
	}
	stop()
	<-page
}

// readEvents reads events until they end.
func (s *sandman) readEvents(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	res, err := s.http.Do(s.asks(t, id, http.MethodGet, "/events?every=0", events).WithContext(ctx))
	if err != nil {
		return // it was dropped, as it is to be
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("an EventSource was answered %d, which ends it for good", res.StatusCode)
	}
	_, _ = io.Copy(io.Discard, res.Body)
}

// A page that opens a second connection beside a silent one is only nervous: as long as the first
// is there, the second costs nothing. If it is not, the page has come back.
func TestIntent_aHandshakeBesideALivingStreamIsNoReconnect(t *testing.T) {
	t.Parallel()
	const laptop = "Mozilla/5.0 of a laptop that slept"
	s := start(t, options{})
	id, _ := s.startAppIn(t)
	living, dead := s.dialAs(t, id, chromium), s.dialAs(t, id, laptop)
	requireEcho(t, living, "open")
	requireEcho(t, dead, "open")
	go func() { _, _, _ = living.Read(t.Context()) }() // which answers pings, and the other one none
	s.pause(t, id)
	for range 3 {
		requireProblem(t, s.mustDo(t, s.asks(t, id, http.MethodGet, "/ws", handshake)), http.StatusServiceUnavailable)
	}
	s.requireAsleep(t, id, 0)
	if n := s.reconnectWakes(t, id); n != 0 {
		t.Errorf("it cost %d of the budget", n)
	}

	began := time.Now()
	requireEcho(t, s.dialAs(t, id, laptop), "back")
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the page that came back was let in after %s", took)
	}
	if r := s.record(t, id); r.State != "RUNNING" || r.Totals.Wakes != 1 {
		t.Errorf("after the page came back the sandbox is %+v", r)
	}
	if n := s.reconnectWakes(t, id); n != 1 {
		t.Errorf("%d reconnects are counted", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	if _, _, err := dead.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the stream that the page has left is still open: %v", err)
	}
}

func (s *sandman) reconnectWakes(t *testing.T, id string) int {
	t.Helper()
	var r struct {
		ReconnectWakes struct{ Count int }
	}
	s.call(t, http.MethodGet, "/sandboxes/"+id, "").decode(t, &r)
	return r.ReconnectWakes.Count
}

// dialAs opens a WebSocket as a browser does.
func (e *e2b) dialAs(t *testing.T, id, agent string) *websocket.Conn {
	t.Helper()
	url := e.request(t.Context(), http.MethodGet, id, appPort, "/ws", nil).URL.String()
	c, res, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{
		HTTPClient: e.http, HTTPHeader: http.Header{"Origin": {strings.TrimSuffix(url, "/ws")}, "User-Agent": {agent}},
	})
	if err != nil {
		t.Fatalf("opening a WebSocket: %v, %+v", err, res)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func TestIntent_manualWakesByHandOnly(t *testing.T) {
	t.Parallel()
	s := start(t, options{caddyfile: with("wake manual")})
	id, before := s.startAppIn(t)
	c := s.dial(t, id)
	requireEcho(t, c, "open")
	s.pause(t, id)
	if err := c.Write(t.Context(), websocket.MessageText, []byte("good morning")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusTryAgainLater {
		t.Errorf("a message that may not wake ended with %v, wanted status 1013", err)
	}
	p := requireProblem(t, s.mustDo(t, s.asks(t, id, http.MethodGet, "/state", nil)), http.StatusServiceUnavailable)
	if !strings.Contains(p.Detail, "by hand") {
		t.Errorf("a program is told %q", p.Detail)
	}
	requirePage(t, s.mustDo(t, s.navigation(t, id)), http.StatusServiceUnavailable)
	s.requireAsleep(t, id, 0)

	for name, h := range map[string]headers{
		"another site":  {"Origin": "http://evil.example.com"},
		"another frame": {"Origin": "null"},
		"a sibling":     {"Sec-Fetch-Site": "same-site", "Origin": "http://8080-other.localhost"},
	} {
		if a := s.mustDo(t, s.asks(t, id, http.MethodPost, "/.well-known/sandman/wake", h)); a.status != http.StatusForbidden {
			t.Errorf("%s may press the button: %s", name, a)
		}
	}
	s.requireAsleep(t, id, 0)

	press := s.request(t.Context(), http.MethodPost, id, appPort, "/.well-known/sandman/wake", strings.NewReader("back=%2Fstate%3Fa%3Db"))
	press.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	press.Header.Set("Origin", "http://"+press.URL.Host)
	noFollow := *s.http
	noFollow.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := noFollow.Do(press)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/state?a=b" {
		t.Errorf("the button led to %d %q", res.StatusCode, res.Header.Get("Location"))
	}
	s.awaitState(t, 5*time.Second, id, "RUNNING")
	requireContinued(t, before, s.mustAsk(t, id), 1)
}

// What a sandbox itself is set to wins over its site, both ways, from one request to the next.
func TestIntent_aSandboxesOwnPolicyWins(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, _ := s.startAppIn(t)
	s.configure(t, id, `{"wakePolicy":"manual"}`)
	s.pause(t, id)
	requireProblem(t, s.mustDo(t, s.asks(t, id, http.MethodGet, "/state", nil)), http.StatusServiceUnavailable)
	s.configure(t, id, `{"wakePolicy":"any"}`)
	s.mustDo(t, s.asks(t, id, http.MethodGet, "/state", prefetch)).require(t, http.StatusOK)
	s.pause(t, id)
	s.configure(t, id, `{"wakePolicy":null}`)
	requireProblem(t, s.mustDo(t, s.asks(t, id, http.MethodGet, "/state", prefetch)), http.StatusServiceUnavailable)
	s.requireAsleep(t, id, 1)
}

// The page's own addresses tell and do nothing else, and reach no app.
func TestWellKnown_isSandmansOwn(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second})
	id, _ := s.startAppIn(t)
	lastUse := time.Now()
	s.mustAsk(t, id)
	state := func() (p struct{ State, Title, Version string }) {
		a := s.mustDo(t, s.asks(t, id, http.MethodGet, "/.well-known/sandman/state", nil))
		if err := errors.Join(json.Unmarshal([]byte(a.body), &p)); err != nil || a.status != http.StatusOK || a.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("the state: %v, %s", err, a)
		}
		return p
	}
	stop := make(chan struct{})
	go func() { // asking keeps nothing awake
		for {
			select {
			case <-stop:
				return
			case <-time.After(500 * time.Millisecond):
				_, _ = s.do(s.asks(t, id, http.MethodGet, "/.well-known/sandman/state", nil))
			}
		}
	}()
	s.requirePausedOnTime(t, id, lastUse)
	close(stop)
	asleep := state()
	if asleep.State != "PAUSED" || asleep.Title == "" {
		t.Errorf("asleep: %+v", asleep)
	}

	news := make(chan answer, 1) // a question that waits for news
	waits := s.asks(t, id, http.MethodGet, "/.well-known/sandman/state?after="+asleep.Version, nil)
	go func() {
		a, _ := s.do(waits)
		news <- a
	}()
	select {
	case a := <-news:
		t.Errorf("there were no news, and it was answered %s", a)
	case <-time.After(500 * time.Millisecond):
	}
	s.mustAsk(t, id)
	if a := <-news; a.status != http.StatusOK || strings.Contains(a.body, asleep.Version) {
		t.Errorf("the news: %s", a)
	}
	for path, status := range map[string]int{"/.well-known/sandman/x": 404, "/.well-known/sandman/wake": 405} {
		requireProblem(t, s.mustDo(t, s.asks(t, id, http.MethodGet, path, nil)), status)
	}
	requireProblem(t, s.mustDo(t, s.request(t.Context(), http.MethodGet, "iunknownunknown", appPort, "/.well-known/sandman/state", nil)), http.StatusNotFound)
}
