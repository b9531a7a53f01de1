package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	viewerToken = "test-viewer-token-0123456789abcde"

	// soon is how long the dashboard may take to show what has happened, on a busy machine.
	soon = 10 * time.Second
)

// withViewer adds a token that may only look.
func withViewer() *strings.Replacer {
	const admin = "token admin admin {$SANDMAN_TOKEN:generate}" //nolint:dupword // a name and its role
	return strings.NewReplacer(admin, admin+"\n\t\ttoken eye viewer "+viewerToken)
}

// dashboard is Sandman's page in a browser.
type dashboard struct {
	*browser
	url string
}

// openDashboard signs in by a link. At the end of the test the page must have had no error, and must not
// have tried what its policy forbids.
func openDashboard(t *testing.T, s *sandman, secret string) dashboard {
	t.Helper()
	d := dashboard{startBrowser(t), s.url}
	d.do(t, `await context.addInitScript(() => {
		window.violations = JSON.parse(sessionStorage.getItem('violations') ?? '[]')
		addEventListener('securitypolicyviolation', e => {
			violations.push(e.violatedDirective + ' ' + e.blockedURI)
			sessionStorage.setItem('violations', JSON.stringify(violations))
		})
	})
	await page.goto(%q)`, s.url+"/#token="+secret)
	t.Cleanup(func() {
		var wrong []string
		if err := d.try(&wrong, `return [...kept.log, ...await page.evaluate(() => violations)]`); err != nil || len(wrong) > 0 {
			t.Errorf("the page had errors: %v, %v", wrong, err)
		}
	})
	return d
}

// goTo opens one of the dashboard's pages.
func (d dashboard) goTo(t *testing.T, route string) {
	t.Helper()
	d.do(t, `await page.evaluate(route => { location.hash = route }, %q)
	await page.waitForFunction(() => !document.querySelector('.loading'))`, route)
}

// await waits until the element that the selector finds is there.
func (d dashboard) await(t *testing.T, selector string) {
	t.Helper()
	d.do(t, `await page.locator(%q).first().waitFor({ timeout: %d })`, selector, soon.Milliseconds())
}

func (d dashboard) press(t *testing.T, button string) {
	t.Helper()
	d.do(t, `await page.getByRole('button', { name: %q, exact: true }).click()`, button)
}

func (d dashboard) text(t *testing.T, selector string) string {
	t.Helper()
	return ask[string](t, d.browser, `return await page.locator(%q).first().innerText()`, selector)
}

// stateOf selects a sandbox, in the list or as a page, in a state.
func stateOf(id, state string) string {
	return fmt.Sprintf(`[data-sandbox="%s"][data-state="%s"]`, id, state)
}

