package demo_test

import (
	"context"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/sandman-proxy/sandman/internal/demo"
)

func TestPage_allThatItNamesIsServedByItself(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	page := e.do(t, http.MethodGet, "/", "").want(t, http.StatusOK)
	if !strings.Contains(page.header.Get("Content-Security-Policy"), "default-src 'self'") {
		t.Errorf("its policy is %q", page.header.Get("Content-Security-Policy"))
	}
	seen := map[string]bool{}
	for queue := links(page.body); len(queue) > 0; queue = queue[1:] {
		link := queue[0]
		if seen[link] {
			continue
		}
		seen[link] = true
		if !strings.HasPrefix(link, "/") {
			t.Errorf("it loads %s from elsewhere", link)
			continue
		}
		a := e.do(t, http.MethodGet, link, "").want(t, http.StatusOK)
		if strings.HasSuffix(link, "js") {
			if typ := a.header.Get("Content-Type"); !strings.HasPrefix(typ, "text/javascript") {
				t.Errorf("%s has the type %q, with which no browser runs it", link, typ)
			}
			if !strings.Contains(link, "vendor") {
				queue = append(queue, links(a.body)...)
			}
		}
		tag := a.header.Get("Etag")
		if tag == "" || e.do(t, http.MethodGet, link, "", "If-None-Match", tag).status != http.StatusNotModified {
			t.Errorf("%s is loaded again although a browser has it", link)
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d files were found in the page", len(seen))
	}
	e.do(t, http.MethodGet, "/doc.go", "").want(t, http.StatusNotFound)
}

var linkPattern = regexp.MustCompile(`(?:(?:src|href)="|from ')([^"'#]+)["']`)

func links(page string) []string {
	var found []string
	for _, m := range linkPattern.FindAllStringSubmatch(page, -1) {
		found = append(found, strings.Replace(m[1], "./", "/", 1))
	}
	return found
}

func TestEditor_answersOnlyItsOwnNames(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	own := "0-" + sandboxID // the port of its configuration is 0
	for _, host := range []string{own + ".localhost:8080", strings.ToUpper(own) + ".sandbox.example.com", "localhost:8080", "[::1]:8080"} {
		e.do(t, http.MethodGet, "/api/state", "", "Host", host).want(t, http.StatusOK)
	}
	for _, host := range []string{"rebound.example.com", "0-iother.localhost:8080", "3000-" + sandboxID + ".localhost"} {
		e.do(t, http.MethodGet, "/api/state", "", "Host", host).want(t, http.StatusMisdirectedRequest)
	}
}

func TestEditor_otherPagesCanChangeNothing(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	for name, headers := range map[string][]string{
		"another site":           {"Origin", "https://example.com"},
		"another sandbox":        {"Origin", "http://8080-iother.localhost:8080", "Sec-Fetch-Site", "same-site"},
		"an image or a form":     {"Sec-Fetch-Site", "cross-site"},
		"a page without address": {"Origin", "null"},
	} {
		for _, change := range [][2]string{
			{http.MethodPost, "/api/count"},
			{http.MethodPut, "/api/file?path=evil.sh"},
			{http.MethodPost, "/api/rename?from=hello.py&to=x"},
			{http.MethodDelete, "/api/file?path=hello.py"},
		} {
			if a := e.do(t, change[0], change[1], "x", headers...); a.status != http.StatusForbidden {
				t.Errorf("%s was allowed %s %s: %s", name, change[0], change[1], a)
			}
		}
		a := e.do(t, http.MethodGet, "/api/files", "", headers...)
		if allowed := a.header.Get("Access-Control-Allow-Origin"); allowed != "" {
			t.Errorf("%s may read answers: %s", name, allowed)
		}
	}
	if s := e.do(t, http.MethodGet, "/api/state", "").state(t); s.Memory != 0 {
		t.Errorf("somebody has counted: %+v", s)
	}
}

func TestTerminal_isNotForOtherOrigins(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	for _, origin := range []string{"https://example.com", "http://8080-iother.localhost:8080", "null"} {
		_, res, err := websocket.Dial(t.Context(), e.url+"/api/terminal?page=x", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
		if err == nil || res.StatusCode != http.StatusForbidden {
			t.Errorf("a page of %s got the terminal (%v)", origin, err)
		}
	}
	c, _, err := websocket.Dial(t.Context(), e.url+"/api/terminal?page=x", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {e.url}}})
	if err != nil {
		t.Fatalf("its own page did not get the terminal: %v", err)
	}
	_ = c.CloseNow()
}

func TestRun_saysWhatIsMissing(t *testing.T) {
	t.Parallel()
	if err := demo.Run(context.Background(), demo.Config{IP: "127.0.0.1", Home: "/no/such/home"}, os.Stderr); err == nil || !strings.Contains(err.Error(), "/no/such/home") {
		t.Errorf("a home that is not there: %v", err)
	}
	if err := demo.Run(context.Background(), demo.Config{IP: "203.0.113.1", Home: t.TempDir()}, os.Stderr); err == nil || !strings.Contains(err.Error(), "203.0.113.1") {
		t.Errorf("an address that is not ours: %v", err)
	}
}

func TestFromEnvironment_wantsASandbox(t *testing.T) {
	for name, env := range map[string][2]string{"no address": {"", "/home"}, "no home": {"127.0.0.1", ""}, "a name": {"localhost", "/home"}} {
		t.Setenv("SANDBOX_IP", env[0])
		t.Setenv("HOME", env[1])
		if c, err := demo.FromEnvironment(8080); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
	t.Setenv("SANDBOX_IP", "127.64.0.9")
	t.Setenv("HOME", "/home/x")
	t.Setenv("E2B_SANDBOX_ID", "iabc")
	want := demo.Config{IP: "127.64.0.9", Port: 8080, Home: "/home/x", SandboxID: "iabc"}
	if c, err := demo.FromEnvironment(8080); err != nil || c != want {
		t.Errorf("got %+v, %v", c, err)
	}
}
