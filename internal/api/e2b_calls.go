package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/e2b"
)

const (
	// maxE2BBody is what the E2B API itself takes.
	maxE2BBody = 16 << 20
	// recordWithin bounds how long an answer of the host waits for the record.
	recordWithin = 10 * time.Second
	// The API's own defaults of a lifetime.
	connectDefault = 300 * time.Second
	resumeDefault  = 15 * time.Second
)

// create forwards a create, which asks the host to pause what it would kill:
// should all of Sandman fail, a sandbox sleeps a while later, and is not lost.
func (p *passThrough) create(w http.ResponseWriter, r *http.Request) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	var asked struct {
		TemplateID string            `json:"templateID"`
		Metadata   map[string]string `json:"metadata"`
	}
	// what is no create is the host's to refuse
	_ = json.Unmarshal(body, &asked)
	body = editJSON(body, func(fields map[string]json.RawMessage) {
		if v := fields["autoPause"]; v == nil || string(v) == "null" {
			fields["autoPause"] = json.RawMessage("true")
		}
	})
	p.forward(w, withBody(r, body), func(res *http.Response) error {
		if res.StatusCode != http.StatusCreated {
			return nil
		}
		answer, err := readAnswer(res)
		if err != nil {
			return err
		}
		p.created(r.Context(), answer, asked.TemplateID, asked.Metadata)
		setBody(res, p.withDomain(answer))
		return nil
	})
}

// created puts the new sandbox on record before the caller knows of it. Where
// that fails it is adopted later, so the caller gets the sandbox all the same.
func (p *passThrough) created(ctx context.Context, answer []byte, template string, metadata map[string]string) {
	var sb e2b.Sandbox
	if err := json.Unmarshal(answer, &sb); err != nil || !e2b.ValidID(sb.SandboxID) {
		p.Log.Warn("the host's answer to a create holds no sandbox", zap.Error(err))
		return
	}
	ctx, cancel := recording(ctx)
	defer cancel()
	if err := p.Backend.Created(ctx, sb, template, metadata); err != nil {
		p.Log.Warn("a new sandbox is not on record yet", zap.String("sandbox", sb.SandboxID), zap.Error(err))
	}
}

// recording is for what has happened at the host: it is recorded whether or
// not the caller waits for it.
func recording(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), recordWithin)
}

// fork notes every sandbox that a fork has made.
func (p *passThrough) fork(w http.ResponseWriter, r *http.Request) {
	p.forward(w, r, func(res *http.Response) error {
		if res.StatusCode != http.StatusCreated {
			return nil
		}
		answer, err := readAnswer(res)
		if err != nil {
			return err
		}
		var forks []map[string]json.RawMessage
		if json.Unmarshal(answer, &forks) == nil {
			for _, f := range forks {
				if sb := f["sandbox"]; sb != nil {
					p.created(r.Context(), sb, "", nil)
					f["sandbox"] = p.withDomain(sb)
				}
			}
			answer = mustMarshal(forks)
		}
		setBody(res, answer)
		return nil
	})
}

// connect wakes the sandbox through Sandman, so that none is connected to
// outside the record, and then forwards the call, which extends its lifetime.
func (p *passThrough) connect(w http.ResponseWriter, r *http.Request, c call) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	timeout, err := lifetime(body, connectDefault, c.v2)
	if err != nil {
		e2b.WriteError(w, http.StatusBadRequest, "validation error: "+err.Error())
		return
	}
	release, woke, err := p.Backend.Use(r.Context(), c.id, timeout, e2bUser)
	if err != nil {
		p.fail(w, r, c.id, err)
		return
	}
	defer release()
	p.forwardConnect(w, withBody(r, body), woke)
}

// forwardConnect answers 201 where Sandman's own connect was the one that woke.
func (p *passThrough) forwardConnect(w http.ResponseWriter, r *http.Request, woke bool) {
	p.forward(w, r, func(res *http.Response) error {
		if woke && res.StatusCode == http.StatusOK {
			res.StatusCode = http.StatusCreated
			res.Status = "201 Created"
		}
		return p.editSandbox(res)
	})
}