// TestDashboard_throughASleep is the whole story of one sandbox, told by the page.
func TestDashboard_throughASleep(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 12 * time.Second})
	d := openDashboard(t, s, token)
	d.await(t, "text=No sandboxes yet")
	d.screenshot(t, "1-empty")
	if left := ask[string](t, d.browser, `return page.url() + ' ' + await page.title()`); strings.Contains(left, token) {
		t.Errorf("the token is still in the address: %s", left)
	}

	id, before := s.startAppIn(t)
	d.await(t, stateOf(id, "RUNNING"))
	d.screenshot(t, "2-list")
	d.do(t, `await page.getByRole('link', { name: %q }).click()`, id)
	d.await(t, "article"+stateOf(id, "RUNNING"))

	// the countdown counts, and the sandbox sleeps when it is over, before the page's eyes
	d.await(t, `[role="timer"]`)
	first, second := d.countdown(t), time.Duration(0)
	eventually(t, soon, "a countdown that counts", func() bool { second = d.countdown(t); return second < first })
	d.screenshot(t, "3-countdown")
	d.do(t, `await page.locator(%q).waitFor({ timeout: 30000 })`, "article"+stateOf(id, "PAUSED"))
	d.await(t, "text=idle for 12s")
	d.screenshot(t, "4-paused")
	if r := s.record(t, id); r.State != "PAUSED" {
		t.Errorf("the page says that it is paused, and it is %s", r.State)
	}

	d.press(t, "Resume")
	d.await(t, "article"+stateOf(id, "RUNNING"))
	requireContinued(t, before, s.mustAsk(t, id), 1)

	d.do(t, `await page.getByLabel('Idle timeout').fill('1h')
		await page.getByLabel('Woken by').selectOption('manual')`)
	d.press(t, "Save")
	d.await(t, "text=The settings are saved.")
	if r := s.record(t, id); r.IdleTimeout != "1h0m0s" {
		t.Errorf("the saved idle timeout is %s", r.IdleTimeout)
	}

	d.press(t, "Pause")
	d.await(t, "article"+stateOf(id, "PAUSED"))
	d.press(t, "Keep awake") // which wakes it first
	d.await(t, "article"+stateOf(id, "RUNNING"))
	eventually(t, soon, "a hold that keeps it awake", func() bool {
		r := s.record(t, id)
		return r.PauseAt == nil && strings.Contains(strings.Join(r.AwakeBecause, " "), "dashboard")
	})
	d.await(t, `[aria-labelledby="holds"] >> text=kept awake in the dashboard`)
	d.await(t, "text=Paused") // its line in the history
	d.screenshot(t, "5-kept")
	d.press(t, "End the hold dashboard")
	eventually(t, soon, "the hold's end", func() bool { return s.record(t, id).PauseAt != nil })
}

// countdown reads the page's timer.
func (d dashboard) countdown(t *testing.T) time.Duration {
	t.Helper()
	var minutes, seconds int
	if text := d.text(t, `[role="timer"]`); text != "any moment" {
		if _, err := fmt.Sscanf(text, "%d:%d", &minutes, &seconds); err != nil {
			t.Fatalf("the countdown reads %q", text)
		}
	}
	return time.Duration(minutes)*time.Minute + time.Duration(seconds)*time.Second
}

// What goes on through the proxies is on the page: streams as they fall asleep, and who was refused.
func TestDashboard_tellsOfStreamsAndRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, _ := s.startAppIn(t)
	d := openDashboard(t, s, token)
	d.await(t, stateOf(id, "RUNNING"))
	d.goTo(t, "/sandboxes/"+id)
	requireEcho(t, s.dial(t, id), "hello")
	const streams = `[aria-labelledby="streams"] >> `
	d.do(t, `await page.locator(%q).waitFor({ timeout: 20000 })`, streams+"role=row[name=/active.*ws/]")
	s.pause(t, id)
	d.do(t, `await page.locator(%q).waitFor({ timeout: 20000 })`, streams+"role=row[name=/parked.*ws/]")
	requireProblem(t, s.mustDo(t, s.asks(t, id, http.MethodGet, "/state", prefetch)), http.StatusServiceUnavailable)
	d.do(t, `await page.locator(%q).waitFor({ timeout: 20000 })`, `[aria-labelledby="refused"] >> text="GET /state"`)
	d.await(t, "text=a browser loads it in advance, in case somebody wants it")
	d.do(t, `await page.evaluate(%s)`, axe(t))
	d.requireAccessible(t, "streams and refusals")
	d.do(t, `await page.setViewportSize({ width: 1280, height: 1400 })`)
	d.screenshot(t, "page")
}

