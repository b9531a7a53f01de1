package wake

import (
	"errors"
	"sync"
	"time"

	"github.com/patrickmn/go-cache"

	"github.com/sandman-proxy/sandman/internal/session"
)

// doubts remember which sandboxes a host has answered "paused" for although
// they had just been woken, or found to run: where its API and its data plane
// contradict each other, or two hosts are taken for one. Nothing fails there, so
// no record has a back-off, and each request would wake it again and again.
type doubts struct {
	mu   sync.Mutex   // guards all doubts
	byID *cache.Cache // of *doubt
}

// doubt is a row of contradictions between which the sandbox was never awake for
// long.
type doubt struct {
	since    time.Time // when the first one came
	count    int
	revision int64     // of the record that was contradicted last; 0: it was woken since
	wokenAt  time.Time // without the store; zero: not
}

const (
	// freeDoubts are how many in a row may come of a sandbox that somebody else
	// pauses.
	freeDoubts = 3
	// longAwake ends a row.
	longAwake = 10 * time.Second
	maxDoubts = 10_000
)

// ErrContradicts is the Cause of a NotYetError where what the host's API says and what its sandbox's address
// answers don't go together.
var ErrContradicts = errors.New("its host says that it runs, and answers requests as if it did not")

func newDoubts() doubts { return doubts{byID: cache.New(2*maxBackoff, 0)} }

// note takes down that the record was contradicted, once for all who say so. It
// tells how long no wake is to be begun, and how long the row lasts already.
func (d *doubts) note(s *session.Snapshot) (rest, lasts time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	row, now, awakeSince := d.unsyncedGet(s.SandboxID), time.Now(), s.Seen
	if row != nil && row.wokenAt.After(awakeSince) {
		awakeSince = row.wokenAt
	}
	fresh := row == nil || row.revision != s.Revision
	if row == nil || fresh && now.Sub(awakeSince) > longAwake {
		row = &doubt{since: now}
		if d.byID.ItemCount() >= maxDoubts {
			d.byID.DeleteExpired()
		}
	}
	if fresh {
		row.revision = s.Revision
		row.count++
	}
	d.byID.SetDefault(s.SandboxID, row)
	if row.count > freeDoubts {
		rest = time.Until(awakeSince.Add(backoff(row.count - freeDoubts - 1)))
	}
	return rest, now.Sub(row.since)
}

// woken notes that the sandbox was woken, which no record shows.
func (d *doubts) woken(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if row := d.unsyncedGet(id); row != nil {
		row.revision, row.wokenAt = 0, time.Now()
	}
}

// d.mu must be held.
func (d *doubts) unsyncedGet(id string) *doubt {
	known, _ := d.byID.Get(id)
	row, _ := known.(*doubt)
	return row
}
