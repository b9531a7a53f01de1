package e2e_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// recordsHost builds the host of sandboxes without processes.
var recordsHost = sync.OnceValues(func() (string, error) {
	name := filepath.Join(filepath.Dir(sandmanBinary), "sandbench")
	cmd := exec.Command("go", "build", "-o", name, "./cmd/sandbench")
	cmd.Dir = repository
	return name, cmd.Run()
})

// startRecords starts a host with nothing in it, and returns its URL.
func startRecords(t *testing.T) string {
	t.Helper()
	program, err := recordsHost()
	if err != nil {
		t.Fatalf("building the host of records: %v", err)
	}
	port := freePort(t)
	p := startProcess(t, shortDir(t), nil, program, "records", fmt.Sprintf("127.0.0.1:%d", port))
	p.await(t, func() bool {
		r, err := http.Get(local(port) + "/health")
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	})
	return local(port)
}

// createMany creates sandboxes side by side, in turn of three owners.
func (s *sandman) createMany(t *testing.T, n int) {
	t.Helper()
	next := make(chan int)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := range next {
				r := s.apiRequest(t, http.MethodPost, "/sandboxes", fmt.Sprintf(`{"template":"base","metadata":{"userId":"owner%d"}}`, i%3))
				if a, err := s.do(r); err != nil || a.status != http.StatusCreated {
					t.Errorf("creating sandbox %d: %v %v", i, a, err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
}

// scroll scrolls through the whole list, a page of it in each frame, and returns the processor time that
// the page took for each, in ms: how long a frame takes by the clock is the machine's affair too.
const scroll = `
	const cdp = await context.newCDPSession(page)
	await cdp.send('Performance.enable', { timeDomain: 'threadTicks' })
	const busy = async () => (await cdp.send('Performance.getMetrics')).metrics.find(m => m.name === 'TaskDuration').value * 1000
	const times = []
	for (let more = true; more;) {
		const before = await busy()
		more = await page.evaluate(async () => {
			const box = document.querySelector('.rows')
			const before = box.scrollTop
			box.scrollBy(0, box.clientHeight)
			for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame)
			return box.scrollTop > before
		})
		times.push(await busy() - before)
	}
	await cdp.detach()
	times.sort((a, b) => a - b)
	const rows = await page.locator('.rows [data-sandbox]').evaluateAll(all => all.map(r => Number(r.getAttribute('aria-rowindex'))))
	return { frames: times.length, median: times[times.length >> 1], longest: times.at(-1), rows: rows.length, last: Math.max(...rows) }`

func TestDashboard_fiveThousand(t *testing.T) {
	t.Parallel()
	const n, late = 5000, 100
	s := start(t, options{host: startRecords(t)})
	s.createMany(t, n)
	d := openDashboard(t, s, token)
	d.await(t, "[data-sandbox]")
	d.await(t, `[role="table"][aria-rowcount="5001"]`)
	d.screenshot(t, "list")
	r := ask[struct {
		Frames, Rows, Last int
		Median, Longest    float64
	}](t, d.browser, scroll)
	t.Logf("%d frames, median %.1f ms of processor time, longest %.1f ms", r.Frames, r.Median, r.Longest)
	if r.Rows > 100 || r.Last < n {
		t.Errorf("%d rows are in the page, and the last one is %d of %d", r.Rows, r.Last, n)
	}
	if r.Median == 0 || r.Longest > late {
		t.Errorf("a frame took %.1f ms, and the usual one %.1f ms", r.Longest, r.Median)
	}
	d.do(t, `await page.getByLabel('Search').fill('owner2 4999')
		await page.getByLabel('Search').fill('owner1')`)
	d.await(t, `[role="table"][aria-rowcount="1668"]`)
}