// Whoever edits while somebody else does is told, and decides.
func TestDashboard_settingsOfTwoPeople(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id := s.create(t)
	d := openDashboard(t, s, token)
	d.await(t, stateOf(id, "RUNNING"))
	d.goTo(t, "/sandboxes/"+id)
	d.do(t, `await page.getByLabel('Owner').fill('alice')`)
	s.call(t, http.MethodPatch, "/sandboxes/"+id, `{"owner":"bob"}`).require(t, http.StatusOK)
	d.press(t, "Save")
	d.await(t, "text=Somebody has changed owner meanwhile")
	d.screenshot(t, "changed")
	if sb := s.call(t, http.MethodGet, "/sandboxes/"+id, ""); !strings.Contains(sb.body, `"owner":"bob"`) {
		t.Errorf("bob's change is gone: %s", sb)
	}
	d.press(t, "Save")
	d.await(t, "text=The settings are saved.")
	if sb := s.call(t, http.MethodGet, "/sandboxes/"+id, ""); !strings.Contains(sb.body, `"owner":"alice"`) {
		t.Errorf("alice's second try did not hold: %s", sb)
	}
	d.do(t, `await page.getByLabel('Idle timeout').fill('soon')`)
	d.press(t, "Save")
	d.await(t, "text=Give the idle timeout as a duration")
}

func TestDashboard_whoMayOnlyLook(t *testing.T) {
	t.Parallel()
	s := start(t, options{caddyfile: withViewer()})
	id := s.create(t)
	s.call(t, http.MethodPatch, "/sandboxes/"+id, `{"owner":"alice"}`).require(t, http.StatusOK)

	d := openDashboard(t, s, "no-token-of-this-sandman")
	d.await(t, "text=This token was not accepted")
	d.screenshot(t, "refused")
	d.do(t, `await page.getByLabel('Token').fill(%q)`, viewerToken)
	d.press(t, "Sign in")
	d.await(t, stateOf(id, "RUNNING"))
	d.goTo(t, "/sandboxes/"+id)
	d.await(t, "text=yours (eye) has the role viewer")
	for _, name := range []string{"Pause", "Keep awake", "Save"} {
		if !ask[bool](t, d.browser, `return await page.getByRole('button', { name: %q, exact: true }).isDisabled()`, name) {
			t.Errorf("a viewer can press %s", name)
		}
	}
	d.screenshot(t, "viewer")

	d.press(t, "Sign out")
	d.await(t, "text=Sign in to Sandman")
	if kept := ask[int](t, d.browser, `return await page.evaluate(secret => JSON.stringify({ ...sessionStorage, ...localStorage }).split(secret).length - 1, %q)`, viewerToken); kept != 0 {
		t.Error("the token is kept after the sign-out")
	}
}

// What is known stays when Sandman goes, and nothing is lost when it comes back.
func TestDashboard_whenSandmanIsAway(t *testing.T) {
	t.Parallel()
	o := options{}
	s := start(t, o)
	id := s.create(t)
	d := openDashboard(t, s, token)
	d.await(t, stateOf(id, "RUNNING"))
	s.process.kill()
	d.await(t, ".banner")
	if text := d.text(t, ".banner"); !strings.Contains(text, "can’t be reached") || !strings.Contains(text, "old") {
		t.Errorf("the banner reads %q", text)
	}
	d.await(t, stateOf(id, "RUNNING"))
	d.screenshot(t, "away")

	o.data, o.port = s.dir, s.port
	s = start(t, o)
	s.pause(t, id) // before the page has come back, or after: it shows it in any case
	second := s.create(t)
	d.do(t, `await page.locator('.banner').waitFor({ state: 'detached', timeout: 60000 })`)
	d.await(t, stateOf(id, "PAUSED"))
	d.await(t, stateOf(second, "RUNNING"))
	d.screenshot(t, "back")
}

