package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

func TestHTTP3_wakesAndBringsUploadsWhole(t *testing.T) {
	t.Parallel()
	s, site := startSite(t, 0)
	site.speakHTTP3(t)
	id, before := s.startAppIn(t)
	s.pause(t, id)
	var state appState
	site.mustGet(t, id, "/state").decode(t, &state)
	requireContinued(t, before, state, 1)

	const size = 1 << 20
	for n, length := range []int64{size, -1} { // told beforehand, and not
		s.pause(t, id)
		body := newCountedBody(size)
		r := site.request(t, id, http.MethodPost, "/upload", "")
		r.Body, r.ContentLength = io.NopCloser(body), length
		a := (&e2b{http: site.http}).mustDo(t, r)
		if a.status != http.StatusOK || a.body != body.sum() {
			t.Errorf("an upload of %d bytes (told: %d) to a sleeping sandbox: %s", size, length, a)
		}
		if wakes := s.record(t, id).Totals.Wakes; wakes != n+2 {
			t.Errorf("after %d requests to a sleeping sandbox it was woken %d times", n+2, wakes)
		}
	}
}

// What moves over HTTP/3 keeps the sandbox awake, in both directions, and no longer.
func TestHTTP3_activityCounts(t *testing.T) {
	t.Parallel()
	s, site := startSite(t, 3*time.Second)
	site.speakHTTP3(t)
	id, _ := s.startAppIn(t)
	seconds := 3 * int(s.idle/time.Second)

	watch := s.watchAwake(t, id)
	upload := site.request(t, id, http.MethodPut, "/upload", "")
	upload.Body, upload.ContentLength = io.NopCloser(oneByteASecond(t.Context(), bytes.Repeat([]byte("u"), seconds))), -1
	if a := (&e2b{http: site.http}).mustDo(t, upload); a.status != http.StatusOK {
		t.Errorf("a slow upload: %s", a)
	}
	watch.end(t)

	watch = s.watchAwake(t, id)
	download, _ := site.download(t, id, seconds)
	lastUse := time.Now()
	for n := range seconds + 1 {
		lastUse = time.Now() // before the next byte passes
		if _, err := download.ReadByte(); err != nil {
			t.Fatalf("byte %d of a slow download: %v", n, err)
		}
		if took := time.Since(lastUse); took > 3*time.Second {
			t.Errorf("byte %d, of one a second, came after %s", n, took)
		}
	}
	watch.end(t)
	s.requirePausedOnTime(t, id, lastUse)

	// a client that goes away in the middle holds nothing
	download, leave := site.download(t, id, 300)
	if _, err := download.ReadByte(); err != nil {
		t.Fatal(err)
	}
	lastUse = time.Now()
	leave()
	s.requirePausedOnTime(t, id, lastUse)
}

// download begins one of a byte a second, which leave ends.
func (o *ownSite) download(t *testing.T, id string, seconds int) (body *bufio.Reader, leave context.CancelFunc) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	t.Cleanup(leave)
	res, err := o.http.Do(o.request(t, id, http.MethodGet, fmt.Sprintf("/slow?seconds=%d", seconds), "").WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 3 {
		t.Fatalf("a download is answered by HTTP/%d with %d", res.ProtoMajor, res.StatusCode)
	}
	return bufio.NewReader(res.Body), leave
}

// mustGet fails the test unless the answer is a success over HTTP/3.
func (o *ownSite) mustGet(t *testing.T, id, path string) answer {
	t.Helper()
	res, err := o.http.Do(o.request(t, id, http.MethodGet, path, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || res.ProtoMajor != 3 {
		t.Fatalf("answered by HTTP/%d with %d: %q, %v", res.ProtoMajor, res.StatusCode, body, err)
	}
	return answer{res.StatusCode, res.Header, string(body)}
}

// speakHTTP3 makes the client one of HTTP/3, as browsers become that have seen where it is offered.
func (o *ownSite) speakHTTP3(t *testing.T) {
	t.Helper()
	offer := o.get(t, "none", "/", func(*http.Request) {}).header.Get("Alt-Svc")
	if want := fmt.Sprintf(`h3=":%d"`, o.port); !strings.Contains(offer, want) {
		t.Errorf("HTTP/3 is offered by Alt-Svc %q, want %s", offer, want)
	}
	address := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: o.port}
	transport := &http3.Transport{
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // a CA of the test's own
		DisableCompression: true,
		Dial: func(ctx context.Context, _ string, secure *tls.Config, cfg *quic.Config) (*quic.Conn, error) {
			return quic.DialAddrEarly(ctx, address.String(), secure, cfg)
		},
	}
	t.Cleanup(func() { _ = transport.Close() })
	o.http = &http.Client{Transport: transport}
}
