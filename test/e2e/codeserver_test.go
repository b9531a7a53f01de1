package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// tabDoubts is longer than a forgotten tab takes to doubt its connection: it has sent something that
// nobody has acknowledged after 70 s at most, and waits 20 s.
const tabDoubts = 100 * time.Second

// slowlyOpened is longer than a machine takes to open the editor that has time for it.
const slowlyOpened = 20 * time.Second

// A tab of VS Code stays open, untouched; its sandbox is paused and stays so; the first key finds
// everything as it was.
func TestCodeServer_forgottenTabSleepsUntilAKey(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 8 * time.Second})
	d := openDesk(t, s, 0)
	d.write(t, "before")
	d.screenshot(t, "open")
	d.awaitSleep(t)
	d.staysAsleep(t, max(5*s.idle, tabDoubts))
	d.requireUndoubting(t)
	d.screenshot(t, "asleep")
	typed := time.Now()
	d.write(t, "X")
	s.awaitState(t, late, d.id, "RUNNING")
	d.requireText(t, late, "beforeX")
	// on a machine where it takes so long to save, that may wake the sandbox once more
	if wakes := s.record(t, d.id).Totals.Wakes; wakes < 1 || wakes > 1 && time.Since(typed) < s.idle {
		t.Errorf("one key woke the sandbox %d times", wakes)
	}
}

// requireUndoubting fails the test if the tab has tried to connect again beside its connections.
func (d *desk) requireUndoubting(t *testing.T) {
	t.Helper()
	why := d.s.why(t, d.id)
	switch doubts := strings.Contains(why, "still-open"); {
	case doubts && d.opening > slowlyOpened:
		// its server may still have been starting when it was paused, in the middle of something
		// that is too long to follow with a keep-alive
		t.Logf("this machine took %s to open the editor: that it doubts says nothing", d.opening)
	case doubts:
		t.Errorf("the tab has doubted its connections: %s", why)
	}
}

// A laptop is closed and opened again, over and over: its tabs come back and wake the sandbox, but not
// more often than the budget of a day says.
func TestCodeServer_reconnectsWithinItsBudget(t *testing.T) {
	t.Parallel()
	const budget = 2
	s := start(t, options{
		idle:      8 * time.Second,
		caddyfile: strings.NewReplacer("sandman_proxy\n", fmt.Sprintf("sandman_proxy {\nreconnect_wakes %d\n}\n", budget)),
	})
	w := newWire(t, s.url[len("http://"):])
	d := openDesk(t, s, w.port)
	d.write(t, "kept")
	for wakes := 0; wakes < budget; {
		d.awaitSleep(t)
		w.setCut(true)
		w.setCut(false)
		s.awaitState(t, tabReturns, d.id, "RUNNING")
		woken := time.Now()
		d.awaitSleep(t)
		// both connections of the tab come back within one wake, unless the machine is slow
		r := s.record(t, d.id)
		if more := r.Totals.Wakes - wakes; more != 1 && time.Since(woken) < 2*s.idle {
			t.Fatalf("%d wakes after a cut", more)
		}
		wakes = r.Totals.Wakes
	}
	d.awaitSleep(t)
	w.setCut(true)
	w.setCut(false)
	d.staysAsleep(t, 15*time.Second)
	s.configure(t, d.id, `{"idleTimeout":"10m"}`) // however long it takes to load
	d.do(t, `await page.reload()`)                // a person's
	d.openFile(t)
	d.requireText(t, late, "kept")
	if wakes := s.record(t, d.id).Totals.Wakes; wakes != budget+1 {
		t.Errorf("%d wakes: a person's, and %d of a tab were allowed", wakes, budget)
	}
}

// A host that closes what it pauses: the key wakes the sandbox first, then the tab is told to come
// again, and has lost nothing.
func TestCodeServer_onAHostThatCutsConnections(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 8 * time.Second, host: startSandboxd(t, "cut_connections").url})
	d := openDesk(t, s, 0)
	d.write(t, "before")
	d.awaitSleep(t)
	d.staysAsleep(t, tabDoubts)
	d.requireUndoubting(t)
	d.write(t, "X")
	s.awaitState(t, late, d.id, "RUNNING")
	d.requireText(t, reconnected, "beforeX")
}

// Sandman is ended and started again while the tab sleeps: the tab comes back by itself, and a key is
// not lost.
func TestCodeServer_sandmanIsRestartedUnderIt(t *testing.T) {
	t.Parallel()
	first := start(t, options{idle: 8 * time.Second})
	d := openDesk(t, first, 0)
	d.write(t, "before")
	d.awaitSleep(t)
	began := time.Now()
	first.process.end(t)
	d.s = start(t, options{idle: first.idle, data: first.dir, port: first.port})
	d.write(t, "X")
	d.requireText(t, tabReturns, "beforeX")
	if wakes := d.s.record(t, d.id).Totals.Wakes; wakes > 2 && time.Since(began) < 2*first.idle {
		t.Errorf("a restart and a key woke the sandbox %d times", wakes)
	}
}

// Somebody thinks before each character, for a little less than the idle timeout.
func TestCodeServer_slowWriterIsNeverInterrupted(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 4 * time.Second})
	d := openDesk(t, s, 0)
	d.useSlowly(t, 50, func(int) { d.write(t, "a") })
	d.requireText(t, late, strings.Repeat("a", 50))
}

// Somebody only reads: scrolls and clicks.
func TestCodeServer_readerIsNeverInterrupted(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 4 * time.Second})
	d := openDesk(t, s, 0)
	s.run(t, d.id, `seq 1 2000 >>work/notes.txt`)
	d.useSlowly(t, 15, func(i int) {
		d.do(t, `
			await page.mouse.move(600, 400)
			await page.mouse.wheel(0, 200)
			await page.mouse.click(600, %d)`, 200+20*(i%10))
	})
}

// useSlowly does something n times, each time 2 s before the sandbox would be paused, and fails the test
// if it was paused although the machine kept to that.
func (d *desk) useSlowly(t *testing.T, n int, use func(i int)) {
	t.Helper()
	var longest time.Duration
	last := time.Now()
	pauses := d.s.record(t, d.id).Totals.Pauses
	for i := range n {
		began := time.Now()
		use(i)
		longest, last = max(longest, time.Since(last)), began // the page sends at the earliest then, and at the latest now
		time.Sleep(d.s.idle - 2*time.Second)
	}
	if longest > d.s.idle-time.Second/2 {
		t.Logf("this machine took %s from one to the next: its pauses say nothing", longest)
		return
	}
	if paused := d.s.record(t, d.id).Totals.Pauses - pauses; paused != 0 {
		t.Errorf("somebody at work was paused %d times", paused)
	}
}
