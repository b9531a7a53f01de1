package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// silence is when a stream is given up: a comment comes every 15 s.
	silence = 45 * time.Second
	// retryFirst and retryMost are the waits before a lost stream is asked for
	// again; the server may name another first one.
	retryFirst = time.Second
	retryMost  = 15 * time.Second
	maxEvent   = 4 << 20
)

// event is a server-sent event.
type event struct{ kind, data string }

// follower follows GET /events over lost connections.
type follower struct {
	client *client
	query  url.Values
	about  string // the sandbox that it is about, for errors

	// opened is called when a stream has been opened. Fresh says that it does not
	// go on where another one was lost.
	opened func(fresh bool) error
	handle func(event) error
	// lost is called when a stream has been lost, with why, and once until the
	// next is opened.
	lost func(error)

	last  string // what to resume from
	retry time.Duration
}

// follow returns nil when ctx ends, and an error where it is no use to go on:
// nobody answers at the first try, or the answer is a refusal.
func (f *follower) follow(ctx context.Context) error {
	f.retry = retryFirst
	for wait, ever := time.Duration(0), false; ; {
		opened, err := f.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it is over because somebody wanted that
		case !opened && (!ever || exitCode(err) != ExitUnreachable):
			return err
		case opened && isFinal(err):
			return err
		case opened:
			ever, wait = true, f.retry
			f.lost(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, max(retryMost, f.retry))
	}
}

// finalError is an error of what handles events.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func isFinal(err error) bool {
	var final finalError
	return errors.As(err, &final) && exitCode(err) != ExitUnreachable
}

var errSilent = errors.New("nothing has come for " + span(silence))

// once opens a stream and reads it to its end, which always is an error.
func (f *follower) once(ctx context.Context) (opened bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	opened, err = f.stream(ctx, watchdog)
	if errors.Is(context.Cause(ctx), errSilent) {
		err = failf(ExitUnreachable, "%w", errSilent)
	}
	return opened, err
}

func (f *follower) stream(ctx context.Context, watchdog *time.Timer) (opened bool, err error) {
	header := http.Header{"Accept": {"text/event-stream"}}
	if f.last != "" {
		header.Set("Last-Event-ID", f.last)
	}
	res, err := f.client.send(ctx, request{method: http.MethodGet, path: "/events", query: f.query, sandbox: f.about}, header)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if !isType(res, "text/event-stream") {
		return false, failf(ExitUnreachable, "what answers at %s is not Sandman's API: it has no stream of events", f.client.base)
	}
	if err := f.opened(f.last == ""); err != nil {
		return true, finalError{err}
	}
	return true, f.read(&alive{res.Body, watchdog})
}

// alive puts a stream's end off whenever something is read.
type alive struct {
	r        io.Reader
	watchdog *time.Timer
}

func (a *alive) Read(b []byte) (int, error) {
	n, err := a.r.Read(b)
	a.watchdog.Reset(silence)
	return n, err
}

// read handles events as they come. An ID counts once its event has been
// handled; one that comes without data counts, too.
func (f *follower) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	var e event
	id := f.last
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "":
			if e.data != "" {
				if err := f.handle(e); err != nil {
					return finalError{err}
				}
			}
			f.last, e = id, event{}
		case name == "event":
			e.kind = value
		case name == "data" && e.data != "":
			e.data += "\n" + value
		case name == "data":
			e.data = value
		case name == "id":
			id = value
		case name == "retry":
			if ms, err := strconv.Atoi(value); err == nil && ms >= 0 {
				f.retry = min(millis(int64(ms)), retryMost)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("it was ended")
}
