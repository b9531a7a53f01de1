package noise

import (
	"hash/maphash"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// folderMemory is twice JupyterLab's slowest poll of a folder.
	folderMemory = 10 * time.Minute
	// folderSame is how close two questions are the same one, asked again by who handles the request.
	folderSame = time.Second
	// folderKept bounds the memory: some 3 MB.
	folderKept = 1 << 16
)

// folders tells the poll of a folder from a person who opens one, which look the
// same: a poll asks for what its page has asked for not long ago. For its first
// ten minutes it can't know, and takes each for a poll, so that a new start does
// not wake whatever has a list of files open.
type folders struct {
	now func() time.Time

	mu    sync.Mutex // guards the following fields
	since time.Time  // when it began to remember
	asked map[uint64]asked
}

// asked is the last time that a page asked for a folder.
type asked struct {
	at   time.Time
	poll bool
}

func newFolders(now func() time.Time) *folders {
	return &folders{now: now, since: now(), asked: map[uint64]asked{}}
}

// polls tells whether r, which asks for a folder, is a poll.
func (f *folders) polls(r *http.Request) bool {
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	hash := maphash.Comparable(seed, [4]string{r.Host, r.URL.Path, client, header(r, "User-Agent")})
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	last, known := f.asked[hash]
	if known && now.Sub(last.at) < folderSame {
		return last.poll
	}
	poll := now.Sub(f.since) < folderMemory || known && now.Sub(last.at) < folderMemory
	if !known {
		f.unsyncedMakeRoom(now)
	}
	f.asked[hash] = asked{now, poll}
	return poll
}

// unsyncedMakeRoom forgets what is old, or anything if nothing is. f.mu must be held.
func (f *folders) unsyncedMakeRoom(now time.Time) {
	if len(f.asked) < folderKept {
		return
	}
	for hash, a := range f.asked {
		if now.Sub(a.at) >= folderMemory {
			delete(f.asked, hash)
		}
	}
	for hash := range f.asked {
		if len(f.asked) < folderKept {
			return
		}
		delete(f.asked, hash)
	}
}
