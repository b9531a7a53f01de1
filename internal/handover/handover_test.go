package handover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/handover"
)

func TestListen_losesNoRequest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tls, keep bool
		parts     []string
	}{
		"new connections":            {parts: []string{getRequest}},
		"new connections, by TLS":    {tls: true, parts: []string{getRequest}},
		"kept connections":           {keep: true, parts: []string{getRequest}},
		"kept, with a body":          {keep: true, parts: []string{postRequest}},
		"kept, the body for itself":  {keep: true, parts: []string{postHead, "body"}},
		"new, a head in many pieces": {parts: strings.SplitAfter(getRequest, "\n")},
		"kept, heads in many pieces": {keep: true, parts: strings.SplitAfter(postRequest, "\n")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p place
			if c.tls {
				p.tls = newTLS(t)
			}
			former := p.next(t, "0", nil)
			ctx, stop := context.WithCancel(t.Context())
			asked := make(chan struct{}, 20)
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for ctx.Err() == nil {
						conn := p.dial(t)
						for closes := false; !closes && ctx.Err() == nil; {
							conn.send(t, c.parts...)
							_, announced, err := conn.receive()
							if err != nil {
								t.Errorf("a request is lost: %v", err)
								stop()
							}
							closes = announced || !c.keep
							select {
							case asked <- struct{}{}:
							default:
							}
						}
						conn.Close()
					}
				})
			}
			for n := range 30 {
				for range cap(asked) {
					select {
					case <-asked:
					case <-ctx.Done():
					}
				}
				newer := p.next(t, fmt.Sprint(n+1), nil)
				requireEnded(t, former.shutDown(t))
				former = newer
			}
			stop()
			all.Wait()
		})
	}
}

func TestListen_givesTheNextServer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, then string
		answered     bool // before
		want         string
	}{
		"a silent connection":   {then: getRequest, want: "new: GET /a "},
		"half a head":           {before: getRequest[:30], then: getRequest[30:], want: "new: GET /a "},
		"a kept connection":     {before: postRequest, answered: true, then: getRequest, want: "new: GET /a "},
		"half a head on a kept": {before: getRequest, answered: true, then: postRequest, want: "new: POST /b body"},
		"a head as long as allowed": {
			before: "GET /a HTTP/1.1\r\nHost: here\r\nA: " + strings.Repeat("a", 20_000), then: "\r\n\r\n", want: "new: GET /a ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p place
			former := p.next(t, "old", nil)
			conn := p.dial(t)
			conn.send(t, c.before)
			if c.answered {
				if got, _, err := conn.receive(); err != nil || !strings.HasPrefix(got, "old: ") {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			p.next(t, "new", nil)
			down := former.shutDown(t)
			conn.send(t, c.then)
			conn.expect(t, c.want)
			requireEnded(t, down)
			conn.send(t, getRequest)
			conn.expect(t, "new: GET /a ")
		})
	}
}

func TestListen_leavesWhatIsBeingServed(t *testing.T) {
	t.Parallel()
	var p place
	began, release := make(chan struct{}), make(chan struct{})
	former := p.next(t, "old", func(http.ResponseWriter, *http.Request) { close(began); <-release })
	conn := p.dial(t)
	conn.send(t, postHead)
	<-began
	p.next(t, "new", nil)
	down := former.shutDown(t)
	close(release)
	conn.send(t, "body")
	conn.expect(t, "old: POST /b body")
	requireEnded(t, down)
}

// A request that was begun is nobody else's, even where it ends without a byte.
func TestListen_repeatsNothing(t *testing.T) {
	t.Parallel()
	var p place
	began, release := make(chan struct{}), make(chan struct{})
	former := p.next(t, "old", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		close(began)
		<-release
		panic(http.ErrAbortHandler)
	})
	conn := p.dial(t)
	conn.send(t, postRequest)
	<-began
	p.next(t, "new", func(http.ResponseWriter, *http.Request) { t.Error("the request has come twice") })
	down := former.shutDown(t)
	close(release)
	if got, _, err := conn.receive(); err == nil {
		t.Errorf("got %q", got)
	}
	requireEnded(t, down)
}

// What was sent ahead, beside another request, is answered or the connection closes: it doesn't hang.
func TestListen_bearsPipelining(t *testing.T) {
	t.Parallel()
	for _, more := range []string{getRequest, getRequest[:1], getRequest[:3], getRequest[:20]} {
		t.Run(fmt.Sprint(len(more)), func(t *testing.T) {
			t.Parallel()
			var p place
			began, release := make(chan struct{}), make(chan struct{})
			former := p.next(t, "old", func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/first" {
					w.(http.Flusher).Flush() // without a word on whether the connection will be closed
					close(began)
					<-release
				}
			})
			conn := p.dial(t)
			conn.send(t, strings.Replace(getRequest, "/a", "/first", 1)+more)
			<-began
			p.next(t, "new", nil)
			down := former.shutDown(t)
			close(release)
			conn.expect(t, "old: GET /first ")
			conn.send(t, getRequest[len(more)%len(getRequest):])
			if got, _, err := conn.receive(); err == nil && !strings.HasSuffix(got, ": GET /a ") {
				t.Errorf("got %q", got)
			} else if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("it hangs")
			}
			requireEnded(t, down)
		})
	}
}