// resume is the older connect: the same wake, but an error where it ran. The
// host's own resume is never called, since it could be the second for one wake,
// and would replace what the sandbox does at the end of its lifetime.
func (p *passThrough) resume(w http.ResponseWriter, r *http.Request, c call) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	timeout, err := lifetime(body, resumeDefault, true)
	if err != nil {
		e2b.WriteError(w, http.StatusBadRequest, "validation error: "+err.Error())
		return
	}
	release, woke, err := p.Backend.Use(r.Context(), c.id, timeout, e2bUser)
	if err != nil {
		p.fail(w, r, c.id, err)
		return
	}
	defer release()
	if !woke {
		e2b.WriteError(w, http.StatusConflict, "Sandbox "+c.id+" is already running")
		return
	}
	r = withBody(r, fmt.Appendf(nil, `{"timeout":%d}`, int64(timeout.Seconds())))
	r.URL.Path, r.URL.RawPath = strings.TrimSuffix(r.URL.Path, "/resume")+"/connect", ""
	r.Header.Set("Content-Type", "application/json")
	p.forwardConnect(w, r, woke)
}

// lifetime reads the timeout of a connect or resume.
func lifetime(body []byte, byDefault time.Duration, optional bool) (time.Duration, error) {
	var asked struct {
		Timeout *float64 `json:"timeout"`
	}
	if len(bytes.TrimSpace(body)) > 0 {
		if err := json.Unmarshal(body, &asked); err != nil {
			return 0, errors.New("the body is not a JSON object with a timeout in seconds")
		}
	}
	switch t := asked.Timeout; {
	case t == nil && optional:
		return byDefault, nil
	case t == nil:
		return 0, errors.New("the timeout is missing")
	case *t < 0 || *t > math.MaxInt32 || *t != math.Trunc(*t):
		return 0, errors.New("the timeout must be a whole number of seconds, 0 or more")
	default:
		return time.Duration(*t) * time.Second, nil
	}
}

// pause is Sandman's own pause by hand: what is in flight gets the drain time,
// and is cut then. A caller that wants only the files kept (memory: false) gets
// the memory as well.
func (p *passThrough) pause(w http.ResponseWriter, r *http.Request, c call) {
	_, changed, err := p.Backend.Pause(r.Context(), c.id, PauseOptions{Force: true, By: e2bUser})
	switch {
	case e2b.IsConflict(err):
		// to the SDKs 409 says that it sleeps, which is not known here
		p.fail(w, r, c.id, &UnavailableError{Reason: err.Error()})
	case err != nil:
		p.fail(w, r, c.id, err)
	case !changed:
		e2b.WriteError(w, http.StatusConflict, "Error pausing sandbox - sandbox '"+c.id+"' is already paused")
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// kill forwards a kill, and records the host's word that the sandbox is gone.
func (p *passThrough) kill(w http.ResponseWriter, r *http.Request, c call) {
	p.Backend.Killing(r.Context(), c.id)
	p.forward(w, r, func(res *http.Response) error {
		gone := res.StatusCode == http.StatusNoContent
		if res.StatusCode == http.StatusNotFound {
			answer, err := readAnswer(res)
			if err != nil {
				return err
			}
			setBody(res, answer)
			gone = saysNotFound(answer)
		}
		if !gone {
			return nil
		}
		ctx, cancel := recording(r.Context())
		defer cancel()
		if err := p.Backend.Killed(ctx, c.id); err != nil {
			p.Log.Warn("a killed sandbox is still on record", zap.String("sandbox", c.id), zap.Error(err))
		}
		return nil
	})
}

// saysNotFound wants the API's own word: some gateway's 404 is none.
func saysNotFound(answer []byte) bool {
	var e struct {
		Code int `json:"code"`
	}
	return json.Unmarshal(answer, &e) == nil && e.Code == http.StatusNotFound
}

// readBody reads a request's whole body. Where ok is false it has answered.
func readBody(w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxE2BBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		e2b.WriteError(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the request's body is larger than %d MiB", maxE2BBody>>20))
	case err != nil:
		e2b.WriteError(w, http.StatusBadRequest, "reading the request's body: "+err.Error())
	}
	return body, err == nil
}

// timeout passes a change of a run's end on. The new end is the caller's to
// choose, and Sandman's to keep from coming while the sandbox is used.
func (p *passThrough) timeout(w http.ResponseWriter, r *http.Request, c call) {
	p.pass(w, r, func(res *http.Response) error {
		if res.StatusCode < 200 || res.StatusCode > 299 {
			return nil
		}
		if err := p.Backend.TimeoutSet(r.Context(), c.id); err != nil {
			p.Log.Warn("a changed timeout was not noted", zap.String("sandbox", c.id), zap.Error(err))
		}
		return nil
	})
}
