package noise

import (
	"bytes"
	"net/http"
	"path"
	"strings"
)

// preset is what is known of one application.
type preset struct {
	name string
	// stream tells whether r opened a stream of this application, and if so sets
	// the stream's judge and what else there is to say of it. nil: it has no streams.
	stream func(r *http.Request, subprotocol string, s *Stream) bool
	// request says in a word or two which noise r is, or "". nil: it has none.
	request func(s *Set, r *http.Request) string
}

// presets are tried in this order; the first whose stream it is has it.
var presets = []preset{
	{name: "vscode", stream: vscodeStream},
	{name: "jupyter", stream: jupyterStream, request: jupyterRequest},
	{name: "vite", stream: viteStream, request: viteRequest},
	{name: "next", stream: nextStream},
	{name: "webpack"},
	{name: "socket.io", stream: socketIOStream, request: socketIORequest},
	{name: "xterm"},
	{name: "shellinabox", request: shellinaboxRequest},
	{name: "browser", request: browserRequest},
}

// textJudge is for protocols whose messages each stand for themselves.
type textJudge func(payload []byte) bool

func (isNoise textJudge) judge(m Message) Verdict {
	if !m.Binary && m.Payload != nil && isNoise(m.Payload) {
		return Noise
	}
	return Counts
}

// Vite's page pings its server every 30 s and sends nothing else by itself.
func viteStream(_ *http.Request, subprotocol string, s *Stream) bool {
	if subprotocol != "vite-hmr" {
		return false
	}
	s.judge = textJudge(isVitePing)
	return true
}

func isVitePing(p []byte) bool { return string(p) == `{"type":"ping"}` }

// viteRequest knows the page that lost its server: it asks once a second whether
// it is back, by a handshake (since Vite 6) or by GET, and reloads itself then.
func viteRequest(_ *Set, r *http.Request) string {
	// over HTTP/2 a handshake's method is CONNECT
	if offers(r, "vite-ping") || r.Method == http.MethodGet && header(r, "Accept") == "text/x-vite-ping" {
		return "ping of a page that lost its server"
	}
	return ""
}

// offers tells whether a handshake offers the subprotocol.
func offers(r *http.Request, subprotocol string) bool {
	for _, line := range r.Header["Sec-Websocket-Protocol"] {
		for p := range strings.SplitSeq(line, ",") {
			if strings.TrimSpace(p) == subprotocol {
				return true
			}
		}
	}
	return false
}

// Next's page pings every 2.5 s, and reports what it did about the server's own
// events. Its messages are JSON with the event first.
func nextStream(r *http.Request, _ string, s *Stream) bool {
	if !strings.HasSuffix(r.URL.Path, "/_next/webpack-hmr") {
		return false
	}
	s.judge = textJudge(isNextEvent)
	return true
}

var nextEvents = [][]byte{
	[]byte(`ping"`),
	[]byte(`client-`),
	[]byte(`server-component-reload-page"`),
	[]byte(`span-end"`),
}

func isNextEvent(p []byte) bool {
	event, ok := bytes.CutPrefix(p, []byte(`{"event":"`))
	if !ok {
		return false
	}
	for _, e := range nextEvents {
		if bytes.HasPrefix(event, e) {
			return true
		}
	}
	return false
}

// shellinaboxRequest knows the page's standing request for output: a form of
// width, height and session, of 49 to 54 bytes. With a key in it, it has 57 and
// more, and the one that opens a session 60.
func shellinaboxRequest(_ *Set, r *http.Request) string {
	poll := r.Method == http.MethodPost && r.URL.RawQuery == "" && r.URL.ForceQuery &&
		r.ContentLength >= 44 && r.ContentLength <= 55 &&
		header(r, "Cache-Control") == "no-cache" && !isNavigation(r) &&
		strings.HasPrefix(header(r, "Content-Type"), "application/x-www-form-urlencoded")
	if poll {
		return "poll for output"
	}
	return ""
}

func isNavigation(r *http.Request) bool {
	return header(r, "Sec-Fetch-Mode") == "navigate" || strings.HasPrefix(header(r, "Accept"), "text/html")
}

// header returns the first value of a header whose name is written as net/http
// writes it. Every request passes here, and Header.Get would check the spelling each time.
func header(r *http.Request, canonical string) string {
	if v := r.Header[canonical]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// browserRequest knows what browsers ask for by themselves. A person's own
// navigation asks for the same, but never for that alone.
func browserRequest(_ *Set, r *http.Request) string {
	if r.Method != http.MethodGet {
		return ""
	}
	if header(r, "Service-Worker") == "script" || header(r, "Sec-Fetch-Dest") == "serviceworker" {
		return "update check of a service worker"
	}
	if strings.HasPrefix(path.Base(r.URL.Path), "favicon") && !isNavigation(r) {
		return "favicon"
	}
	return ""
}
