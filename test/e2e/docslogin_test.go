package e2e_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// The sites of docs/tls-and-login.md, with a login service as small as one can be: people log in at
// one domain, and get a session of its own at each sandbox's address.
func TestDocs_theLoginStaysOutsideTheSandbox(t *testing.T) {
	t.Parallel()
	d := startLoginSites(t)
	id, _ := d.startAppIn(t)
	d.call(t, http.MethodPatch, "/sandboxes/"+id, `{"owner":"ann"}`).require(t, http.StatusOK)
	d.pause(t, id)

	d.requireClosed(t, id)

	t.Log("its owner does, and wakes it")
	ann := d.visitor(t)
	ann.login(t, "ann", id)
	a := ann.get(t, id, "/headers", func(r *http.Request) {
		r.Header.Add("Cookie", "theme=dark; lang=en")
		r.Header.Set("Authorization", "Bearer of-the-platform")
		r.Header.Set("X-Auth-User", "root")
	})
	d.requireClean(t, a, ann, "theme=dark", "lang=en")
	if d.record(t, id).State != "RUNNING" {
		t.Errorf("the owner's request has not woken it")
	}
	d.requireClean(t, ann.get(t, id, "/headers", askUpgrade), ann)
	for _, cookies := range []string{"__Host-session =%s; a=b", "a=b;__Host-session=%s", `__Host-session=%s; __Host-session=%[1]s; a=b`} {
		a := ann.get(t, id, "/headers", func(r *http.Request) { r.Header.Set("Cookie", fmt.Sprintf(cookies, ann.session(t, id))) })
		d.requireClean(t, a, ann, "a=b")
	}
	ann.requireEcho(t, id)

	t.Log("the session is this address's alone")
	other := d.create(t)
	d.call(t, http.MethodPatch, "/sandboxes/"+other, `{"owner":"ann"}`).require(t, http.StatusOK)
	d.pause(t, other)
	if a := ann.get(t, other, "/", func(r *http.Request) { r.Header.Set("Cookie", "__Host-session="+ann.session(t, id)) }); a.status != http.StatusUnauthorized {
		t.Errorf("the session of another sandbox: %s", a)
	}
	d.requireAsleep(t, other)

	t.Log("pages of other sandboxes get nothing")
	for origin, want := range map[string]int{
		d.address(appHost(other)):  http.StatusForbidden,
		"https://evil.example.org": http.StatusForbidden,
		"null":                     http.StatusForbidden,
		d.address("3000-" + id + ".example.net.evil"): http.StatusForbidden,
		d.address("3000-" + id + ".example.net"):      http.StatusOK,
		d.address(appHost(id)):                        http.StatusOK,
	} {
		if a := ann.get(t, id, "/headers", func(r *http.Request) { r.Header.Set("Origin", origin) }); a.status != want {
			t.Errorf("from a page of %s: %s", origin, a)
		}
	}

	t.Log("and the sandbox sets no session")
	set := url.Values{"set": {"__Host-session=mine; Path=/; Secure", "=__Host-session=mine", "theme=light; Domain=example.net; Path=/", "plain=1"}}
	got := strings.Join(ann.get(t, id, "/headers?"+set.Encode(), asPage).header.Values("Set-Cookie"), "\n")
	if want := "refused=mine; Path=/; Secure\nrefused=mine\ntheme=light; Path=/\nplain=1"; got != want {
		t.Errorf("cookies of a sandbox:\n%s\nwanted\n%s", got, want)
	}
}

// requireClosed fails the test if anybody but its owner gets to the sandbox of ann, or wakes it.
func (d *loginSites) requireClosed(t *testing.T, id string) {
	t.Helper()
	stranger := d.visitor(t)
	if a := stranger.get(t, id, "/headers", asPage); a.status != http.StatusFound || !strings.HasPrefix(a.header.Get("Location"), d.address("login.example.com")+"/login") {
		t.Errorf("a navigation without a session: %s", a)
	}
	for name, change := range map[string]func(*http.Request){
		"a fetch":                        func(*http.Request) {},
		"a handshake":                    askUpgrade,
		"a session of nobody's":          func(r *http.Request) { r.Header.Set("Cookie", "__Host-session=guessed") },
		"an identity of the visitor's":   func(r *http.Request) { r.Header.Set("X-Auth-User", "ann") },
		"Authorization of the visitor's": func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) },
	} {
		if a := stranger.get(t, id, "/headers", change); a.status != http.StatusUnauthorized {
			t.Errorf("%s: %s", name, a)
		}
	}
	bob := d.visitor(t)
	bob.login(t, "bob", id)
	if a := bob.get(t, id, "/headers", asPage); a.status != http.StatusForbidden {
		t.Errorf("another's sandbox: %s", a)
	}
	if a := stranger.at(t, envdHost(id), "/health"); a.status != http.StatusNotFound {
		t.Errorf("the port for SDKs: %s", a)
	}
	d.requireAsleep(t, id)
}

