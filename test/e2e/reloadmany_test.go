package e2e_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// manyClients are of all kinds but one: HTTP/1.1 on kept connections by TLS, where a request may meet
// the connection's end at any time.
func (o *ownSite) manyClients(plain string) map[string]*http.Client {
	dial := dialTo(fmt.Sprintf("127.0.0.1:%d", o.port))
	anyCA := &tls.Config{InsecureSkipVerify: true} // the test's own
	byTLS := func(http2, once bool) *http.Client {
		return &http.Client{Transport: &http.Transport{DialContext: dial, ForceAttemptHTTP2: http2, DisableKeepAlives: once, TLSClientConfig: anyCA.Clone()}}
	}
	return map[string]*http.Client{
		"HTTP/1.1, new connections":         {Transport: &http.Transport{DialContext: dialTo(plain), DisableKeepAlives: true}},
		"HTTP/1.1, kept connections":        {Transport: &http.Transport{DialContext: dialTo(plain), MaxIdleConnsPerHost: 100}},
		"HTTP/1.1 by TLS, new connections":  byTLS(false, true),
		"HTTP/2, new connections":           byTLS(true, true),
		"HTTP/2, a connection that is kept": byTLS(true, false),
	}
}

func TestReload_losesNoRequestOfManyClients(t *testing.T) {
	t.Parallel()
	own := &ownSite{port: freePort(t)}
	o := options{data: filepath.Join(shortDir(t), "d"), caddyfile: strings.NewReplacer(
		"persist_config off", ownCertificates,
		"http://:{$SANDMAN_PORT:8080} {", fmt.Sprintf("https://*.sand.test:%d {\n\tbind 127.0.0.1\n\ttls internal\n\tsandman_proxy\n}\n\nhttp://:{$SANDMAN_PORT:8080} {", own.port),
	)}
	s := start(t, o)
	id, _ := s.startAppIn(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	answered := make(map[string]*atomic.Int64)
	for name, client := range own.manyClients(strings.TrimPrefix(s.url, "http://")) {
		count := new(atomic.Int64)
		answered[name] = count
		for n := range 3 {
			all.Go(func() {
				defer client.CloseIdleConnections()
				for ctx.Err() == nil {
					body := fmt.Sprintf("%s, client %d, request %d", name, n, count.Load())
					r := s.request(ctx, http.MethodPost, id, appPort, "/echo", nil)
					if strings.Contains(name, "TLS") || strings.Contains(name, "HTTP/2") {
						r = own.request(t, id, http.MethodPost, "/echo", "").WithContext(ctx)
					}
					r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
					if strings.Contains(name, "HTTP/2") { // whose server says which requests it has not looked at
						r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
					}
					a, err := (&e2b{http: client}).do(r)
					if errors.Is(err, context.Canceled) {
						return
					}
					if err != nil || a.body != body {
						t.Errorf("%s: %v; %s", body, err, a)
						return
					}
					count.Add(1)
				}
			})
		}
	}
	for range 5 {
		s.reload(t, o, "--force")
		for name, count := range answered {
			before := count.Load()
			eventually(t, readyWithin, "answers to "+name, func() bool { return count.Load() > before || t.Failed() })
		}
	}
	stop()
	all.Wait()
	for name, count := range answered {
		t.Logf("%s: %d", name, count.Load())
	}
}
