package e2e_test

import (
	"testing"
	"time"
)

// A notebook stays open, untouched; its sandbox sleeps, and the kernel wakes with its variables.
func TestJupyter_kernelKeepsItsVariables(t *testing.T) {
	t.Parallel()
	if _, err := codeServerDir(); err != nil { // installs both
		t.Fatalf("installing Jupyter: %v", err)
	}
	desks <- struct{}{}
	t.Cleanup(func() { <-desks })
	s := start(t, options{idle: 8 * time.Second})
	d := &desk{s: s, id: s.create(t), port: s.port}
	s.configure(t, d.id, `{"idleTimeout":"10m"}`) // however long it takes to open
	s.run(t, d.id, `mkdir -p work && cd work && cat >nb.ipynb <<'END'
{"cells": [{"cell_type": "code", "execution_count": null, "metadata": {}, "outputs": [], "source": []}],
 "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}, "nbformat": 4, "nbformat_minor": 2}
END
		HOME=$(dirname $PWD) setsid jupyter-notebook --ip=$SANDBOX_IP --port=8080 --no-browser --allow-root \
			--NotebookApp.token= --NotebookApp.allow_remote_access=True >../jupyter.log 2>&1 </dev/null &`)
	s.awaitAnswer(t, d.id, "/api")
	d.browser = startBrowser(t)
	d.do(t, `
		await page.goto('http://8080-%s.localhost:%d/notebooks/nb.ipynb')
		await page.waitForSelector('.kernel_idle_icon')
		await page.locator('.CodeMirror').first().click()
		await page.keyboard.type('x = 41')
		await page.keyboard.press('Shift+Enter')
		await page.locator('.input_prompt', { hasText: '[1]' }).waitFor()
		await page.keyboard.type('print(x + 1)')`, d.id, d.port)
	s.configure(t, d.id, `{"idleTimeout":null}`)
	d.screenshot(t, "open")
	d.awaitSleep(t)
	d.staysAsleep(t, 5*s.idle)
	d.do(t, `
		await page.keyboard.press('Shift+Enter')
		await page.locator('.output_stdout', { hasText: '42' }).waitFor()`)
	if wakes := s.record(t, d.id).Totals.Wakes; wakes != 1 {
		t.Errorf("one cell woke the sandbox %d times", wakes)
	}
}
