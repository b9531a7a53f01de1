package sandboxd

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
)

// (White box: the wall clock is passed in, or the record changed as a clock
// that is set would have it.)
func TestLifetime_whenTheClockIsSet(t *testing.T) {
	t.Parallel()
	set := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	end := set.Add(5 * time.Minute)
	for name, step := range map[string]time.Duration{"not": 0, "trimmed": 500 * time.Millisecond, "back": -time.Hour, "ahead": time.Hour} {
		now, left := set.Add(2*time.Minute+step), 3*time.Minute
		shown := shownEnd(end, now, left)
		if off := (shown.Sub(now) - left).Abs(); off > time.Second {
			t.Errorf("%s: the end that is shown is off by %s", name, off)
		}
		if step < time.Second && step > -time.Second && !shown.Equal(end) {
			t.Errorf("%s: the end that was set is shown as %s", name, shown)
		}
	}
}

// What is left of a lifetime is told by one look at the clock, which may be set
// before the answer is written: the server does not have to add the date.
func TestGet_saysTheTimeThatItsEndGoesBy(t *testing.T) {
	t.Parallel()
	const life = 5 * time.Minute
	s := &sandbox{id: "i1", rec: record{ID: "i1", State: StateRunning, EndAt: time.Now().Add(life)}}
	w := httptest.NewRecorder()
	(&api{}).get(w, nil, s)
	var d e2b.SandboxDetail
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	date, err := http.ParseTime(w.Header().Get("Date"))
	if left := d.EndAt.Sub(date); err != nil || left > life+time.Second || left < life-time.Minute {
		t.Errorf("%s are left at %s (%v)", left, date, err)
	}
}

// Meanwhile no host is there, and the wall clock is set by an hour: what the
// record says by it is wrong.
func TestLifetime_whenTheClockIsSetBetweenHosts(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{-time.Hour, time.Hour} {
		dir := filepath.Join(t.TempDir(), "i1")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		rec := record{ID: "i1", State: StateRunning, EndAt: time.Now().Add(5 * time.Minute)}
		if err := rec.save(dir); err != nil {
			t.Fatal(err)
		}
		var saved map[string]any
		file := filepath.Join(dir, recordFile)
		b, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(b, &saved)
		}
		if err != nil {
			t.Fatal(err)
		}
		saved["endAt"] = rec.EndAt.Add(step)
		if b, err = json.Marshal(saved); err == nil {
			err = os.WriteFile(file, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := loadRecord(dir)
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(loaded.EndAt); left > 5*time.Minute || left < 4*time.Minute {
			t.Errorf("after a step of %s %s are left", -step, left)
		}
	}
}

// A paused sandbox's time is that of its pause, for people.
func TestRecord_keepsTheTimeOfThePause(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "i1")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	paused := time.Now().Add(-time.Hour)
	rec := record{ID: "i1", State: StatePaused, EndAt: paused}
	if err := rec.save(dir); err != nil {
		t.Fatal(err)
	}
	if loaded, err := loadRecord(dir); err != nil || !loaded.EndAt.Equal(paused) || !loaded.listed(time.Now()).EndAt.Equal(paused) {
		t.Errorf("%+v, %v", loaded, err)
	}
}

// After the clock was set back, what was started later looks older: pages that
// went by another clock than their tokens would leave out sandboxes.
func TestList_whenTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	now := time.Now()
	h := &Host{sandboxes: map[string]*sandbox{}}
	for id, at := range map[string]time.Time{"ia": now, "ib": now.Round(0).Add(-time.Hour), "ic": now.Add(time.Second), "id": now.Round(0).Add(-time.Minute)} {
		h.sandboxes[id] = &sandbox{id: id, rec: record{ID: id, State: StateRunning, StartedAt: at}}
	}
	a := &api{host: h}
	for _, ascending := range []bool{false, true} {
		var got []string
		q := listQuery{running: true, limit: 1, ascending: ascending}
		for range h.sandboxes {
			page, next := a.page(q)
			if len(page) != 1 {
				t.Fatalf("a page of %d after %v", len(page), got)
			}
			got = append(got, page[0].SandboxID)
			q.after, _ = parseToken(next, ascending)
		}
		want := []string{"ic", "ia", "id", "ib"}
		if ascending {
			slices.Reverse(want)
		}
		if !slices.Equal(got, want) {
			t.Errorf("ascending %t: %v, want %v", ascending, got, want)
		}
	}
	if n := a.count(listQuery{running: true, limit: 1}); n != len(h.sandboxes) {
		t.Errorf("counted %d", n)
	}
}
