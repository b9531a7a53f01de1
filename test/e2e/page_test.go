package e2e_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A person opens an address whose sandbox takes long to wake: sees at once that it does, and the app
// when it has, without a touch. The wake goes on behind the page.
func TestPage_opensTheAppWhenTheSandboxRuns(t *testing.T) {
	t.Parallel()
	s := start(t, options{host: startSandboxd(t, "resume_delay=6s").url})
	id, before := s.startAppIn(t)
	s.pause(t, id)
	b := startBrowser(t)
	began := time.Now()
	b.do(t, `await page.goto(%q, { waitUntil: 'domcontentloaded' })`, s.address(id, "/state"))
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("the request was held for %s only", took)
	}
	seen := ask[struct{ Title, State, Role, Elapsed, ID string }](t, b, `await page.waitForFunction(() => document.querySelector('#elapsed').textContent === '3 s'); return page.evaluate(() => {
		const main = document.querySelector('main')
		return { title: document.title, state: main.dataset.state, id: main.dataset.sandbox, role: document.querySelector('[role=status]').ariaLive, elapsed: document.querySelector('#clock').innerText }
	})`)
	if seen.Title != "Waking up…" || seen.State != "RESUMING" || seen.ID != id || seen.Role != "polite" || seen.Elapsed == "" {
		t.Errorf("the page shows %+v", seen)
	}
	b.pictures(t, "waking")
	b.do(t, `await page.waitForFunction(() => document.body.innerText.includes('"counter"'))`)
	requireContinued(t, before, s.mustAsk(t, id), 2) // the page asked once
	if r := s.record(t, id); r.Totals.Wakes != 1 {
		t.Errorf("it was woken %d times", r.Totals.Wakes)
	}
	b.requireClean(t)
}

// address is that of a sandbox's app in a browser.
func (s *sandman) address(id, path string) string {
	return s.request(context.Background(), http.MethodGet, id, appPort, path, nil).URL.String()
}

// requireClean fails the test if a script failed, or the page asked the sandbox for what it needs.
func (b *browser) requireClean(t *testing.T) {
	t.Helper()
	if errs := ask[[]string](t, b, `return kept.log`); len(errs) > 0 {
		t.Errorf("errors in the page: %q", errs)
	}
	for _, r := range ask[[]string](t, b, `return kept.requests`) {
		if !strings.Contains(r, " /.well-known/sandman/") && !strings.HasSuffix(r, " /state") && !strings.HasSuffix(r, "/favicon.ico") {
			t.Errorf("the page asked for %s", r)
		}
	}
}

// pictures shows the page on a desk and on a phone, by day and by night.
func (b *browser) pictures(t *testing.T, name string) {
	t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		b.do(t, `await page.emulateMedia({ colorScheme: %q })`, scheme)
		b.screenshot(t, name+"-"+scheme)
		b.do(t, `await page.setViewportSize({ width: 375, height: 667 })`)
		b.screenshot(t, name+"-"+scheme+"-phone")
		if wide := ask[bool](t, b, `return page.evaluate(() => document.documentElement.scrollWidth > innerWidth)`); wide {
			t.Errorf("%s: the page is wider than a phone", name)
		}
		b.do(t, `await page.setViewportSize({ width: 1280, height: 800 })`)
	}
}

// Without JavaScript the page comes again by itself.
func TestPage_needsNoScript(t *testing.T) {
	t.Parallel()
	s := start(t, options{host: startSandboxd(t, "resume_delay=4s").url})
	id, _ := s.startAppIn(t)
	s.pause(t, id)
	b := startBrowser(t)
	b.do(t, `kept.plain = await (await context.browser().newContext({ javaScriptEnabled: false })).newPage()
		await kept.plain.goto(%q, { waitUntil: 'domcontentloaded' })`, s.address(id, "/state"))
	if text := ask[string](t, b, `return kept.plain.textContent('body')`); !strings.Contains(text, "Waking up") {
		t.Errorf("the page says %q", text)
	}
	b.do(t, `await kept.plain.waitForSelector('text="counter"', { timeout: 15000 }).catch(() => kept.plain.waitForFunction(() => true))`)
	if text := ask[string](t, b, `return kept.plain.textContent('body')`); !strings.Contains(text, `"counter"`) {
		t.Errorf("after the wake the page says %q", text)
	}
}