// Without its store Sandman pauses nothing: no page and no badge counts down to a pause, and open ones are
// told, and told again when the store is back.
func TestDashboard_whenTheStoreIsAway(t *testing.T) {
	t.Parallel()
	host, store, site := startSandboxd(t, ""), startEtcd(t), startProduct(t)
	s := start(t, options{host: host.url, etcd: store.endpoint, caddyfile: strings.NewReplacer("\t\t\tsandman_api\n", "\t\t\tsandman_api {\n\t\t\t\tallow_origin "+site.URL+"\n\t\t\t}\n")})
	id := s.create(t)
	d := openDashboard(t, s, token)
	d.await(t, stateOf(id, "RUNNING")+` >> [role="timer"]`)
	site.body = fmt.Sprintf(`<sandman-badge sandbox="%s" token="%s"></sandman-badge>`, id, s.badgeToken(t, id, `["see"]`))
	product := dashboard{startBrowser(t), s.url}
	product.do(t, `await page.goto(%q)`, site.URL+"/?sandman="+s.url)
	product.await(t, "text=sleeps in")

	store.process.kill()
	away := time.Now()
	d.do(t, `await page.locator('.banner >> text=Nothing is paused until it is back').waitFor({ timeout: 30000 })`)
	t.Logf("the open page said so after %s", time.Since(away))
	product.await(t, "text=stays awake for now: the session store can’t be reached")
	product.screenshot(t, "badge")
	why := s.call(t, http.MethodGet, "/sandboxes/"+id+"/why", "")
	if !strings.Contains(why.body, "The session store can't be reached: nothing is paused until it is back.") || !strings.Contains(why.body, `"pauseAt":null`) {
		t.Errorf("why says %s", why)
	}
	for name, route := range map[string]string{"list": "/", "sandbox": "/sandboxes/" + id, "savings": "/savings", "runs": "/runs", "policies": "/policies", "status": "/status"} {
		for _, width := range []int{1280, 390} {
			d.do(t, `await page.setViewportSize({ width: %d, height: 844 })`, width)
			d.do(t, `await page.evaluate(route => { location.hash = route }, %q)
			await page.waitForFunction(() => !document.querySelector('.loading'), null, { timeout: 30000 })`, route)
			page := ask[string](t, d.browser, `return await page.locator('body').innerText()`)
			if !strings.Contains(page, "Nothing is paused until it is back") || strings.Contains(page, "context deadline") {
				t.Errorf("%s reads\n%s", name, page)
			}
			if n := ask[int](t, d.browser, `return await page.locator('[role="timer"]').count()`); n > 0 {
				t.Errorf("%s counts down to a pause that does not come", name)
			}
			d.screenshot(t, fmt.Sprintf("%s-%d", name, width))
		}
	}
	store.start(t)
	d.goTo(t, "/")
	d.do(t, `await page.locator(%q).waitFor({ timeout: 60000 })
	await page.locator('.banner').waitFor({ state: 'detached', timeout: 30000 })`, stateOf(id, "RUNNING")+` >> [role="timer"]`)
	product.await(t, "text=sleeps in")
}

func TestDashboard_whenAHostIsAway(t *testing.T) {
	t.Parallel()
	host := runSandboxd(t, shortDir(t), "")
	s := start(t, options{host: host.url})
	d := openDashboard(t, s, token)
	d.await(t, "text=No sandboxes yet")
	host.process.kill()
	s.call(t, http.MethodPost, "/sandboxes", `{"template":"base"}`).require(t, http.StatusServiceUnavailable) // whoever calls it notices
	d.do(t, `await page.locator('.banner >> text=The host origin does not answer as it should.').waitFor({ timeout: 30000 })`)
	d.screenshot(t, "banner")
	s.process.kill() // its sandboxes can't be ended, and there are none
}

// What is done through one proxy is seen at another one's dashboard within a second.
func TestDashboard_atAnotherProxy(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	here, there := c.sandmen[0], c.sandmen[1]
	id := here.create(t)
	here.call(t, http.MethodPatch, "/sandboxes/"+id, `{"idleTimeout":"1h"}`).require(t, http.StatusOK)
	d := openDashboard(t, here, token)
	d.await(t, "[data-sandbox]")
	d.do(t, `await page.evaluate(() => {
		window.seen = {}
		const look = () => { for (const row of document.querySelectorAll('[data-sandbox]')) seen[row.dataset.state] ??= Date.now() }
		new MutationObserver(look).observe(document.body, { subtree: true, attributes: true, childList: true, attributeFilter: ['data-state'] })
	})`)
	var took []time.Duration
	for range 5 {
		for _, state := range []string{"PAUSED", "RUNNING"} {
			verb := map[string]string{"PAUSED": "pause", "RUNNING": "resume"}[state]
			there.call(t, http.MethodPost, "/sandboxes/"+id+"/"+verb, "").require(t, http.StatusOK)
			done := time.Now()
			d.await(t, stateOf(id, state))
			at := ask[int64](t, d.browser, `return await page.evaluate(() => { const at = seen[%q]; seen = {}; return at })`, state)
			took = append(took, time.UnixMilli(at).Sub(done))
		}
	}
	slices.Sort(took)
	t.Logf("after the other proxy's answer the page showed it in %v", took)
	if took[len(took)/2] > time.Second {
		t.Errorf("the page shows what another proxy has done after %v", took)
	}
}

