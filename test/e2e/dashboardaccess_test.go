package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

// axe is the text of axe-core, which judges a page's accessibility.
func axe(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("browser/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return string(quoted)
}

// finding is a rule of axe's that a page breaks.
type finding struct {
	ID, Impact, Help string
	Nodes            []struct{ HTML, FailureSummary string }
}

// requireAccessible fails the test for each thing that axe finds, be it only moderate.
func (d dashboard) requireAccessible(t *testing.T, what string) {
	t.Helper()
	found := ask[[]finding](t, d.browser, `return await page.evaluate(async () => {
		const { violations } = await axe.run(document, { resultTypes: ['violations'] })
		return violations.map(({ id, impact, help, nodes }) => ({ id, impact, help, nodes: nodes.slice(0, 3).map(({ html, failureSummary }) => ({ html, failureSummary })) }))
	})`)
	for _, f := range found {
		t.Errorf("%s: %s (%s, %s): %+v", what, f.Help, f.ID, f.Impact, f.Nodes)
	}
}

// requireAxeSees fails the test unless axe finds what is wrong on purpose.
func (d dashboard) requireAxeSees(t *testing.T) {
	t.Helper()
	if found := ask[[]string](t, d.browser, `return await page.evaluate(async () => {
		const nameless = document.querySelector('main').appendChild(document.createElement('button'))
		const { violations } = await axe.run(document)
		nameless.remove()
		return violations.map(v => v.id)
	})`); !slices.Contains(found, "button-name") {
		t.Fatalf("axe does not find a button without a name, but %v", found)
	}
}

func TestDashboard_isAccessible(t *testing.T) {
	t.Parallel()
	s := start(t, options{caddyfile: strings.NewReplacer("\tsandman {\n", "\tsandman {\n\t\tprice_per_minute 0.0005 USD\n")})
	running, asleep := s.create(t), s.create(t)
	for id, owner := range map[string]string{running: "alice", asleep: "bob"} {
		s.call(t, http.MethodPatch, "/sandboxes/"+id, fmt.Sprintf(`{"owner":%q,"project":"atlas"}`, owner)).require(t, http.StatusOK)
	}
	s.call(t, http.MethodPut, "/sandboxes/"+running+"/holds/long", `{"for":"20h"}`).require(t, http.StatusOK)
	s.pause(t, asleep)
	s.call(t, http.MethodPut, "/policies/owners/alice", `{"idleTimeout":"30m"}`).require(t, http.StatusOK)
	d := openDashboard(t, s, token)
	d.await(t, stateOf(asleep, "PAUSED"))
	d.do(t, `await page.evaluate(%s)`, axe(t))
	d.requireAxeSees(t)
	routes := map[string]string{
		"list": "/", "running": "/sandboxes/" + running, "asleep": "/sandboxes/" + asleep, "nothing-found": "/?q=nothing",
		"missing": "/sandboxes/inone", "savings": "/savings?range=7d", "runs": "/runs", "policies": "/policies", "status": "/status",
	}
	for _, scheme := range []string{"dark", "light"} {
		for _, width := range []int{1280, 390} {
			d.do(t, `await page.emulateMedia({ colorScheme: %q, reducedMotion: 'reduce' })
			await page.setViewportSize({ width: %d, height: 844 })`, scheme, width)
			for name, route := range routes {
				d.goTo(t, route)
				what := fmt.Sprintf("%s-%s-%d", name, scheme, width)
				d.requireAccessible(t, what)
				d.screenshot(t, what)
				if cut := ask[[]string](t, d.browser, `return await page.evaluate(() => [...document.querySelectorAll('.scroll, .rows .cell, .rows .cell > *')]
					.filter(e => e.innerText && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline').map(e => e.className + ': ' + e.innerText))`); len(cut) > 0 {
					t.Errorf("%s does not show all of %q", what, cut)
				}
				// of a month's savings as of a minute's
				if wide := ask[int](t, d.browser, `return await page.evaluate(() => {
					document.querySelector('.saved b').textContent = '$12,345.67'
					return document.documentElement.scrollWidth
				})`); wide > width {
					t.Errorf("%s is %d wide", what, wide)
				}
			}
		}
	}
	d.goTo(t, "/")
	d.press(t, "New sandbox")
	d.requireAccessible(t, "the dialog")
	d.screenshot(t, "dialog")
	d.do(t, `await page.keyboard.press('Escape')`)
	d.press(t, "Sign out")
	d.requireAccessible(t, "signing in")
	d.screenshot(t, "sign-in")
}

// Whoever has no mouse gets everywhere: from the top to a sandbox, along the list, and to its buttons.
func TestDashboard_byKeyboard(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	ids := []string{s.create(t), s.create(t), s.create(t)}
	d := openDashboard(t, s, token)
	for _, id := range ids {
		d.await(t, stateOf(id, "RUNNING"))
	}
	// focused does something and says in which sandbox's row the focus is, and on what.
	focused := func(code string) string {
		return ask[string](t, d.browser, `%s
			await page.waitForTimeout(100)
			return await page.evaluate(() => { const e = document.activeElement; return (e.closest('[data-sandbox]')?.dataset.sandbox ?? '') + ' ' + e.innerText.trim() })`, code)
	}
	d.do(t, `await page.evaluate(() => document.getElementById('main').focus())`)
	found := map[string]bool{}
	for range 30 {
		if on := focused(`await page.keyboard.press('Tab')`); strings.HasSuffix(on, "Pause") {
			found[strings.Fields(on)[0]] = true
		}
	}
	if len(found) != len(ids) {
		t.Errorf("by Tab one gets to Pause of %v, of the sandboxes %v", found, ids)
	}
	first := focused(`await page.locator('[aria-rowindex="2"] a').focus()`)
	if down := focused(`await page.keyboard.press('ArrowDown')`); down == first || !strings.HasPrefix(down, "i") {
		t.Errorf("ArrowDown leads from %q to %q", first, down)
	}
	if up := focused(`await page.keyboard.press('ArrowUp')`); up != first {
		t.Errorf("ArrowUp leads to %q, wanted %q", up, first)
	}
	focused(`await page.keyboard.press('/')`)
	d.do(t, `await page.keyboard.type(%q)`, ids[1][:8])
	eventually(t, soon, "only the sandbox that was searched for", func() bool {
		return ask[int](t, d.browser, `return await page.locator('[data-sandbox]').count()`) == 1
	})
	d.do(t, `await page.locator('[data-sandbox] a').focus(); await page.keyboard.press('Enter')`)
	d.await(t, "article"+stateOf(ids[1], "RUNNING"))
}
