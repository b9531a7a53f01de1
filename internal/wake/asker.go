package wake

import (
	"cmp"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// Asker is who sends a request, as far as its headers tell. What it is not sure
// of it takes for somebody who may wake: a person who is refused is lost, a
// forgotten tab costs minutes.
type Asker uint8

// The kinds of askers.
const (
	// Program is what is no browser: an SDK, curl, another server.
	Program Asker = iota
	// ProgramSocket is a program's WebSocket handshake.
	ProgramSocket
	// Navigation is a page that a person opens, or that another page shows in a
	// frame.
	Navigation
	// Reload is a page that a script opens again. It was loaded before.
	Reload
	// PageRequest is what a page asks for: a script, an image, a fetch.
	PageRequest
	// PageSocket is a browser's WebSocket handshake.
	PageSocket
	// EventSource is a browser's stream of server-sent events.
	EventSource
	// Prefetch is what a browser loads in case that somebody wants it.
	Prefetch
	// Favicon is the icon of a tab or a bookmark.
	Favicon
	// CrossSite is what another site's page shows of this one, such as an image.
	CrossSite
	// Bot is a crawler, a link preview or a monitor.
	Bot
	// WorkerScript is a service worker's script, which a browser loads again by
	// itself.
	WorkerScript
	// Message is no request, but what came on a stream that was open at the pause,
	// and no rule calls noise.
	Message
)

func (a Asker) String() string {
	return [...]string{
		Program: "program", ProgramSocket: "program's WebSocket",
		Navigation: "navigation", Reload: "scripted reload", PageRequest: "page's request",
		PageSocket: "page's WebSocket", EventSource: "EventSource",
		Prefetch: "prefetch", Favicon: "favicon", CrossSite: "cross-site request", Bot: "bot",
		WorkerScript: "service worker's script", Message: "message on an open stream",
	}[a]
}

// Reconnects tells whether a page asks that was loaded before: had it been
// loaded since the pause, its navigation would have woken the sandbox.
func (a Asker) Reconnects() bool { return a == Reload || a == PageSocket || a == EventSource }

// Shakes tells whether it is a WebSocket handshake.
func (a Asker) Shakes() bool { return a == PageSocket || a == ProgramSocket }

// ShowsPages tells whether HTML is shown to a person. To anything else it is
// rubbish, and to a cache or a service worker poison.
func (a Asker) ShowsPages() bool { return a == Navigation || a == Reload }

// AskerOf tells who sends the request, by its method, path and headers alone.
//
// Chromium sends no Sec-Fetch-* with a WebSocket handshake, and none at all over
// plain http to other hosts than localhost. Firefox sends them with handshakes,
// too. Safari before 16.4 sends none. So their absence means nothing:
//
//	handshake      Upgrade, or an extended CONNECT; a browser's has an Origin or a Mozilla user agent
//	navigation     Sec-Fetch-Mode: navigate; else Accept: text/html and Upgrade-Insecure-Requests
//	reload         a navigation of the same origin without Sec-Fetch-User: no gesture led to it
//	EventSource    a browser's GET that accepts text/event-stream and nothing else
func AskerOf(r *http.Request) Asker {
	browser := isBrowser(r.Header)
	switch {
	case isHandshake(r):
		if browser {
			return PageSocket
		}
		return ProgramSocket
	case isBot(r.UserAgent()):
		return Bot
	case isPrefetch(r.Header):
		return Prefetch
	case r.Header.Get("Service-Worker") == "script", r.Header.Get("Sec-Fetch-Dest") == "serviceworker":
		return WorkerScript
	case isNavigation(r):
		if isScripted(r) {
			return Reload
		}
		return Navigation
	case isFavicon(r):
		return Favicon
	case !browser:
		return Program
	case isForeign(r):
		return CrossSite
	case r.Method == http.MethodGet && r.Header.Get("Accept") == "text/event-stream":
		return EventSource
	}
	return PageRequest
}

// isBrowser goes by what no program sends unless it wants to be taken for one.
func isBrowser(h http.Header) bool {
	return h.Get("Origin") != "" || h.Get("Sec-Fetch-Mode") != "" || h.Get("Sec-Fetch-Site") != "" ||
		strings.HasPrefix(h.Get("User-Agent"), "Mozilla/")
}

// isHandshake tells whether a WebSocket is to be opened, by any version of HTTP:
// RFC 6455, 8441, 9220. Go's servers show :protocol as a header (HTTP/2) or in
// Proto (HTTP/3).
func isHandshake(r *http.Request) bool {
	if r.Method == http.MethodConnect {
		return r.Header.Get(":protocol") == "websocket" || r.Proto == "websocket"
	}
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// isPrefetch knows today's header (prefetch, prerender) and those that browsers
// sent before it: Purpose, X-Purpose of Safari's previews, X-Moz of Firefox.
func isPrefetch(h http.Header) bool {
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		switch v, _, _ := strings.Cut(strings.ToLower(h.Get(name)), ";"); v {
		case "prefetch", "prerender", "preview":
			return true
		}
	}
	return false
}

// isNavigation tells whether a page is opened. Without Sec-Fetch-Mode a browser
// is known by Upgrade-Insecure-Requests: scripts that fetch HTML, as htmx does,
// can't send it. What pretends to be no browser has no scripts.
func isNavigation(r *http.Request) bool {
	h := r.Header
	if mode := h.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost, !strings.Contains(h.Get("Accept"), "text/html"):
		return false
	case h.Get("Upgrade-Insecure-Requests") == "1":
		return true
	}
	return r.Method != http.MethodPost && !isBrowser(h) && strings.HasPrefix(h.Get("Accept"), "text/html")
}

