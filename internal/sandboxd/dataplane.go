package sandboxd

import (
	"context"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envd"
)

// dialTimeout bounds a dial. On a loopback it is long; a full backlog can take it.
const dialTimeout = 30 * time.Second

// minAutoResume is the least lifetime after the host's own resuming.
const minAutoResume = 300 * time.Second

// headerTraffic carries the token of a sandbox without public traffic.
const headerTraffic = "E2b-Traffic-Access-Token"

// dataPlane forwards requests into sandboxes. It does not hold them: whoever
// meets a sandbox that is paused gets E2B's 502, unless the sandbox was created
// with autoResume.
type dataPlane struct {
	host  *Host
	proxy *httputil.ReverseProxy
}

type targetKey struct{}

func newDataPlane(h *Host) *dataPlane {
	d := &dataPlane{host: h}
	d.proxy = &httputil.ReverseProxy{
		Rewrite:       rewrite,
		FlushInterval: -1, // at once: a stream's reader waits for it
		ErrorHandler:  d.failed,
		ErrorLog:      zap.NewStdLog(h.log.Named("dataplane")),
		Transport: &http.Transport{
			DialContext:        d.dial,
			DisableCompression: true,
			// as at E2B: a kept connection may be a dead one after a pause
			DisableKeepAlives: true,
		},
	}
	return d
}

// serve answers a request for a port of a sandbox.
func (d *dataPlane) serve(w http.ResponseWriter, r *http.Request, t e2b.Target) {
	s, err := d.host.find(t.SandboxID)
	if err != nil {
		e2b.WriteSandboxNotFound(w, r, t.SandboxID)
		return
	}
	rec := s.snapshot()
	if !authorised(w, r, &rec, t.Port) {
		return
	}
	if rec.State != StateRunning && !d.autoResume(r, s, &rec, t.Port) {
		e2b.WriteSandboxNotFound(w, r, t.SandboxID)
		return
	}
	serveDuplex(w, r.WithContext(context.WithValue(r.Context(), targetKey{}, t)), d.proxy)
}

// Admit checks the sandbox's own traffic token, for those who dial its address
// themselves: they must ask before they wake or forward anything. False means
// that w was answered. A sandbox that this host does not know is not refused.
func (h *Host) Admit(w http.ResponseWriter, r *http.Request, t e2b.Target) bool {
	s, err := h.find(t.SandboxID)
	if err != nil {
		return true
	}
	rec := s.snapshot()
	return authorised(w, r, &rec, t.Port)
}

// authorised wants the traffic token where the sandbox has one. envd has a token
// of its own.
func authorised(w http.ResponseWriter, r *http.Request, rec *record, port uint16) bool {
	got := r.Header.Get(headerTraffic)
	switch {
	case rec.TrafficToken == "" || port == envd.Port:
		return true
	case got == "":
		e2b.WriteError(w, http.StatusForbidden, "Token header 'e2b-traffic-access-token' is missing")
		return false
	case subtle.ConstantTimeCompare([]byte(got), []byte(rec.TrafficToken)) != 1:
		e2b.WriteError(w, http.StatusForbidden, "Provided token is invalid")
		return false
	}
	return true
}

// autoResume is E2B's own resuming, only where create asked for it. As there, a
// request to a secured envd must bring the token before it wakes anything.
func (d *dataPlane) autoResume(r *http.Request, s *sandbox, rec *record, port uint16) bool {
	token := []byte(r.Header.Get("X-Access-Token"))
	if !rec.AutoResume || (port == envd.Port && subtle.ConstantTimeCompare(token, []byte(rec.AccessToken)) != 1) {
		return false
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	_, err := s.connect(ctx, minAutoResume)
	return err == nil
}

// rewrite sends the request on as it came: Host, forwarding headers and all.
func rewrite(p *httputil.ProxyRequest) {
	t, _ := p.In.Context().Value(targetKey{}).(e2b.Target)
	p.Out.URL.Scheme = "http"
	p.Out.URL.Host = net.JoinHostPort(t.SandboxID, strconv.Itoa(int(t.Port)))
	p.Out.URL.RawQuery = p.In.URL.RawQuery // the library drops what it can't parse
	p.Out.Host = p.In.Host
	for _, k := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := p.In.Header[k]; ok {
			p.Out.Header[k] = v
		}
	}
}

// dial takes {sandboxID}:{port} for a name.
func (d *dataPlane) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	id, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return d.host.DialContext(ctx, id, uint16(n))
}

// failed answers a request that brought no answer of the sandbox.
func (d *dataPlane) failed(w http.ResponseWriter, r *http.Request, err error) {
	t, _ := r.Context().Value(targetKey{}).(e2b.Target)
	switch {
	case errors.Is(err, ErrNotRunning), errors.Is(err, ErrUnknown):
		e2b.WriteSandboxNotFound(w, r, t.SandboxID)
	case errors.Is(err, syscall.ECONNREFUSED):
		e2b.WritePortClosed(w, r, t.SandboxID, t.Port)
	case r.Context().Err() != nil:
		// the client has left
	case d.host.isRunning(t.SandboxID):
		d.host.log.Debug("no answer from a sandbox", zap.String("target", t.String()), zap.Error(err))
		e2b.WriteError(w, http.StatusBadGateway, "The sandbox closed the connection without an answer")
	default:
		e2b.WriteSandboxNotFound(w, r, t.SandboxID)
	}
}

func (h *Host) isRunning(id string) bool {
	l, err := h.Lookup(id)
	return err == nil && l.State == StateRunning
}