// asPage is a browser's navigation.
func asPage(r *http.Request) { r.Header.Set("Accept", "text/html") }

func askUpgrade(r *http.Request) {
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

func appHost(id string) string  { return fmt.Sprintf("%d-%s.example.net", appPort, id) }
func envdHost(id string) string { return "49983-" + id + ".example.net" }

// loginSites is a Sandman with the sites of the documentation.
type loginSites struct {
	*sandman
	tls int // their port
}

// docSites are the sites of a page's first whole Caddyfile.
func docSites(t *testing.T, page string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(repository, "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?m)^```caddyfile\n((?s:\\{.*?))^```$").FindSubmatch(content)
	if block == nil {
		t.Fatalf("%s has no Caddyfile with global options", page)
	}
	_, sites, _ := strings.Cut(string(block[1]), "\n}\n")
	return sites
}

// The site for SDKs leads to their port and nowhere else.
func TestDocs_theSiteForSDKs(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	sites := strings.NewReplacer(
		"sandbox.example.net {", fmt.Sprintf("http://sandbox.example.net:%d {\n\tbind 127.0.0.1", port),
		"e2b.example.com {", fmt.Sprintf("http://e2b.example.com:%d {\n\tbind 127.0.0.1", port),
	).Replace(docSites(t, "sdk.md"))
	s := start(t, options{caddyfile: strings.NewReplacer("http://:{$SANDMAN_PORT:8080} {", sites+"\nhttp://:{$SANDMAN_PORT:8080} {")})
	ask := func(host, path, id string, ports ...string) answer {
		r := newRequest(t, http.MethodGet, local(port)+path, nil)
		r.Host = host
		r.Header.Set("X-API-Key", apiKey)
		if id != "" {
			r.Header.Set("E2b-Sandbox-Id", id)
		}
		r.Header["E2b-Sandbox-Port"] = ports
		return (&e2b{http: http.DefaultClient}).mustDo(t, r)
	}
	id, _ := s.startAppIn(t)
	if a := ask("sandbox.example.net", "/health", id, "49983"); a.status != http.StatusNoContent {
		t.Errorf("the port for SDKs: %s", a)
	}
	for _, ports := range [][]string{{"8080"}, nil, {"8080", "49983"}, {"49983, 8080"}, {"049983"}} {
		if a := ask("sandbox.example.net", "/state", id, ports...); a.status != http.StatusNotFound && a.status != http.StatusBadRequest {
			t.Errorf("ports %q: %s", ports, a)
		}
	}
	a := ask("e2b.example.com", "/sandboxes/"+id, "")
	if a.status != http.StatusOK || !strings.Contains(a.body, `"domain":"example.net"`) {
		t.Errorf("the E2B API: %s", a)
	}
}

// startLoginSites takes the sites out of the page as they are, but for what can't be had here: names in
// the DNS, a port below 1024, a certificate of the world's.
func startLoginSites(t *testing.T) *loginSites {
	t.Helper()
	sites := docSites(t, "tls-and-login.md")
	d := &loginSites{tls: freePort(t)}
	l := &loginService{codes: map[string]grant{}, sessions: map[string]grant{}, loginAt: d.address("login.example.com")}
	server := httptest.NewServer(l.handler())
	t.Cleanup(server.Close)
	sites = strings.NewReplacer(
		"tls {\n\t\tdns cloudflare {env.CLOUDFLARE_API_TOKEN}\n\t}", "tls internal",
		"127.0.0.1:9091", strings.TrimPrefix(server.URL, "http://"),
		"login.example.com {", fmt.Sprintf("login.example.com:%d {\n\tbind 127.0.0.1\n\ttls internal", d.tls),
		"sandman.example.com {", fmt.Sprintf("sandman.example.com:%d {\n\tbind 127.0.0.1\n\ttls internal", d.tls),
		"*.example.net {", fmt.Sprintf("*.example.net:%d {\n\tbind 127.0.0.1", d.tls),
	).Replace(sites)
	d.sandman = start(t, options{caddyfile: strings.NewReplacer(
		"http://:{$SANDMAN_PORT:8080} {", sites+"\nhttp://:{$SANDMAN_PORT:8080} {",
		"persist_config off", ownCertificates,
		"token admin admin", "token login viewer "+loginToken+"\n\t\ttoken admin admin", //nolint:dupword // names and their roles
	)})
	l.api = d.url + "/api/v1"
	v := d.visitor(t)
	for _, host := range []string{"login.example.com", appHost("none"), "sandman.example.com"} {
		eventually(t, readyWithin, "a certificate of "+host, func() bool {
			_, err := (&e2b{http: v.http}).do(newRequest(t, http.MethodGet, d.address(host)+"/", nil))
			return err == nil
		})
	}
	return d
}

func (d *loginSites) address(host string) string { return fmt.Sprintf("https://%s:%d", host, d.tls) }

func (d *loginSites) requireAsleep(t *testing.T, id string) {
	t.Helper()
	if r := d.record(t, id); r.State != "PAUSED" || r.Totals.Wakes != 0 {
		t.Errorf("visitors who may not enter have woken sandbox %s: %+v", id, r)
	}
}

// requireClean fails the test unless the sandbox was told who comes, and nothing of the login.
func (d *loginSites) requireClean(t *testing.T, a answer, v *loginVisitor, cookies ...string) {
	t.Helper()
	var got http.Header
	if a.status != http.StatusOK || json.Unmarshal([]byte(a.body), &got) != nil {
		t.Fatalf("wanted the headers that the sandbox got: %s", a)
	}
	if user := got.Values("X-Auth-User"); len(user) != 1 || user[0] != v.name {
		t.Errorf("the sandbox was told that %q comes", user)
	}
	if auth := got.Values("Authorization"); auth != nil {
		t.Errorf("the sandbox got Authorization: %q", auth)
	}
	if strings.Contains(a.body, "__Host-") || v.secret != "" && strings.Contains(a.body, v.secret) {
		t.Errorf("the sandbox got the session: %s", a.body)
	}
	for _, want := range cookies {
		if !strings.Contains(strings.Join(got.Values("Cookie"), "; "), want) {
			t.Errorf("the app's own cookie %s did not reach it: %q", want, got.Values("Cookie"))
		}
	}
}

// loginVisitor is somebody's browser.
type loginVisitor struct {
	d      *loginSites
	http   *http.Client
	name   string // as whom it has logged in
	secret string // its session
}

func (d *loginSites) visitor(t *testing.T) *loginVisitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &loginVisitor{d: d, http: &http.Client{
		Jar: jar,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", d.tls))
			},
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // a CA of the test's own
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	t.Cleanup(v.http.CloseIdleConnections)
	return v
}

func (v *loginVisitor) at(t *testing.T, host, path string) answer {
	t.Helper()
	return (&e2b{http: v.http}).mustDo(t, newRequest(t, http.MethodGet, v.d.address(host)+path, nil))
}

func (v *loginVisitor) get(t *testing.T, id, path string, change func(*http.Request)) answer {
	t.Helper()
	r := newRequest(t, http.MethodGet, v.d.address(appHost(id))+path, nil)
	change(r)
	return (&e2b{http: v.http}).mustDo(t, r)
}

// login goes the way of a browser: to the sandbox, to the login, back by the callback.
func (v *loginVisitor) login(t *testing.T, name, id string) {
	t.Helper()
	v.name = name
	a := v.get(t, id, "/headers", asPage)
	form, err := url.Parse(a.header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	query := form.Query()
	query.Set("user", name)
	form.RawQuery = query.Encode()
	a = (&e2b{http: v.http}).mustDo(t, newRequest(t, http.MethodPost, form.String(), nil))
	a = (&e2b{http: v.http}).mustDo(t, newRequest(t, http.MethodGet, a.header.Get("Location"), nil))
	if a.status != http.StatusSeeOther {
		t.Fatalf("logging in as %s: %s", name, a)
	}
	v.secret = v.session(t, id)
	if again := (&e2b{http: v.d.visitor(t).http}).mustDo(t, newRequest(t, http.MethodGet, a.header.Get("X-Test-Code"), nil)); again.status != http.StatusForbidden {
		t.Errorf("a code was good twice: %s", again)
	}
}

func (v *loginVisitor) session(t *testing.T, id string) string {
	t.Helper()
	u, err := url.Parse(v.d.address(appHost(id)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range v.http.Jar.Cookies(u) {
		if c.Name == "__Host-session" {
			return c.Value
		}
	}
	t.Fatal("the browser has no session")
	return ""
}

func (v *loginVisitor) requireEcho(t *testing.T, id string) {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), v.d.address(appHost(id))+"/ws", &websocket.DialOptions{HTTPClient: v.http})
	if err != nil {
		t.Fatalf("opening a WebSocket with a session: %v", err)
	}
	defer c.CloseNow()
	requireEcho(t, c, "inside")
}

const loginToken = "test-login-token-0123456789abcdef"

// grant is who may go where.
type grant struct{ user, host string }

// loginService is the login. It believes whatever name it is told.
type loginService struct {
	loginAt, api string

	mu              sync.Mutex // guards the following fields
	codes, sessions map[string]grant
}

func (l *loginService) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", l.login)
	mux.HandleFunc("GET /.login/callback", l.callback)
	mux.HandleFunc("/verify", l.verify)
	return mux
}

func (l *loginService) login(w http.ResponseWriter, r *http.Request) {
	to, err := url.Parse(r.FormValue("to"))
	if err != nil || !strings.HasSuffix(to.Hostname(), ".example.net") {
		http.Error(w, "not from here", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	l.mu.Lock()
	l.codes[code] = grant{r.FormValue("user"), to.Host}
	l.mu.Unlock()
	back := url.URL{Scheme: "https", Host: to.Host, Path: "/.login/callback", RawQuery: url.Values{"code": {code}, "to": {to.RequestURI()}}.Encode()}
	http.Redirect(w, r, back.String(), http.StatusSeeOther)
}

func (l *loginService) callback(w http.ResponseWriter, r *http.Request) {
	code := r.FormValue("code")
	l.mu.Lock()
	g, ok := l.codes[code]
	delete(l.codes, code)
	session := rand.Text()
	if ok && g.host == r.Host {
		l.sessions[session] = g
	}
	l.mu.Unlock()
	if !ok || g.host != r.Host {
		http.Error(w, "no such code", http.StatusForbidden)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: "__Host-session", Value: session, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	w.Header().Set("X-Test-Code", "https://"+r.Host+r.URL.RequestURI())
	to := r.FormValue("to")
	if !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") {
		to = "/"
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (l *loginService) verify(w http.ResponseWriter, r *http.Request) {
	host := r.Header.Get("X-Forwarded-Host")
	var g grant
	if c, err := r.Cookie("__Host-session"); err == nil {
		l.mu.Lock()
		g = l.sessions[c.Value]
		l.mu.Unlock()
	}
	switch {
	case g.host == host && g.user != "" && l.owner(r.Context(), host) == g.user:
		w.Header().Set("X-Auth-User", g.user)
	case g.host == host && g.user != "":
		w.WriteHeader(http.StatusForbidden)
	case strings.HasPrefix(r.Header.Get("Accept"), "text/html"):
		to := "https://" + host + r.Header.Get("X-Forwarded-Uri")
		http.Redirect(w, r, l.loginAt+"/login?to="+url.QueryEscape(to), http.StatusFound)
	default:
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// owner asks Sandman whose sandbox it is.
func (l *loginService) owner(ctx context.Context, host string) string {
	label, _, _ := strings.Cut(host, ".")
	_, id, _ := strings.Cut(label, "-")
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.api+"/sandboxes/"+id, nil)
	if err != nil {
		return ""
	}
	r.Header.Set("Authorization", "Bearer "+loginToken)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	var sb struct {
		Owner string `json:"owner"`
	}
	_ = json.NewDecoder(res.Body).Decode(&sb)
	return sb.Owner
}
