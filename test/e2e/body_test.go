package e2e_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// larger than what is kept of a body that may have to be sent again
const largeBody = 64 << 20

// A request that is known to meet a sleeping sandbox waits unread: a body of any size arrives whole.
func TestLargeUpload_toASleepingSandboxWaitsUnreadAndArrivesWhole(t *testing.T) {
	t.Parallel()
	host := startSandboxd(t, "resume_delay=2s")
	s := start(t, options{host: host.url})
	id, before := s.startAppIn(t)
	s.pause(t, id)
	for _, chunked := range []bool{false, true} {
		body := newCountedBody(largeBody)
		r := s.request(t.Context(), http.MethodPost, id, appPort, "/upload", body)
		if !chunked {
			r.ContentLength = largeBody
		}
		upload := make(chan result, 1)
		go func() {
			a, err := s.do(r)
			upload <- result{a, err}
		}()
		// the kernel's buffers take their part (of the receiver 32 MiB, of the sender 4), and nobody else
		if n := host.readWhileAsleep(t, id, body); n == 0 || n > largeBody*3/4 {
			t.Errorf("%d bytes of the body were read while the sandbox slept", n)
		}
		got := <-upload
		if got.err != nil || got.answer.status != http.StatusOK || got.answer.body != body.sum() {
			t.Errorf("wanted the checksum of %d bytes, got %v, %s", largeBody, got.err, got.answer)
		}
		s.pause(t, id)
	}
	requireContinued(t, before, s.mustAsk(t, id), 1)
}

// readWhileAsleep tells how much of the body was read before the sandbox ran by its host's word: what
// was read by then is counted first, and only then the host is asked.
func (d *sandboxd) readWhileAsleep(t *testing.T, id string, body *countedBody) (early int64) {
	t.Helper()
	for deadline := time.Now().Add(readyWithin); ; time.Sleep(20 * time.Millisecond) {
		n := body.read.Load()
		if d.state(t, id) == "running" {
			return early
		}
		early = n
		if time.Now().After(deadline) {
			t.Fatalf("an upload has not woken sandbox %s within %s", id, readyWithin)
		}
	}
}

// A POST that met the host's "paused" is sent again from what was kept of its body, and is carried out
// once. One of which more was sent than is kept is refused, with the sandbox awake for the next attempt.
func TestUpload_thatMetASandboxPausedBehindOurBack(t *testing.T) {
	t.Parallel()
	host := startSandboxd(t, "")
	s := start(t, options{host: host.url})
	id, before := s.startAppIn(t)
	var arrived int
	upload := func(size int64) answer {
		t.Helper()
		body := newCountedBody(size)
		r := s.request(t.Context(), http.MethodPost, id, appPort, "/upload", body)
		r.ContentLength = size
		a := s.mustDo(t, r)
		if a.status == http.StatusOK {
			arrived++
			if a.body != body.sum() || a.header.Get("Uploads") != strconv.Itoa(arrived) {
				t.Errorf("upload %d, of %d bytes, was seen as number %q: %s", arrived, size, a.header.Get("Uploads"), a)
			}
		}
		s.awaitState(t, time.Second, id, "RUNNING")
		return a
	}
	for _, size := range []int64{1, 100_000, 1 << 20} {
		host.pauseBehindOurBack(t, id)
		if a := upload(size); a.status != http.StatusOK {
			t.Errorf("a POST of %d bytes: %s", size, a)
		}
	}
	host.pauseBehindOurBack(t, id)
	if a := upload(largeBody); a.status != http.StatusOK { // the host said so before too much was sent
		requireProblem(t, a, http.StatusServiceUnavailable)
		if a.header.Get("Retry-After") == "" {
			t.Errorf("no Retry-After in %v", a.header)
		}
	}
	if a := upload(largeBody); a.status != http.StatusOK {
		t.Errorf("a POST of %d bytes to a sandbox that is awake: %s", largeBody, a)
	}
	requireContinued(t, before, s.mustAsk(t, id), 1)
}

// HEAD, ranges and conditions are the app's own business, also as the request that wakes.
func TestHeadAndRange_ofASleepingSandbox(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, before := s.startAppIn(t)
	ask := func(method string, header ...string) answer {
		t.Helper()
		s.pause(t, id)
		r := s.request(t.Context(), method, id, appPort, "/file", nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		return s.mustDo(t, r)
	}
	whole := ask(http.MethodGet)
	sum := sha256.Sum256([]byte(whole.body))
	if whole.status != http.StatusOK || hex.EncodeToString(sum[:]) != before.Memory {
		t.Fatalf("the file is not the app's: %s", whole)
	}
	if a := ask(http.MethodHead); a.status != http.StatusOK || a.body != "" || a.header.Get("Content-Length") != "4194304" {
		t.Errorf("HEAD: %s with %v", a, a.header)
	}
	if a := ask(http.MethodGet, "Range", "bytes=1000-1999"); a.status != http.StatusPartialContent ||
		a.header.Get("Content-Range") != "bytes 1000-1999/4194304" || a.body != whole.body[1000:2000] {
		t.Errorf("a range: %s with %v", a, a.header)
	}
	if a := ask(http.MethodGet, "If-Modified-Since", whole.header.Get("Last-Modified")); a.status != http.StatusNotModified {
		t.Errorf("a file that was not modified: %s", a)
	}
	requireContinued(t, before, s.mustAsk(t, id), 1)
}

// countedBody is a body of random bytes that tells how much of it was read, and what it was.
type countedBody struct {
	io.Reader
	read atomic.Int64
	sha  func() []byte
}

func newCountedBody(size int64) *countedBody {
	hash := sha256.New()
	return &countedBody{
		Reader: io.TeeReader(io.LimitReader(rand.Reader, size), hash),
		sha:    func() []byte { return hash.Sum(nil) },
	}
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.read.Add(int64(n))
	return n, err
}

func (b *countedBody) sum() string { return hex.EncodeToString(b.sha()) }

// pauseBehindOurBack pauses a sandbox straight at its host.
func (s *sandboxd) pauseBehindOurBack(t *testing.T, id string) {
	t.Helper()
	if a := s.rest(t, http.MethodPost, "/sandboxes/"+id+"/pause", "{}"); a.status != http.StatusNoContent {
		t.Fatalf("pausing straight at the host: %s", a)
	}
}
