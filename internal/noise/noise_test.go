package noise_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/noise"
)

func get(path string) *http.Request { return httptest.NewRequest(http.MethodGet, path, nil) }

func newSet(t testing.TB, rules ...noise.Rule) *noise.Set {
	t.Helper()
	set, err := noise.New(noise.Config{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func stream(t testing.TB, path, subprotocol string) *noise.Stream {
	t.Helper()
	return newSet(t).Stream(get(path), subprotocol)
}

func TestPresets_judgeMessages(t *testing.T) {
	t.Parallel()
	const (
		kernel   = "/user/a/api/kernels/98455b56/channels?session_id=9f01"
		next     = "/docs/_next/webpack-hmr"
		socketIO = "/wetty/socket.io/?EIO=4&transport=websocket&sid=x"
		engineIO = "/term/?EIO=4&transport=websocket"
	)
	tests := []struct {
		path, subprotocol, preset, payload string
		want                               noise.Verdict
	}{
		{kernel, "", "jupyter", `{"header":{"msg_id":"1","msg_type":"kernel_info_request"},"parent_header":{}}`, noise.Noise},
		{kernel, "", "jupyter", `{"header":{"msg_type": "comm_info_request"}}`, noise.Noise},
		{kernel, "", "jupyter", `{"header":{"msg_type":"execute_request"},"content":{"code":"\"msg_type\":\"kernel_info_request\""}}`, noise.Counts},
		{kernel, "", "jupyter", `{"content":{"msg_type":"kernel_info_request"},"header":{"msg_type":"execute_request"}}`, noise.Counts},
		{kernel, "", "jupyter", `{"header":{"msg_type":7}}`, noise.Counts},
		{kernel, "", "jupyter", `{"header":{"msg_type":"kernel_info_request`, noise.Counts},
		{"/?token=a", "vite-hmr", "vite", `{"type":"ping"}`, noise.Noise},
		{"/?token=a", "vite-hmr", "vite", `{"type":"custom","event":"a"}`, noise.Counts},
		{"/?token=a", "", "", `{"type":"ping"}`, noise.Counts},
		{next, "", "next", `{"event":"ping","tree":[],"appDirRoute":true}`, noise.Noise},
		{next, "", "next", `{"event":"server-component-reload-page","clientId":1}`, noise.Noise},
		{next, "", "next", `{"event":"client-hmr-latency"}`, noise.Noise},
		{next, "", "next", `{"event":"pinged"}`, noise.Counts},
		{next, "", "next", `{"a":"b"}`, noise.Counts},
		{socketIO, "", "socket.io", "3", noise.Swallow},
		{socketIO, "", "socket.io", "2", noise.Noise},
		{socketIO, "", "socket.io", "2probe", noise.Noise},
		{socketIO, "", "socket.io", "5", noise.Noise},
		{socketIO, "", "socket.io", "40", noise.Noise},
		{socketIO, "", "socket.io", `40/chat,{"token":"a"}`, noise.Noise},
		{socketIO, "", "socket.io", `42["input","l"]`, noise.Counts},
		{socketIO, "", "socket.io", "430[1]", noise.Counts},
		{socketIO, "", "socket.io", "", noise.Counts},
		{engineIO, "", "socket.io", "3", noise.Swallow},
		{engineIO, "", "socket.io", "40", noise.Counts}, // the key 0
		{"/pty", "", "", "3", noise.Counts},
		{"/ws", "", "", "", noise.Counts},
	}
	for _, tt := range tests {
		s := stream(t, tt.path, tt.subprotocol)
		if s.Preset() != tt.preset {
			t.Errorf("%s: preset %q, want %q", tt.path, s.Preset(), tt.preset)
		}
		if got := s.Judge(text(tt.payload)); got != tt.want {
			t.Errorf("%s: %q: %v, want %v", tt.path, tt.payload, got, tt.want)
		}
		if got := s.Judge(noise.Message{Binary: true, Payload: []byte(tt.payload)}); tt.preset != "jupyter" && got != noise.Counts {
			t.Errorf("%s: %q as binary: %v", tt.path, tt.payload, got)
		}
		if got := s.Judge(noise.Message{Size: 1}); got != noise.Counts {
			t.Errorf("%s: unreadable: %v", tt.path, got)
		}
	}
}

// with makes a request of a line and headers.
func with(method, path string, length int64, headers ...string) *http.Request {
	r := httptest.NewRequest(method, path, nil)
	r.ContentLength = length
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func TestPresets_judgeRequests(t *testing.T) {
	t.Parallel()
	const stamp = "1732480000000"
	form := []string{"Cache-Control", "no-cache", "Content-Type", "application/x-www-form-urlencoded; charset=utf-8", "Accept", "*/*"}
	tests := []struct {
		name string
		r    *http.Request
		want string // how the rule begins; "" for a request that counts
	}{
		{"JupyterLab's kernels", with("GET", "/user/a/api/kernels?"+stamp, 0), "jupyter"},
		{"JupyterLab's kernel", with("GET", "/api/kernels/432b?"+stamp, 0), "jupyter"},
		{"notebook's sessions", with("GET", "/api/sessions?_="+stamp, 0), "jupyter"},
		{"notebook's folder", with("GET", "/api/contents/a/b?type=directory&_="+stamp, 0), "jupyter"},
		{"JupyterLab's folder", with("GET", "/api/contents?content=1&hash=0&"+stamp, 0), "jupyter"},
		{"a program's kernels", with("GET", "/api/kernels", 0), ""},
		{"a kernel that is started", with("POST", "/api/kernels?"+stamp, 10), ""},
		{"a kernel's channels", with("GET", "/api/kernels/432b/channels?session_id=1", 0), ""},
		{"a notebook that is opened", with("GET", "/api/contents/nb.ipynb?type=notebook&content=1&"+stamp, 0), ""},
		{"auto save asks", with("GET", "/api/contents/nb.ipynb?content=0&_="+stamp, 0), ""},
		{"auto save", with("PUT", "/api/contents/nb.ipynb", 492), ""},
		{"vite's ping", with("GET", "/", 0, "Sec-Websocket-Protocol", "vite-ping", "Upgrade", "websocket"), "vite"},
		{"old vite's ping", with("GET", "/", 0, "Accept", "text/x-vite-ping"), "vite"},
		{"vite's stream", with("GET", "/?token=a", 0, "Sec-Websocket-Protocol", "vite-hmr"), ""},
		{"polling", with("GET", "/socket.io/?EIO=4&transport=polling&t=abc&sid=a", 0), "socket.io"},
		{"polling, anew", with("GET", "/socket.io/?EIO=4&transport=polling&t=abc", 0), "socket.io"},
		{"polling, pong", with("POST", "/socket.io/?EIO=4&transport=polling&t=abc&sid=a", 1), "socket.io"},
		{"polling, connect", with("POST", "/socket.io/?EIO=4&transport=polling&t=abc&sid=a", 2), "socket.io"},
		{"polling, ping of version 3", with("POST", "/x/?EIO=3&transport=polling&sid=a", 3), "socket.io"},
		{"polling, a key", with("POST", "/socket.io/?EIO=4&transport=polling&t=abc&sid=a", 16), ""},
		{"polling, a key 0 of engine.io", with("POST", "/term/?EIO=4&transport=polling&sid=a", 2), ""},
		{"polling, of unknown length", with("POST", "/socket.io/?EIO=4&transport=polling&sid=a", -1), ""},
		{"socket.io's stream", with("GET", "/socket.io/?EIO=4&transport=websocket&sid=a", 0), ""},
		{"shellinabox", with("POST", "/?", 50, form...), "shellinabox"},
		{"shellinabox, a key", with("POST", "/?", 60, form...), ""},
		{"a form", with("POST", "/", 50, form...), ""},
		{"a form that is sent by a person", with("POST", "/?", 50, slices.Concat(form, []string{"Accept", "text/html,*/*"})...), ""},
		{"service worker", with("GET", "/sw.js", 0, "Service-Worker", "script"), "browser"},
		{"favicon", with("GET", "/static/favicon-notebook.ico", 0, "Accept", "image/avif"), "browser"},
		{"a page", with("GET", "/", 0, "Accept", "text/html"), ""},
	}
	set := newSet(t)
	for _, tt := range tests {
		rule, isNoise := set.Request(tt.r)
		if isNoise != (tt.want != "") || !strings.HasPrefix(rule, tt.want) {
			t.Errorf("%s: rule %q, noise %t; want %q", tt.name, rule, isNoise, tt.want)
		}
		if got, want := set.Reopens(tt.r), tt.name == "polling, anew"; got != want {
			t.Errorf("%s: reopens: %t", tt.name, got)
		}
	}
}

func TestJupyter_aFolderThatIsOpenedIsNoPoll(t *testing.T) {
	t.Parallel()
	now := noon
	set, err := noise.New(noise.Config{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	folder := func(path string, headers ...string) *http.Request {
		return with("GET", "/api/contents"+path+"?type=directory&_=1732480000000", 0, headers...)
	}
	steps := []struct {
		name  string
		after time.Duration
		r     *http.Request
		want  bool
	}{
		{"just started: it can't be known", time.Minute, folder(""), true},
		{"a poll", 9 * time.Minute, folder(""), true},
		{"a folder is opened", time.Minute, folder("/a"), false},
		{"the same request, asked about again", time.Millisecond, folder("/a"), false},
		{"its poll", time.Minute, folder("/a"), true},
		{"the poll of another tab", time.Minute, folder(""), true},
		{"another browser opens it", time.Second, folder("/a", "User-Agent", "other"), false},
		{"somebody comes back to the first folder after long", time.Hour, folder(""), false},
	}
	for _, s := range steps {
		now = now.Add(s.after)
		if _, isNoise := set.Request(s.r); isNoise != s.want {
			t.Errorf("%s: noise %t", s.name, isNoise)
		}
	}
}

func TestNew_presetsCanBeChosen(t *testing.T) {
	t.Parallel()
	set, err := noise.New(noise.Config{Presets: []string{"vite"}})
	if err != nil {
		t.Fatal(err)
	}
	if p := set.Stream(get(vscodePath), "").Preset(); p != "" {
		t.Errorf("preset %q", p)
	}
	if p := set.Stream(get("/"), "vite-hmr").Preset(); p != "vite" {
		t.Errorf("preset %q", p)
	}
	none, err := noise.New(noise.Config{Presets: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	poll := get("/socket.io/?EIO=4&transport=polling")
	if _, isNoise := none.Request(poll); isNoise || none.Reopens(poll) {
		t.Error("a preset is in use although there are none")
	}
	for _, name := range noise.Presets() {
		if _, err := noise.New(noise.Config{Presets: []string{name}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeepAlive_learnsThePeriodOfTheServer(t *testing.T) {
	t.Parallel()
	const path = "/socket.io/?EIO=4&transport=websocket"
	start := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		said []string
		gap  time.Duration
		want time.Duration
	}{
		{"nothing was seen", nil, 0, 25 * time.Second},
		{"the open packet", []string{`0{"sid":"a","pingInterval":3000,"pingTimeout":7000}`}, 0, 3 * time.Second},
		{"pings", []string{"2", "2", "2"}, 3 * time.Second, 3 * time.Second},
		{"a ping that came late", []string{"2", "2"}, 90 * time.Second, 25 * time.Second},
		{"a server that is mad", []string{"2", "2"}, time.Microsecond, time.Second},
		{"a packet that is mad", []string{`0{"pingInterval":-1}`, `0{"pingInterval":1e300}`, `0{`}, 0, 25 * time.Second},
	}
	for _, tt := range tests {
		s := stream(t, path, "")
		for i, payload := range tt.said {
			s.ObserveServer([]byte(payload), start.Add(time.Duration(i)*tt.gap))
		}
		if k := s.KeepAlive(); k == nil || *k != (noise.KeepAlive{Ping: "2", Pong: "3", Every: tt.want}) {
			t.Errorf("%s: %+v, want every %v", tt.name, k, tt.want)
		}
	}
	if s := stream(t, "/socket.io/?EIO=3&transport=websocket", ""); s.KeepAlive() != nil {
		t.Error("in version 3 it is the page that pings")
	}
}

func BenchmarkRequest(b *testing.B) {
	set := newSet(b)
	r := with("GET", "/api/items?q=1", 0, "Accept", "*/*", "Sec-Fetch-Mode", "cors", "User-Agent", "Mozilla/5.0")
	b.ReportAllocs()
	for b.Loop() {
		set.Request(r)
	}
}