// Where only a hand may wake, the page has a button, which the keyboard reaches.
func TestPage_hasAButtonWhereOnlyAHandWakes(t *testing.T) {
	t.Parallel()
	// longer than a busy machine takes from the press to the page that it opens
	s := start(t, options{host: startSandboxd(t, "resume_delay=10s").url})
	id, before := s.startAppIn(t)
	s.configure(t, id, `{"wakePolicy":"manual"}`)
	s.pause(t, id)
	b := startBrowser(t)
	b.do(t, `await page.goto(%q)`, s.address(id, "/state"))
	b.pictures(t, "asleep")
	s.requireAsleep(t, id, 0)
	b.do(t, `await page.keyboard.press('Tab')
		await page.waitForFunction(() => document.activeElement.textContent === 'Wake it up')
		await page.keyboard.press('Enter')
		await page.waitForFunction(() => document.title === 'Waking up…')
		await page.waitForFunction(() => document.body.innerText.includes('"counter"'))`)
	requireContinued(t, before, s.mustAsk(t, id), 2)
	if a := s.history(t, id); !strings.Contains(a[0].Reason+a[len(a)-1].Reason, "by hand") {
		t.Errorf("the history tells of no hand: %+v", a)
	}
	b.requireClean(t)
}

// A page that is left open on a sleeping sandbox follows it, and wakes nothing.
func TestPage_followsWhatOthersDo(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, _ := s.startAppIn(t)
	s.configure(t, id, `{"wakePolicy":"manual"}`)
	s.pause(t, id)
	b := startBrowser(t)
	b.do(t, `await page.goto(%q)`, s.address(id, "/state"))
	if a := s.call(t, http.MethodPost, "/sandboxes/"+id+"/resume", ""); a.status != http.StatusOK {
		t.Fatalf("resuming: %s", a)
	}
	b.do(t, `await page.waitForFunction(() => document.body.innerText.includes('"counter"'))`)
}

// A host that does not wake it is said to, without where it is, and asked again while somebody looks.
func TestPage_saysWhyItCantWake(t *testing.T) {
	t.Parallel()
	counter := startCounter(t, startSandboxd(t, "connect_fail").url)
	s := start(t, options{host: counter.url, caddyfile: strings.NewReplacer("idle_timeout", "hold 10s\n\t\tidle_timeout")})
	id, _ := s.startAppIn(t)
	s.pause(t, id)
	b := startBrowser(t)
	b.do(t, `await page.goto(%q)
		await page.waitForFunction(() => document.querySelector('main')?.dataset.mood === 'failed')`, s.address(id, "/state"))
	seen := ask[struct{ Reason, Button string }](t, b, `return { reason: await page.innerText('#reason'), button: await page.innerText('button') }`)
	if seen.Reason != "Its host failed to resume it." || seen.Button != "Try again now" {
		t.Errorf("the page shows %+v", seen)
	}
	told := ask[string](t, b, `return await page.content() + await page.evaluate(async () => (await fetch('/.well-known/sandman/state')).text())`)
	if host := strings.TrimPrefix(counter.url, "http://"); strings.Contains(told, host) {
		t.Errorf("a visitor is told of the host at %s:\n%s", host, told)
	}
	if why := s.why(t, id); !strings.Contains(why, "503") || !strings.Contains(why, `"kind":"broken"`) {
		t.Errorf("who has a token is told %s", why)
	}
	b.pictures(t, "failed")
	asked := counter.connects.Load()
	b.do(t, `await page.click('button')
		await page.waitForFunction(() => document.title.includes('rying') || document.title.includes('Waking'))`)
	eventually(t, 20*time.Second, "another try at the host", func() bool { return counter.connects.Load() > asked })
}
