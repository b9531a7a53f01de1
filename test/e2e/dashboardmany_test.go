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

// scroll scrolls the list from one part of its length to another by whole pages, one in each frame,
// and tells of the frames, in ms.
const scroll = `return await page.evaluate(async ([from, to]) => {
	const box = document.querySelector('.rows')
	box.scrollTop = from * box.scrollHeight
	for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame)
	const times = []
	let before = performance.now()
	for (let top = box.scrollTop; top < to * box.scrollHeight; top += box.clientHeight) {
		box.scrollTop = top
		const now = await new Promise(requestAnimationFrame)
		times.push(now - before)
		before = now
	}
	for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame)
	times.sort((a, b) => a - b)
	const rows = [...document.querySelectorAll('.rows [data-sandbox]')]
	return { frames: times.length, median: times[times.length >> 1], longest: times.at(-1), rows: rows.length, last: Number(rows.at(-1).getAttribute('aria-rowindex')) }
}, [%f, %f])`

// The machine does ten things at once while this runs, and makes frames late that are no fault of the
// page. So each part of the list is scrolled through until no frame was late; a frame that the page itself
// made late would be late each time.
func TestDashboard_fiveThousand(t *testing.T) {
	t.Parallel()
	const n, parts, tries, late = 5000, 20, 25, 100
	s := start(t, options{host: startRecords(t)})
	s.createMany(t, n)
	d := openDashboard(t, s, token)
	d.await(t, "[data-sandbox]")
	d.await(t, `[role="table"][aria-rowcount="5001"]`)
	d.screenshot(t, "list")
	for part := range parts {
		var longest []float64
		for len(longest) == 0 || longest[len(longest)-1] > late && len(longest) < tries {
			r := ask[struct {
				Frames, Rows, Last int
				Median, Longest    float64
			}](t, d.browser, scroll, float64(part)/parts, float64(part+1)/parts)
			longest = append(longest, r.Longest)
			if want := (part + 1) * n / parts; r.Rows > 100 || r.Last < want-10 {
				t.Fatalf("%d rows are in the page, the last one is %d, wanted %d", r.Rows, r.Last, want)
			}
			if r.Longest <= late {
				t.Logf("part %d: %d frames, median %.1f ms, longest %.1f ms", part, r.Frames, r.Median, r.Longest)
			}
		}
		if longest[len(longest)-1] > late {
			t.Errorf("part %d of the list can't be scrolled through without a frame of more than %d ms: %.1f", part, late, longest)
		}
	}
	d.do(t, `await page.getByLabel('Search').fill('owner2 4999')
		await page.getByLabel('Search').fill('owner1')`)
	d.await(t, `[role="table"][aria-rowcount="1668"]`)
}
