package caddymodule

import (
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// errWaking: the sandbox is being woken, and a person is not to look at an empty
// page meanwhile.
var errWaking = errors.New("the sandbox is being woken")

const (
	// wakingRefresh is when a page comes again whose script does not run: it
	// follows the state, and comes as soon as the sandbox runs.
	wakingRefresh = 20 * time.Second

	// failedRefresh is when a page comes again that could not wake the sandbox.
	failedRefresh = 10 * time.Second
)

// outlook is what a person is told of a sandbox that is not to be had at the
// moment, and why not; nil where that is not known.
func (r *runningEngine) outlook(id string, policy wake.Policy, why error) page {
	s, w := r.Session(id), r.wished(id)
	p := page{Status: 503, SandboxID: id, Follow: true}
	if s != nil {
		p.State = s.State
	}
	switch {
	case s == nil:
		p.unknown(w, why)
	case s.State == session.Running:
		p.Mood, p.Title, p.Detail = moodAwake, "Awake", "The sandbox is back. This page is being opened."
		p.Refresh = failedRefresh
	case w != nil || s.State == session.Resuming:
		p.waking(s, w)
	case failedToWake(s) || errors.As(why, new(*wake.NotYetError)):
		p.failed(s, why)
	default:
		p.asleep(s, policy.Of(r.Effective(s.Record)), why)
	}
	p.Version = p.version()
	return p
}

// unknown is for a sandbox that the hosts are being asked for.
func (p *page) unknown(w *wish, why error) {
	p.Mood, p.Title, p.Detail = moodFailed, "Not to be reached yet", "It could not be found out whether this sandbox exists."
	p.Refresh = failedRefresh
	switch {
	case w != nil:
		p.Mood, p.Title, p.Detail = moodWaking, "Looking for the sandbox…", "Its host is being asked for it."
		p.since(w.since)
	case why != nil:
		p.Reason = sentence(toldOf(why))
	}
}

// waking tells how far it is, in words.
func (p *page) waking(s *session.Snapshot, w *wish) {
	p.Mood, p.Title, p.Refresh = moodWaking, "Waking up…", wakingRefresh
	p.Detail = "Everything continues where it was left. This page opens by itself."
	switch {
	case s.State == session.Pausing:
		p.Detail = "It is just falling asleep, and is woken right after that. This page opens by itself."
	case failedToWake(s):
		p.Title = "Trying again to wake it…"
		p.Reason = "The last try failed: " + failureWords(s.LastError.Kind) + "."
	case s.State == session.Resuming && s.LastError != nil && s.LastError.Op == session.OpResume:
		p.Title = "Trying again to wake it…"
	}
	if w != nil {
		p.since(w.since)
	} else {
		p.since(s.Seen)
	}
}

func (p *page) since(t time.Time) {
	p.Waking = true
	p.ElapsedMs = max(0, time.Since(t).Milliseconds())
}

// failed says why it can't be woken. The page tries again for a person who
// waits, and the button does at once.
func (p *page) failed(s *session.Snapshot, why error) {
	p.Mood, p.Title, p.Refresh = moodFailed, "It could not be woken", failedRefresh
	p.Detail = "Nothing is lost: the sandbox is asleep, and its host does not wake it at the moment. This page tries again by itself."
	p.Button = "Try again now"
	if failedToWake(s) {
		p.Reason = sentence(failureWords(s.LastError.Kind))
		return
	}
	var notYet *wake.NotYetError
	if errors.As(why, &notYet) && notYet.Cause != nil {
		p.Reason = sentence(toldOf(notYet.Cause))
	}
}

// asleep offers to wake it by hand, and says why that is needed.
func (p *page) asleep(s *session.Snapshot, rule wake.Rule, why error) {
	p.Mood, p.Title, p.Button = moodAsleep, "Asleep", "Wake it up"
	p.Detail = "This sandbox sleeps until somebody needs it. Everything continues where it was left."
	if s.State == session.Pausing {
		p.Title, p.Detail = "Falling asleep…", "Nobody needed this sandbox. Everything continues where it was left once you wake it."
	}
	var refused *wake.RefusedError
	switch {
	case errors.As(why, &refused) && refused.Code == wake.CodeBudget:
		p.Reason = "Open pages have woken it as often as they may today, so this one waits for you."
	case rule == wake.WakeManual:
		p.Reason = "It is set to wake by hand only."
	}
}

func failedToWake(s *session.Snapshot) bool {
	return s.State == session.Paused && s.LastError != nil && s.LastError.Op == session.OpResume
}

// version is another one whenever the page says something else.
func (p *page) version() string {
	h := fnv.New64a()
	fmt.Fprint(h, p.State, p.Mood, p.Title, p.Detail, p.Reason, p.Button)
	return fmt.Sprintf("%x", h.Sum64())
}