// Where there is no next server, or there is none any more, everything is as it was.
func TestListen_theLastOneStays(t *testing.T) {
	t.Parallel()
	var p place
	former := p.next(t, "old", nil)
	failed := p.next(t, "failed", nil)
	silent := p.dial(t)
	requireEnded(t, failed.shutDown(t))
	silent.send(t, getRequest)
	silent.expect(t, "old: GET /a ")
	conn := p.dial(t)
	conn.send(t, getRequest)
	conn.expect(t, "old: GET /a ")

	requireEnded(t, former.shutDown(t))
	if got, _, err := conn.receive(); err == nil {
		t.Errorf("the last server is gone, and answers %q", got)
	}
	if got, _, err := silent.receive(); err == nil {
		t.Errorf("the last server is gone, and answers %q", got)
	}
	ln, err := net.Listen("tcp", p.addr)
	if err != nil {
		t.Fatalf("the address is not free: %v", err)
	}
	ln.Close()
}

// Until it leads, a listener gets nothing while another one is there.
func TestListen_waitsForItsTurn(t *testing.T) {
	t.Parallel()
	var p place
	former := p.next(t, "old", nil)
	kept := p.dial(t)
	kept.send(t, getRequest)
	kept.expect(t, "old: GET /a ")
	p.later(t, "new", nil)
	for _, conn := range []*client{kept, p.dial(t)} {
		conn.send(t, getRequest)
		conn.expect(t, "old: GET /a ")
	}
	down := former.shutDown(t)
	for _, conn := range []*client{kept, p.dial(t)} {
		conn.send(t, getRequest)
		conn.expect(t, "new: GET /a ")
	}
	requireEnded(t, down)
}

func TestListen_closesWhatIsIdleForTooLong(t *testing.T) {
	t.Parallel()
	p := place{idle: 100 * time.Millisecond}
	p.next(t, "old", nil)
	conn := p.dial(t)
	conn.send(t, getRequest)
	conn.expect(t, "old: GET /a ")
	p.next(t, "new", nil) // for what is not idle for too long
	if got, _, err := conn.receive(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v; want the end", got, err)
	}
}

// Other protocols are the server's that has begun with them, to their end.
func TestListen_leavesOtherProtocols(t *testing.T) {
	t.Parallel()
	t.Run("after an upgrade", func(t *testing.T) {
		t.Parallel()
		var p place
		former := p.next(t, "old", func(w http.ResponseWriter, _ *http.Request) {
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, rw)
			}()
			panic(http.ErrAbortHandler) // the rest of the handler is for requests
		})
		conn := p.dial(t)
		conn.send(t, getRequest, "before")
		conn.echo(t, "before")
		p.next(t, "new", nil)
		requireEnded(t, former.shutDown(t))
		conn.send(t, "after")
		conn.echo(t, "after")
	})
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		var p place
		began, release := make(chan struct{}), make(chan struct{})
		former := p.next(t, "old", func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/first" {
				close(began)
				<-release
			}
		})
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		transport := &http.Transport{Protocols: protocols}
		defer transport.CloseIdleConnections()
		get := func(path, want string) {
			res, err := (&http.Client{Transport: transport, Timeout: soon}).Get("http://" + p.addr + path)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if got, err := io.ReadAll(res.Body); err != nil || string(got) != want || res.ProtoMajor != 2 {
				t.Errorf("got %q by %s, %v; want %q", got, res.Proto, err, want)
			}
		}
		var all sync.WaitGroup
		all.Go(func() { get("/first", "old: GET /first ") })
		<-began
		p.next(t, "new", nil)
		down := former.shutDown(t)
		close(release)
		all.Wait()
		requireEnded(t, down)
		get("/a", "new: GET /a ")
	})
}

// By TLS, what has begun to come is not taken: the next server waits until the former serves it.
func TestListen_waitsForWhatIsComing(t *testing.T) {
	t.Parallel()
	p := place{tls: newTLS(t), made: make(chan struct{}, 1)}
	former := p.next(t, "old", nil)
	conn := p.dial(t)
	conn.send(t, getRequest[:30])
	<-p.made
	go func() {
		if _, err := io.WriteString(conn, getRequest[30:]); err != nil {
			t.Error(err)
		}
	}()
	p.next(t, "new", nil)
	down := former.shutDown(t)
	conn.expect(t, "old: GET /a ")
	requireEnded(t, down)
}

func TestListen_saysWhyItCannot(t *testing.T) {
	t.Parallel()
	var p place
	reason := errors.New("the address is in use")
	for range 2 {
		ln, err := p.sockets.Listen(handover.Config{Address: "here", Open: func() (net.Listener, error) { return nil, reason }})
		if !errors.Is(err, reason) {
			t.Errorf("got %v, %v; want %v", ln, err, reason)
		}
	}
	p.next(t, "then", nil)
	conn := p.dial(t)
	conn.send(t, getRequest)
	conn.expect(t, "then: GET /a ")
}