// TestDashboard_policies sets what holds for an owner's sandboxes, and takes it back.
func TestDashboard_policies(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id := s.create(t)
	s.call(t, http.MethodPatch, "/sandboxes/"+id, `{"owner":"alice"}`).require(t, http.StatusOK)
	d := openDashboard(t, s, token)
	d.await(t, stateOf(id, "RUNNING"))
	d.goTo(t, "/policies")
	d.await(t, "text=No policies yet")
	d.press(t, "New policy")
	d.do(t, `await page.getByLabel('Owner', { exact: true }).fill('alice')
		await page.getByLabel('Idle timeout').fill('45m')`)
	d.press(t, "Save")
	d.await(t, "text=The policy of alice is saved.")
	d.await(t, "role=rowheader[name='alice']")
	d.screenshot(t, "set")
	if r := s.record(t, id); r.IdleTimeout != "45m0s" {
		t.Errorf("alice's sandbox has the idle timeout %s", r.IdleTimeout)
	}

	// two people at once
	d.press(t, "Change the policy of alice")
	s.call(t, http.MethodPut, "/policies/owners/alice", `{"idleTimeout":"50m"}`).require(t, http.StatusOK)
	d.do(t, `await page.getByLabel('Idle timeout').fill('1h')`)
	d.press(t, "Save")
	d.await(t, "text=token admin has changed it meanwhile")
	d.press(t, "Cancel")
	if r := s.record(t, id); r.IdleTimeout != "50m0s" {
		t.Errorf("what the other one set is gone: %s", r.IdleTimeout)
	}
	d.press(t, "Delete the policy of alice")
	d.await(t, "text=No policies yet")
	if r := s.record(t, id); r.IdleTimeout != "10m0s" {
		t.Errorf("without a policy the idle timeout is %s", r.IdleTimeout)
	}
}

// What is made in the dashboard is somebody's from the start, and has its metadata.
func TestDashboard_newSandbox(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	d := openDashboard(t, s, token)
	d.await(t, "text=No sandboxes yet")
	d.do(t, `await page.getByRole('button', { name: 'New sandbox' }).first().click()
		await page.getByLabel('Owner', { exact: true }).fill('alice')
		await page.getByLabel('Project', { exact: true }).fill('atlas')
		await page.getByLabel('Metadata').fill('ticket')`)
	d.press(t, "Create")
	d.await(t, "text=“ticket” is no metadata.")
	d.do(t, `await page.getByLabel('Metadata').fill('ticket=a=b\n\n name = a value ')`)
	d.screenshot(t, "dialog")
	d.press(t, "Create")
	d.await(t, `article[data-state="RUNNING"]`)
	d.await(t, "article >> text=alice")
	var page struct {
		Sandboxes []struct {
			Owner, Project string
			Metadata       map[string]string
		}
	}
	s.call(t, http.MethodGet, "/sandboxes", "").decode(t, &page)
	if len(page.Sandboxes) != 1 || page.Sandboxes[0].Owner != "alice" || page.Sandboxes[0].Project != "atlas" ||
		page.Sandboxes[0].Metadata["ticket"] != "a=b" || page.Sandboxes[0].Metadata["name"] != "a value" {
		t.Errorf("made was %+v", page.Sandboxes)
	}
}
