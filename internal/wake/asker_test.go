package wake_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/sandman-proxy/sandman/internal/wake"
)

const (
	chromium = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
	firefox  = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
	safari   = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/15.6 Safari/605.1.15"
	html     = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
)

// What Chromium sent to nine editors and dev servers, as it was recorded. User
// agents are not in the recordings, and without one all must be told apart, too.
func TestAskerOf_knowsWhatChromiumSends(t *testing.T) {
	t.Parallel()
	f, err := os.Open("testdata/requests.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := 0
	for in := bufio.NewScanner(f); in.Scan(); lines++ {
		var rec struct {
			From, Method, Path, Want string
			Headers                  map[string]string
		}
		if err := json.Unmarshal(in.Bytes(), &rec); err != nil {
			t.Fatal(err)
		}
		for _, agent := range []string{"", chromium} {
			r := request(rec.Method, rec.Path, rec.Headers)
			r.Header.Set("User-Agent", agent)
			if got := wake.AskerOf(r).String(); got != rec.Want {
				t.Errorf("%s: %s %s with user agent %q is taken for a %s, and is a %s; headers %v",
					rec.From, rec.Method, rec.Path, agent, got, rec.Want, rec.Headers)
			}
		}
	}
	if lines < 70 {
		t.Errorf("only %d requests were looked at", lines)
	}
}

func request(method, target string, headers map[string]string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "8080-iabc.localhost:8080"
	r.Header.Del("User-Agent")
	for name, value := range headers {
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	return r
}

func TestAskerOf(t *testing.T) {
	t.Parallel()
	type headers = map[string]string
	for _, tt := range []struct {
		name, method, path string
		headers            headers
		want               wake.Asker
	}{
		{"curl", "GET", "/", headers{"User-Agent": "curl/8.5.0", "Accept": "*/*"}, wake.Program},
		{"a program without a word", "GET", "/", nil, wake.Program},
		{"an SDK's call", "POST", "/process.Process/Start", headers{"User-Agent": "connect-es/2.0", "Content-Type": "application/connect+json"}, wake.Program},
		{"a program that reads events", "GET", "/events", headers{"Accept": "text/event-stream", "User-Agent": "python-httpx/0.28"}, wake.Program},
		{"a program's handshake", "GET", "/ws", headers{"Upgrade": "websocket", "User-Agent": "Go-http-client/1.1"}, wake.ProgramSocket},
		{"a program's handshake with an Origin", "GET", "/ws", headers{"Upgrade": "WebSocket", "Origin": "http://localhost"}, wake.PageSocket},
		{"HTTP/2, a program's", "CONNECT", "/ws", headers{":protocol": "websocket"}, wake.ProgramSocket},
		{"HTTP/2, Chromium's", "CONNECT", "/ws", headers{":protocol": "websocket", "Origin": "https://8080-iabc.example.com"}, wake.PageSocket},
		{"Firefox's handshake", "GET", "/ws", headers{"Upgrade": "websocket", "Sec-Fetch-Mode": "websocket", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin", "Origin": "http://x", "User-Agent": firefox}, wake.PageSocket},
		{"another upgrade", "GET", "/", headers{"Upgrade": "h2c", "User-Agent": "curl/8.5.0"}, wake.Program},

		{"typed, plain http", "GET", "/", headers{"Accept": html, "Upgrade-Insecure-Requests": "1", "User-Agent": chromium}, wake.Navigation},
		{"typed, old Safari", "GET", "/", headers{"Accept": html, "Upgrade-Insecure-Requests": "1", "User-Agent": safari}, wake.Navigation},
		{"a text browser", "GET", "/", headers{"Accept": "text/html, text/plain", "User-Agent": "Lynx/2.9.0"}, wake.Navigation},
		{"a link on another site", "GET", "/", headers{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document", "Accept": html}, wake.Navigation},
		{"a link clicked", "GET", "/b", headers{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}, wake.Navigation},
		{"a form sent", "POST", "/", headers{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "document"}, wake.Navigation},
		{"a frame", "GET", "/f", headers{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "iframe"}, wake.Navigation},
		{"an icon opened in a tab", "GET", "/favicon.ico", headers{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none", "Sec-Fetch-User": "?1"}, wake.Navigation},
		{"reloaded by script", "GET", "/", headers{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "document"}, wake.Reload},

		{"htmx, plain http", "GET", "/part", headers{"Accept": "text/html, */*", "User-Agent": chromium}, wake.PageRequest},
		{"a fetch of HTML", "GET", "/part", headers{"Accept": html, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"}, wake.PageRequest},
		{"a preflight", "OPTIONS", "/api", headers{"Origin": "http://app.example.com", "Access-Control-Request-Method": "POST"}, wake.PageRequest},
		{"CORS from another site", "GET", "/api", headers{"Origin": "http://app.example.com", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "cross-site"}, wake.PageRequest},
		{"events over fetch", "POST", "/chat", headers{"Accept": "text/event-stream", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}, wake.PageRequest},
		{"EventSource, plain http", "GET", "/events", headers{"Accept": "text/event-stream", "User-Agent": firefox}, wake.EventSource},
		{"an image, plain http", "GET", "/a.png", headers{"Accept": "image/*", "User-Agent": chromium, "Referer": "http://8080-iabc.localhost:8080/"}, wake.PageRequest},

		{"prefetch", "GET", "/", headers{"Sec-Purpose": "prefetch", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none", "Sec-Fetch-User": "?1", "Accept": html}, wake.Prefetch},
		{"prerender", "GET", "/", headers{"Sec-Purpose": "prefetch;prerender", "Sec-Fetch-Mode": "navigate", "Accept": html}, wake.Prefetch},
		{"prefetch by a proxy", "GET", "/", headers{"Sec-Purpose": "prefetch;anonymous-client-ip"}, wake.Prefetch},
		{"prefetch, older Chromium", "GET", "/", headers{"Purpose": "prefetch", "User-Agent": chromium}, wake.Prefetch},
		{"prefetch, older Firefox", "GET", "/", headers{"X-Moz": "prefetch", "User-Agent": firefox}, wake.Prefetch},
		{"preview, Safari", "GET", "/", headers{"X-Purpose": "preview", "Accept": html, "Upgrade-Insecure-Requests": "1", "User-Agent": safari}, wake.Prefetch},
		{"favicon, plain http", "GET", "/favicon.ico", headers{"Accept": "image/*", "User-Agent": chromium}, wake.Favicon},
		{"favicon, a program's", "GET", "/favicon.ico", headers{"User-Agent": "python-requests/2.32"}, wake.Favicon},
		{"home screen icon", "GET", "/apple-touch-icon-120x120-precomposed.png", headers{"User-Agent": "Safari/20622 CFNetwork/1568"}, wake.Favicon},
		{"an icon fetched by a script of the app", "POST", "/favicon.ico", headers{"Origin": "http://x"}, wake.PageRequest},
		{"a script of that name", "GET", "/favicon.js", headers{"Sec-Fetch-Dest": "script", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-origin"}, wake.PageRequest},
		{"an image on another site", "GET", "/a.png", headers{"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image", "Referer": "http://other.example.com/"}, wake.CrossSite},
		{"a beacon of another site", "POST", "/a", headers{"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "empty", "Origin": "http://other.example.com", "User-Agent": chromium}, wake.CrossSite},
		{"a beacon of another port", "POST", "/a", headers{"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "empty", "Origin": "http://3000-iabc.localhost:8080"}, wake.PageRequest},
		{"a call by CORS", "POST", "/a", headers{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "empty", "Origin": "http://other.example.com"}, wake.PageRequest},
		{"an image, no referrer", "GET", "/a.png", headers{"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}, wake.CrossSite},
		{"an image in another sandbox", "GET", "/a.png", headers{"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "image", "Referer": "http://8080-ixyz.localhost:8080/"}, wake.CrossSite},
		{"an image on another port of the sandbox", "GET", "/a.png", headers{"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image", "Referer": "http://3000-iabc.localhost:8080/"}, wake.PageRequest},
		{"an image on another site, plain http", "GET", "/a.png", headers{"Accept": "image/*", "User-Agent": chromium, "Referer": "http://other.example.com/"}, wake.CrossSite},
		{"a host without a dash", "GET", "/a.png", headers{"Host": "localhost:8080", "Accept": "image/*", "User-Agent": chromium, "Referer": "http://other:8080/"}, wake.CrossSite},
		{"a crawler", "GET", "/", headers{"User-Agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Accept": html}, wake.Bot},
		{"a link preview", "GET", "/", headers{"User-Agent": "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"}, wake.Bot},
		{"a monitor", "HEAD", "/", headers{"User-Agent": "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)"}, wake.Bot},
		{"a service worker's update", "GET", "/sw.js", headers{"Service-Worker": "script", "User-Agent": firefox}, wake.WorkerScript},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := request(tt.method, tt.path, tt.headers)
			if p := tt.headers[":protocol"]; p != "" { // as Go's HTTP/2 server shows it
				r.Header[":protocol"] = []string{p}
			}
			if got := wake.AskerOf(r); got != tt.want {
				t.Errorf("taken for a %s, and is a %s", got, tt.want)
			}
		})
	}
}

func TestAskerOf_takesNoBrowserForABot(t *testing.T) {
	t.Parallel()
	for _, agent := range []string{
		chromium, firefox, safari,
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
		"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Code/1.100.1 Chrome/132.0.0.0 Electron/34.5.1 Safari/537.36",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.8078.79 Safari/537.36",
	} {
		r := request("GET", "/", map[string]string{"User-Agent": agent, "Accept": html, "Upgrade-Insecure-Requests": "1"})
		if got := wake.AskerOf(r); got != wake.Navigation {
			t.Errorf("%s is taken for a %s", agent, got)
		}
	}
}

func FuzzAskerOf(f *testing.F) {
	f.Add("GET", "/", "Referer: http://[::1/\nAccept: text/html")
	f.Add("CONNECT", "/%zz", "Upgrade: websocket\nSec-Purpose: ;")
	f.Fuzz(func(t *testing.T, method, path, headers string) {
		r := &http.Request{Method: method, Header: http.Header{}, Host: headers, URL: httptest.NewRequest("GET", "/", nil).URL}
		r.URL.Path = path
		for line := range strings.SplitSeq(headers, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			r.Header.Add(name, value)
		}
		a := wake.AskerOf(r)
		if a.String() == "" {
			t.Errorf("an asker without a name: %d", a)
		}
		if again := wake.AskerOf(r); again != a {
			t.Errorf("a %s, then a %s", a, again)
		}
	})
}