// isScripted tells whether no person is behind a navigation. A frame belongs to
// a page that is being opened.
func isScripted(r *http.Request) bool {
	h := r.Header
	return r.Method == http.MethodGet && h.Get("Sec-Fetch-Site") == "same-origin" && h.Get("Sec-Fetch-User") == "" &&
		h.Get("Sec-Fetch-Dest") == "document"
}

// isFavicon goes by the names that browsers and crawlers try unasked, and that
// pages give their icons.
func isFavicon(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if dest := r.Header.Get("Sec-Fetch-Dest"); dest != "" && dest != "image" && dest != "empty" {
		return false
	}
	name := strings.ToLower(path.Base(r.URL.Path))
	for _, prefix := range []string{"favicon.", "favicon-", "apple-touch-icon", "android-chrome-", "mstile-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "browserconfig.xml"
}

// isForeign tells whether a page of somebody else shows what it can't read:
// any page could wake a sandbox in that way, by a beacon as well as by an image.
// What crosses origins by CORS the app may want. Sandboxes are each other's sites, but the
// ports of one sandbox are one app.
func isForeign(r *http.Request) bool {
	h := r.Header
	if mode := h.Get("Sec-Fetch-Mode"); mode != "" {
		site := h.Get("Sec-Fetch-Site")
		return mode == "no-cors" && (site == "cross-site" || site == "same-site") && !sameSandbox(r)
	}
	return h.Get("Origin") == "" && h.Get("Referer") != "" && !sameSandbox(r)
}

// sameSandbox tells whether the page that asks came from the same address, or
// from another port of the same sandbox: {port}-{sandboxID}.
func sameSandbox(r *http.Request) bool {
	page, err := url.Parse(cmp.Or(r.Header.Get("Referer"), r.Header.Get("Origin")))
	if err != nil {
		return false
	}
	_, ours, ok := strings.Cut(r.Host, "-")
	_, theirs, _ := strings.Cut(page.Host, "-")
	return strings.EqualFold(page.Host, r.Host) || ok && strings.EqualFold(ours, theirs)
}

// bots are parts of user agents, in small letters: what crawlers, link previews
// and monitors call themselves in their operators' documentation, and what most
// others have in common. Fetchers that act for a person (ChatGPT-User) are none,
// nor are libraries that programs are written with.
//
// Source: https://github.com/monperrus/crawler-user-agents
var bots = []string{
	"bot/", "bot;", "bot)", "-bot", "googlebot", "google-inspectiontool", "googleother", "apis-google", "mediapartners-google",
	"crawler", "spider", "bingpreview", "yahoo! slurp", "baiduspider", "duckduckgo-favicons", "yandex.com/bots", "archive.org_bot",
	"facebookexternalhit", "meta-externalagent", "whatsapp/", "slackbot", "slack-imgproxy", "telegrambot", "discordbot",
	"twitterbot", "linkedinbot", "skypeuripreview", "embedly", "iframely", "mastodon/", "gptbot", "claudebot", "ccbot",
	"uptimerobot", "pingdom", "statuscake", "site24x7", "better uptime", "datadogsynthetics", "newrelicpinger", "uptime-kuma",
	"googlehc/", "elb-healthchecker", "kube-probe", "blackbox exporter", "google-read-aloud", "chrome-lighthouse",
	"censysinspect", "expanse", "zgrab", "masscan", "nuclei", "internet-measurement", "l9explore",
}

func isBot(agent string) bool {
	agent = strings.ToLower(agent)
	for _, b := range bots {
		if strings.Contains(agent, b) {
			return true
		}
	}
	return false
}
