package sandboxd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// early answers before it has read anything.
var early = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, r.URL.Path)
	_ = http.NewResponseController(w).Flush()
	go func() { _, _ = io.Copy(io.Discard, r.Body) }() // as a transport does, in its own time
})

// TestServeDuplex_keepsRequestsApart sends the end of a body after the answer has
// come: it must not be taken for the next request.
func TestServeDuplex_keepsRequestsApart(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveDuplex(w, r, early) }))
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for i := range 50 {
		path := fmt.Sprintf("/%d", i)
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nPOST\r\n", path)
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(i, res, err)
		}
		fmt.Fprint(c, "e\r\n /evil HTTP/1.\r\n0\r\n\r\n")
		if b, err := io.ReadAll(res.Body); err != nil || string(b) != path {
			t.Fatalf("%d: got %q, %v", i, b, err)
		}
	}
}

// TestServeDuplex_closesWhatHasNoEnd has more of a body than is read in vain.
func TestServeDuplex_closesWhatHasNoEnd(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serveDuplex(w, r, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413) }))
	}))
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 100<<20)
		for {
			if _, err := io.WriteString(c, strings.Repeat("x", 64<<10)); err != nil {
				return
			}
		}
	}()
	// it ends, well before all of it was read
	if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
}
