package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// product is a page on an origin of its own that shows badges. Its policy lets it load scripts of Sandman
// and ask Sandman, and nothing else: no style either, but its own file.
type product struct {
	*httptest.Server
	body string
}

func startProduct(t *testing.T) *product {
	t.Helper()
	p := new(product)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/style.css" {
			w.Header().Set("Content-Type", "text/css")
			_, _ = io.WriteString(w, `body { font: 16px sans-serif; padding: 2em; background: Canvas; color-scheme: light dark }
				.ours { --sandman-radius: 3px } .ours::part(state) { text-decoration: underline }`)
			return
		}
		sandman := r.URL.Query().Get("sandman")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; style-src 'self'; script-src %[1]s; connect-src %[1]s", sandman))
		_, _ = fmt.Fprintf(w, `<!doctype html><html lang="en"><title>Product</title><link rel="stylesheet" href="/style.css">
			<script type="module" src="%s/badge.js"></script><main><h1>Your project</h1>%s</main></html>`, sandman, p.body)
	}))
	t.Cleanup(p.Close)
	return p
}

func (s *sandman) badgeToken(t *testing.T, id, may string) string {
	t.Helper()
	var made struct{ Token string }
	a := s.call(t, http.MethodPost, "/sandboxes/"+id+"/tokens", `{"for":"1h","may":`+may+`}`)
	a.require(t, http.StatusCreated)
	a.decode(t, &made)
	return made.Token
}

// badge is what a badge reads, "" before there is one.
func (d dashboard) badge(t *testing.T, id string) string {
	t.Helper()
	return ask[string](t, d.browser, `return (await page.evaluate(id => document.getElementById(id).shadowRoot?.querySelector('.badge').innerText ?? '', %q)).replace(/\s+/g, ' ')`, id)
}

func (d dashboard) showsBadge(t *testing.T, id, text string) {
	t.Helper()
	eventually(t, soon, fmt.Sprintf("the badge %s with %q", id, text), func() bool { return strings.Contains(d.badge(t, id), text) })
}

// TestBadge_onAnotherOrigin is the whole story of a sandbox in the page of a product that is not Sandman's.
func TestBadge_onAnotherOrigin(t *testing.T) {
	t.Parallel()
	site := startProduct(t)
	s := start(t, options{idle: 12 * time.Second, caddyfile: strings.NewReplacer("\t\t\tsandman_api\n", "\t\t\tsandman_api {\n\t\t\t\tallow_origin "+site.URL+"\n\t\t\t}\n")})
	d := dashboard{startBrowser(t), s.url} // first: it may take its time, and the sandbox is to be awake then
	d.do(t, `await page.goto('about:blank')`)
	id, before := s.startAppIn(t)
	other := s.create(t)
	all, see := s.badgeToken(t, id, `["see","hold","pause","resume"]`), s.badgeToken(t, id, `["see"]`)
	site.body = fmt.Sprintf(`
		<p><sandman-badge id="one" class="ours" sandbox="%[1]s" token="%[2]s" text-paused="schläft" text-keep-awake="Wach halten" keep-for="30m"></sandman-badge></p>
		<p><sandman-badge id="look" sandbox="%[1]s" token="%[3]s" actions=""></sandman-badge></p>
		<p><sandman-badge id="plain" sandbox="%[1]s" token="%[3]s"></sandman-badge></p>
		<p><sandman-badge id="foreign" sandbox="%[4]s" token="%[2]s"></sandman-badge></p>`, id, all, see, other)

	d.do(t, `await page.goto(%q)`, site.URL+"/?sandman="+s.url)
	badge := func(id string) string { return d.badge(t, id) }
	shows := func(id, text string) { t.Helper(); d.showsBadge(t, id, text) }
	shows("one", "sleeps in 0:")
	shows("foreign", "no such sandbox")
	d.do(t, `await page.evaluate(%s)`, axe(t))
	d.requireAccessible(t, "the product's page")
	d.screenshot(t, "1-running")

	eventually(t, 30*time.Second, "the badge asleep by itself", func() bool { return strings.Contains(badge("one"), "schläft because idle for 12s") })
	shows("look", "Paused because idle for 12s")
	shows("plain", "Paused because idle for 12s")
	for _, id := range []string{"look", "plain"} {
		if text := badge(id); strings.Contains(text, "Resume") || strings.Contains(text, "Keep awake") {
			t.Errorf("the badge %q offers what it can't do: %s", id, text)
		}
	}
	d.screenshot(t, "2-asleep")

	d.press(t, "Resume")
	shows("one", "Running")
	requireContinued(t, before, s.mustAsk(t, id), 1)
	d.press(t, "Wach halten")
	shows("one", "kept awake until")
	shows("look", "kept awake until")
	if r := s.record(t, id); r.PauseAt != nil {
		t.Errorf("it is kept awake, and will be paused at %s", r.PauseAt)
	}
	d.screenshot(t, "3-kept")
	d.press(t, "Let it sleep")
	shows("one", "sleeps in")
	d.press(t, "Pause")
	shows("one", "because paused by hand")

	if style := ask[string](t, d.browser, `return await page.evaluate(() => getComputedStyle(document.getElementById('one').shadowRoot.querySelector('[part=state]')).textDecorationLine)`); style != "underline" {
		t.Errorf("the page's style of a part does not hold: %s", style)
	}

	s.process.kill()
	d.do(t, `await page.evaluate(() => { document.getElementById('one').actions = '' })`)
	shows("look", "can’t be reached")
	d.screenshot(t, "4-away")
}

