package pauser

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

const (
	// passSpan is how long what comes due is one pass.
	passSpan = time.Minute
	// maxRunErrors bounds the errors that a run tells.
	maxRunErrors = 10
)

// failures collects what failed. No message names a sandbox: who reads of runs
// may not know of all of them.
type failures struct {
	count int
	said  []string
	times map[string]int
}

func (f *failures) add(id string, err error) {
	f.count++
	f.say(strings.ReplaceAll(err.Error(), id, "…"))
}

func (f *failures) say(message string) {
	if f.times == nil {
		f.times = make(map[string]int)
	}
	if f.times[message] == 0 {
		if len(f.said) == maxRunErrors {
			return
		}
		f.said = append(f.said, message)
	}
	f.times[message]++
}

// list gives the messages, each once, with how often it came.
func (f *failures) list() []string {
	all := slices.Clone(f.said)
	for i, message := range all {
		if n := f.times[message]; n > 1 {
			all[i] = fmt.Sprintf("%s (%d times)", message, n)
		}
	}
	return append([]string{}, all...)
}

// pass adds up what a leader does within a minute.
type pass struct {
	mu     sync.Mutex // guards the following fields
	run    session.Run
	until  time.Time // of the last that was noted
	failed failures
}

// note takes in what became of one session that was due. An error that is a
// conflict means that it was not idle any more, which is as good.
func (p *pass) note(id string, began time.Time, told session.State, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run.Looked == 0 {
		p.run.StartedAt = began
	}
	p.run.Looked++
	p.until = time.Now()
	switch {
	case isConflict(err):
	case err != nil:
		p.failed.add(id, err)
	case told == session.Paused:
		p.run.Paused++
	case told == session.Killed:
		p.run.Killed++
	}
}

// take gives the pass, and begins another one, if there was anything and its
// minute is over; or at once.
func (p *pass) take(now time.Time, atOnce bool) (session.Run, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run.Looked == 0 || !atOnce && now.Sub(p.run.StartedAt) < passSpan {
		return session.Run{}, false
	}
	r := p.run
	r.Kind, r.DurationMs = session.RunPass, p.until.Sub(r.StartedAt).Milliseconds()
	r.Failed, r.Errors = p.failed.count, p.failed.list()
	p.run, p.failed = session.Run{}, failures{}
	return r, true
}

// tellPass tells of a pass that is over.
func (l *leader) tellPass(now time.Time, atOnce bool) {
	if r, ok := l.pass.take(now, atOnce); ok {
		l.tellRun(r)
	}
}

func (p *Pauser) tellRun(r session.Run) {
	r.Node = p.cfg.Node
	r.StartedAt = r.StartedAt.Round(0).UTC()
	p.cfg.Ran(r.Named())
}

// asRun is a sweep as it is told.
func (s Sweep) asRun() session.Run {
	r := session.Run{
		Kind: session.RunSweep, StartedAt: s.At, DurationMs: s.Took.Milliseconds(), Looked: s.Looked,
		Paused: s.paused, Resumed: s.resumed, Killed: s.killed, Failed: s.Failed,
	}
	said := s.failed
	hosts := make([]string, 0, len(s.Errors))
	for host, why := range s.Errors {
		hosts = append(hosts, host+": "+why)
	}
	slices.Sort(hosts)
	r.Failed += len(hosts) // a host that could not be compared
	r.Errors = append(hosts, said.list()...)
	return r
}
