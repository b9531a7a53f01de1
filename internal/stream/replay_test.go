package stream_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/sandman-proxy/sandman/internal/stream"
)

func randomBytes(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.Read(p)
	return p
}

// attempt returns the next body, which there must be.
func attempt(t *testing.T, r *stream.Replay) io.ReadCloser {
	t.Helper()
	body, ok := r.Attempt()
	if !ok {
		t.Fatal("no further attempt")
	}
	return body
}

func TestReplay_givesEachAttemptTheWholeBody(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		size  int
		limit int64
		read  []int // by the attempts before the last
		again bool
	}{
		{"one attempt", 1000, 0, nil, true},
		{"empty", 0, 0, []int{10}, true},
		{"nothing read", 1000, 0, []int{0, 0}, true},
		{"a part read", 1000, 1000, []int{300}, true},
		{"more each time", 1000, 1000, []int{300, 600, 900}, true},
		{"less each time", 1000, 1000, []int{900, 600, 300}, true},
		{"all read, at the limit", 1000, 1000, []int{1000, 1000}, true},
		{"read up to the limit of a longer body", 1 << 20, 1000, []int{1000}, true},
		{"one byte above the limit", 1001, 1000, []int{1001}, false},
		{"above the limit in the second attempt", 5000, 1000, []int{500, 1001}, false},
		{"no limit left", 1, 0, []int{1}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := randomBytes(tt.size)
			r := stream.NewReplay(io.NopCloser(bytes.NewReader(want)), tt.limit)
			for _, n := range tt.read {
				got, err := io.ReadAll(io.LimitReader(attempt(t, r), int64(n)))
				if err != nil || !bytes.Equal(got, want[:min(n, tt.size)]) {
					t.Fatalf("an attempt that reads %d got %d bytes, %v", n, len(got), err)
				}
			}
			body, again := r.Attempt()
			if again != tt.again {
				t.Fatalf("a further attempt: %v", again)
			}
			if !again {
				return
			}
			if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("the last attempt got %d of %d bytes, %v", len(got), len(want), err)
			}
		})
	}
}

func TestReplay_repeatsTheEndOfTheBody(t *testing.T) {
	t.Parallel()
	gone := errors.New("the client is gone")
	source := iotest.DataErrReader(io.MultiReader(bytes.NewReader([]byte("abc")), iotest.ErrReader(gone)))
	r := stream.NewReplay(io.NopCloser(source), 100)
	for range 3 {
		if got, err := io.ReadAll(attempt(t, r)); string(got) != "abc" || !errors.Is(err, gone) {
			t.Fatalf("an attempt got %q, %v", got, err)
		}
	}
}

func TestReplay_refusesBodiesOfEarlierAttempts(t *testing.T) {
	t.Parallel()
	source := bytes.NewReader([]byte("abcdef"))
	r := stream.NewReplay(io.NopCloser(source), 100)
	first := attempt(t, r)
	_, _ = io.ReadFull(first, make([]byte, 2))
	second := attempt(t, r) // ends the first although nobody closed it
	closed := attempt(t, r)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, late := range map[string]io.Reader{"first": first, "second": second, "closed": closed} {
		if n, err := late.Read(make([]byte, 10)); n != 0 || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a late Read of the %s attempt = %d, %v", name, n, err)
		}
	}
	if source.Len() != 4 {
		t.Errorf("late reads took %d bytes", 4-source.Len())
	}
	if got, err := io.ReadAll(attempt(t, r)); string(got) != "abcdef" || err != nil {
		t.Errorf("the next attempt got %q, %v", got, err)
	}
}

// The transport's write loop sits in a Read of the client's bytes when the answer
// comes: what that Read gets must reach the next attempt.
func TestReplay_keepsWhatALateReadTakes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		limit      int64
		last       bool // the next attempt begins before the late read ends
		again      bool // an attempt can be made after it
		beforeLate string
	}{
		{"next attempt waits for it", 100, true, true, "ab"},
		{"next attempt begins later", 100, false, true, "ab"},
		{"above the limit, promised to the next attempt", 2, true, false, "ab"},
		{"above the limit, promised to nobody", 2, false, false, "ab"},
		{"first bytes", 100, true, true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				source, client := io.Pipe()
				r := stream.NewReplay(source, tt.limit)
				first := attempt(t, r)
				if tt.beforeLate != "" { // a pipe gives even an empty write to a Read
					go func() { _, _ = io.WriteString(client, tt.beforeLate) }()
				}
				_, _ = io.ReadFull(first, make([]byte, len(tt.beforeLate)))

				late := make(chan error, 1)
				go func() {
					_, err := first.Read(make([]byte, 10))
					late <- err
				}()
				synctest.Wait() // the late Read is under way
				_ = first.Close()

				var reading sync.WaitGroup
				next := func() {
					body := attempt(t, r)
					reading.Go(func() {
						if got, err := io.ReadAll(body); string(got) != tt.beforeLate+"late rest" || err != nil {
							t.Errorf("the next attempt got %q, %v", got, err)
						}
					})
				}
				if tt.last {
					next()
					synctest.Wait() // it waits for the late Read
				}
				_, _ = io.WriteString(client, "late")
				if err := <-late; err == nil {
					t.Error("the late Read gave its bytes to the first attempt")
				}
				if !tt.last && tt.again {
					next()
				}
				if tt.last || tt.again {
					_, _ = io.WriteString(client, " rest")
				}
				_ = client.Close()
				reading.Wait()
				if _, again := r.Attempt(); again != tt.again {
					t.Errorf("a further attempt: %v", again)
				}
			})
		})
	}
}

func TestReplay_closingAnAttemptEndsItsWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source, client := io.Pipe()
		r := stream.NewReplay(source, 100)
		ended := make(chan error, 2)
		read := func(body io.Reader) {
			_, err := body.Read(make([]byte, 10))
			ended <- err
		}
		first := attempt(t, r)
		go read(first)
		synctest.Wait()
		second := attempt(t, r)
		go read(second)
		synctest.Wait() // the first reads, the second waits for it
		_ = second.Close()
		if err := <-ended; err == nil {
			t.Error("the second attempt's Read gives no error")
		}
		_ = client.Close()
		if err := <-ended; err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the first attempt's late Read = %v", err)
		}
	})
}

// Any source, any chunks, any number of attempts, each abandoned at any point with
// a reader still at work: each gets a prefix of the body, the last gets it whole.
func TestReplay_losesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := mathrand.New(mathrand.NewPCG(seed, 1))
			want := randomBytes(random.IntN(100_000))
			limit := random.Int64N(120_000)
			r := stream.NewReplay(io.NopCloser(&choppy{rest: want, random: mathrand.New(mathrand.NewPCG(seed, 2))}), limit)

			var readers sync.WaitGroup
			defer readers.Wait()
			for range random.IntN(5) {
				body, ok := r.Attempt()
				if !ok {
					return // read too much: allowed, and asserted elsewhere
				}
				stop := random.IntN(len(want) + 1)
				reached := make(chan struct{})
				readers.Go(func() { readPrefix(t, body, want, stop, reached) })
				<-reached
				_ = body.Close() // with a Read under way or not
			}
			body, ok := r.Attempt()
			if !ok {
				return
			}
			if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the last attempt got %d of %d bytes, %v", len(got), len(want), err)
			}
		})
	}
}

// readPrefix reads until an error, and says when stop bytes are there.
func readPrefix(t *testing.T, body io.Reader, want []byte, stop int, reached chan struct{}) {
	var got []byte
	told := false
	for {
		if !told && len(got) >= stop {
			told = true
			close(reached)
		}
		p := make([]byte, 1+len(got)%5000)
		n, err := body.Read(p)
		got = append(got, p[:n]...)
		if err != nil {
			break
		}
	}
	if !told {
		close(reached)
	}
	if !bytes.HasPrefix(want, got) {
		t.Errorf("an attempt got %d bytes that are no prefix of the body", len(got))
	}
}

// choppy is a source that gives pieces of any size, nothing at times, and its end
// with or after the last bytes.
type choppy struct {
	rest   []byte
	random *mathrand.Rand
}

func (c *choppy) Read(p []byte) (int, error) {
	n := copy(p, c.rest[:c.random.IntN(min(len(c.rest), 4000)+1)])
	c.rest = c.rest[n:]
	if len(c.rest) == 0 && c.random.IntN(2) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// A real transport, against an app that answers (or hangs up) before it has read
// the upload, as a host does for a sandbox that sleeps.
func TestReplay_servesARealTransport(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Attempt") {
		case "0":
			w.WriteHeader(http.StatusBadGateway) // the upload is unread
		case "1":
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler) // the connection breaks
		default:
			body, _ := io.ReadAll(r.Body) // whole: an answer that begins ends the reading
			_, _ = w.Write(body)
		}
	}))
	t.Cleanup(app.Close)
	for _, size := range []int{1, 5_000, 300_000} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d bytes, chunked %v", size, chunked), func(t *testing.T) {
				t.Parallel()
				transport := &http.Transport{}
				t.Cleanup(transport.CloseIdleConnections)
				want := randomBytes(size)
				r := stream.NewReplay(io.NopCloser(iotest.HalfReader(bytes.NewReader(want))), 1<<20)
				for i := range 3 {
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, app.URL, attempt(t, r))
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Attempt", fmt.Sprint(i))
					if req.ContentLength = int64(size); chunked {
						req.ContentLength = -1
					}
					res, err := transport.RoundTrip(req)
					if i < 2 {
						if err == nil {
							_ = res.Body.Close()
						}
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(res.Body)
					if err != nil || !bytes.Equal(got, want) {
						t.Fatalf("the app got %d of %d bytes, %v", len(got), size, err)
					}
					_ = res.Body.Close()
				}
			})
		}
	}
}