// A badge's token is all that a page has, so an expired one is asked for anew of the product's own server.
func TestBadge_renewsItsToken(t *testing.T) {
	t.Parallel()
	site := startProduct(t)
	s := start(t, options{caddyfile: strings.NewReplacer("\t\t\tsandman_api\n", "\t\t\tsandman_api {\n\t\t\t\tallow_origin "+site.URL+"\n\t\t\t}\n")})
	id := s.create(t)
	site.body = fmt.Sprintf(`<sandman-badge sandbox="%s"></sandman-badge>`, id)
	d := dashboard{startBrowser(t), s.url}
	d.do(t, `await page.goto(%q)
	await page.evaluate(async token => {
		await customElements.whenDefined('sandman-badge')
		const badge = document.querySelector('sandman-badge')
		badge.renew = async () => { window.renewed = (window.renewed ?? 0) + 1; return token }
		badge.token = 'sbt_expired'
	}, %q)
	await page.waitForFunction(() => document.querySelector('sandman-badge').state === 'RUNNING')`, site.URL+"/?sandman="+s.url, s.badgeToken(t, id, `["see"]`))
	if n := ask[int](t, d.browser, `return await page.evaluate(() => renewed)`); n != 1 {
		t.Errorf("the token was asked for %d times", n)
	}
	if html := ask[string](t, d.browser, `return await page.evaluate(() => document.querySelector('sandman-badge').outerHTML)`); strings.Contains(html, "sbt_") {
		t.Errorf("a token that was set as a property is in the page: %s", html)
	}
}

// A page's words are in its language, and say what its visitor can do about it.
func TestBadge_inTheLanguageOfItsPage(t *testing.T) {
	t.Parallel()
	site := startProduct(t)
	s := start(t, options{caddyfile: strings.NewReplacer("\t\t\tsandman_api\n", "\t\t\tsandman_api {\n\t\t\t\tallow_origin "+site.URL+"\n\t\t\t}\n")})
	id := s.create(t)
	s.pause(t, id)
	good := s.badgeToken(t, id, `["see","hold","pause","resume"]`)
	var brief struct{ Token string }
	s.call(t, http.MethodPost, "/sandboxes/"+id+"/tokens", `{"for":"1s"}`).decode(t, &brief)
	site.body = fmt.Sprintf(`
		<p><sandman-badge id="many" sandbox="%[1]s" token="%[2]s"></sandman-badge></p>
		<p lang="de"><sandman-badge id="own" text-paused="Schlummert" sandbox="%[1]s" token="%[2]s"></sandman-badge></p>
		<p lang="de"><sandman-badge id="ended-de" sandbox="%[1]s" token="%[3]s"></sandman-badge></p>
		<p><sandman-badge id="ended" sandbox="%[1]s" token="%[3]s"></sandman-badge></p>
		<p><sandman-badge id="wrong" sandbox="%[1]s" token="sbt_wrong"></sandman-badge></p>`, id, good, brief.Token)
	eventually(t, soon, "the end of the brief token", func() bool {
		r := newRequest(t, http.MethodGet, s.url+"/api/v1/sandboxes/"+id, nil)
		r.Header.Set("Authorization", "Bearer "+brief.Token)
		return s.mustDo(t, r).status == http.StatusUnauthorized
	})
	d := dashboard{startBrowser(t), s.url}
	d.do(t, `await page.goto(%q)`, site.URL+"/?sandman="+s.url)
	d.showsBadge(t, "own", "Schlummert von Hand pausiert Fortsetzen")
	d.showsBadge(t, "ended-de", "Sandbox diese Ansicht ist abgelaufen: Seite neu laden")
	d.showsBadge(t, "ended", "Sandbox this view has expired: reload the page")
	d.showsBadge(t, "wrong", "Sandbox no access: reload the page")
	for lang, want := range map[string]string{
		"en": "Paused because paused by hand", "de-AT": "Pausiert von Hand pausiert", "fr": "En pause mise en pause à la main", "es": "En pausa pausado a mano",
		"ja": "一時停止 手動で停止", "zh-Hans": "已暂停 已手动暂停", "tlh": "Paused because paused by hand", "constructor": "Paused because",
	} {
		d.do(t, `await page.evaluate(lang => { document.getElementById('many').lang = lang }, %q)`, lang)
		d.showsBadge(t, "many", want)
	}
	d.do(t, `await page.evaluate(() => { document.getElementById('many').lang = 'ja' })`)
	d.do(t, `await page.evaluate(%s)`, axe(t))
	d.requireAccessible(t, "badges in many languages")
	d.screenshot(t, "languages")
}
