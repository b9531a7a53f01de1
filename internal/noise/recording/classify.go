package recording

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sandman-proxy/sandman/internal/noise"
)

const (
	settling  = 5 * time.Second        // after the page is ready, the load goes on
	lingering = 10 * time.Second       // what comes so long after an input may be its effect
	prompt    = 2 * time.Second        // what is an input's effect comes so soon
	lateLog   = 400 * time.Millisecond // clicks are logged after they were made
)

// Result is how the judgements fit one recording.
type Result struct {
	Name string
	// Alone is the time in which nobody was there.
	Alone time.Duration
	// Counted, Requests and Reconnects came while nobody was there and count: messages, requests, handshakes.
	Counted, Requests, Reconnects []Finding
	// Unclear is how many of Counted might be noise, if the recording had all of their bytes.
	Unclear int
	// Assessed tells whether somebody was away for long enough to see whether the streams go dormant.
	Assessed bool
	// Dormant tells whether they did, in each such absence, and stayed so; Proved
	// whether they did also if everything unclear counted.
	Dormant, Proved bool
	// Silence is the longest time without a message, request or handshake that counts.
	Silence time.Duration
	// Inputs is how many keys, clicks, wheels and commands there were, Found how many
	// of them something that counts came after, and Doubtful how many of those by messages
	// that might be noise.
	Inputs, Found, Doubtful int
	// Missed are inputs that sent something, none of which counts.
	Missed []Finding
}

// Finding is one line of a recording that somebody may want to look up.
type Finding struct {
	At   time.Duration // since the start of the recording
	What string
}

func (f Finding) String() string { return fmt.Sprintf("%8.3f  %s", f.At.Seconds(), f.What) }

// Good tells whether r is as it should be: a page alone sleeps, a person is seen.
func (r *Result) Good(idle time.Duration) bool {
	return len(r.Missed) == 0 && (!r.Assessed || r.Dormant && r.Silence >= idle)
}

// Classify judges everything in rec by set, as a proxy with this idle timeout would.
func Classify(rec *Recording, set *noise.Set, idle time.Duration) *Result {
	t := newTruth(rec)
	found := judgeAll(rec, set, t, min(10*time.Second, idle/4))
	r := &Result{Name: rec.Name, Alone: t.alone()}
	for _, d := range found {
		if t.isAlone(d.at) && d.counts {
			r.add(d)
		}
	}
	r.assess(t, found, idle)
	r.seeInputs(t, found)
	return r
}

func (r *Result) add(d deed) {
	f := Finding{d.at, d.what}
	switch d.kind {
	case aMessage:
		r.Counted = append(r.Counted, f)
		if d.unclear {
			r.Unclear++
		}
	case aRequest:
		r.Requests = append(r.Requests, f)
	case aHandshake:
		r.Reconnects = append(r.Reconnects, f)
	}
}

// assess follows each absence that is twice as long as the idle timeout.
func (r *Result) assess(t *truth, found []deed, idle time.Duration) {
	r.Dormant, r.Proved = true, true
	for _, absence := range t.absences {
		all := absence.from
		for _, d := range found {
			if d.counts && absence.contains(d.at) {
				r.Silence = max(r.Silence, d.at-all)
				all = d.at
			}
		}
		r.Silence = max(r.Silence, absence.to-all)
		if absence.length() >= 2*idle {
			r.Assessed = true
			r.Proved = r.Proved && sleeps(t, absence, found, idle, func(d deed) bool { return d.counts })
			r.Dormant = r.Dormant && sleeps(t, absence, found, idle, func(d deed) bool { return d.counts && !d.unclear })
		}
	}
}

// sleeps tells whether the messages stop for the idle timeout, and for good. Right
// after a wake they may come: a wake is activity anyhow.
func sleeps(t *truth, absence span, found []deed, idle time.Duration, counts func(deed) bool) bool {
	quiet, asleep := absence.from, false
	for _, d := range found {
		if d.kind != aMessage || !absence.contains(d.at) || !counts(d) {
			continue
		}
		asleep = asleep || d.at-quiet >= idle
		if asleep && !t.woken(d.at) {
			return false
		}
		quiet = d.at
	}
	return asleep || absence.to-quiet >= idle
}

func (r *Result) seeInputs(t *truth, found []deed) {
	own := t.ownDoing(found)
	for _, in := range t.inputs {
		if in.event == "mouse" { // moving it sends nothing by itself
			continue
		}
		r.Inputs++
		sure, unsure, evidence := false, false, ""
		for _, d := range found {
			if d.at < in.from() || d.at > in.at+prompt {
				continue
			}
			sure = sure || d.counts && !d.unclear
			unsure = unsure || d.counts
			if !own[d.like] {
				evidence = d.what
			}
		}
		switch {
		case sure:
			r.Found++
		case unsure:
			r.Found++
			r.Doubtful++
		case evidence != "":
			r.Missed = append(r.Missed, Finding{in.at, in.what + " sent " + evidence})
		}
	}
}

// deed is a message, a request or a handshake of the client.
type deed struct {
	at              time.Duration
	kind            deedKind
	counts, unclear bool
	like            string // equal for deeds of the same sort
	what            string // for people
}

type deedKind int

const (
	aMessage deedKind = iota
	aRequest
	aHandshake
)

// judging is the state of a walk over a recording.
type judging struct {
	set     *noise.Set
	truth   *truth
	resends time.Duration
	streams map[int]*stream
	known   named
	found   []deed
}

type stream struct {
	sure, doubt *noise.Stream // judge the two payloads of each message
	opened      time.Duration
	messages    int
	pending     *message // its fragments are still coming
}

func judgeAll(rec *Recording, set *noise.Set, t *truth, resends time.Duration) []deed {
	j := &judging{set: set, truth: t, resends: resends, streams: map[int]*stream{}, known: named{}}
	for i := range rec.lines {
		if l := &rec.lines[i]; l.clientData() {
			j.known.learn(l)
		}
	}
	for i := range rec.lines {
		switch l := &rec.lines[i]; {
		case l.clientData():
			j.frame(l)
		case l.Kind == "ws-open":
			j.handshake(l)
		case l.Kind == "http":
			j.request(l)
		}
	}
	return j.found
}

// handshake notes a stream. One that the recorder refused never came to the
// application, and whether a reconnect may wake it is not a question of noise.
func (j *judging) handshake(l *line) {
	r := l.request()
	_, isNoise := j.set.Request(r)
	j.streams[l.Conn] = &stream{sure: j.set.Stream(r, l.Proto), doubt: j.set.Stream(r, l.Proto), opened: l.at()}
	j.found = append(j.found, deed{
		at: l.at(), kind: aHandshake, counts: !isNoise && l.answered() && l.Status == http.StatusSwitchingProtocols,
		like: "handshake " + r.URL.Path, what: "handshake " + l.Path,
	})
}

func (j *judging) request(l *line) {
	r := l.request()
	_, isNoise := j.set.Request(r)
	j.found = append(j.found, deed{
		at: l.at(), kind: aRequest, counts: !isNoise,
		like: fmt.Sprint(r.Method, r.URL.Path, r.ContentLength), what: fmt.Sprintf("%s %s, body of %d", r.Method, l.Path, l.ReqLen),
	})
}

func (j *judging) frame(l *line) {
	s := j.streams[l.Conn]
	if s == nil { // its handshake was cut away
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/"}, Header: http.Header{}}
		s = &stream{sure: j.set.Stream(r, ""), doubt: j.set.Stream(r, "")}
		j.streams[l.Conn] = s
	}
	if m := s.assemble(l, j.known); m != nil {
		j.message(s, m)
	}
}

// assemble returns a message once its last fragment is there.
func (s *stream) assemble(l *line, known named) *message {
	size := l.Len
	if l.InflatedLen != nil {
		size = *l.InflatedLen
	}
	if s.pending == nil {
		s.pending = &message{line: *l, size: size, ordinal: s.messages, known: known, cut: !l.Fin || l.Op == 0}
	} else {
		s.pending.size += size
	}
	if !l.Fin {
		return nil
	}
	m := s.pending
	s.pending = nil
	s.messages++
	return m
}

func (j *judging) message(s *stream, m *message) {
	counting, noisy := m.payloads(s.sure.Preset())
	verdict, other := s.sure.Judge(counting), s.doubt.Judge(noisy)
	if s.sure.Resends() && m.at()-s.opened < j.resends && !j.truth.parked(m.at()) {
		verdict, other = noise.Noise, noise.Noise
	}
	if verdict != other && m.reportsAction() && j.truth.isAlone(m.at()) {
		verdict = other
	}
	j.found = append(j.found, deed{
		at: m.at(), kind: aMessage, counts: verdict == noise.Counts, unclear: (verdict == noise.Counts) != (other == noise.Counts),
		like: m.like(), what: m.what(),
	})
}

// like is equal for messages of the same sort, whatever their sequence numbers.
func (m *message) like() string {
	if len(m.VSC) == 0 {
		return fmt.Sprint(m.size, string(m.Head))
	}
	var b strings.Builder
	for _, v := range m.VSC {
		fmt.Fprintf(&b, "%d:%d ", v[0], v[3])
	}
	return b.String()
}

func (m *message) what() string {
	head := m.head()
	types := ""
	if len(m.VSC) > 0 {
		head = head[min(len(head), 13):]
		types = ", types and lengths " + m.like()
	}
	return fmt.Sprintf("message of %d on connection %d: %q%s", m.size, m.Conn, string(head), types)
}

func (l *line) at() time.Duration { return time.Duration(l.T * float64(time.Second)) }

// request makes an *http.Request of what was recorded of it.
func (l *line) request() *http.Request {
	u, err := url.ParseRequestURI(l.Path)
	if err != nil {
		u = &url.URL{Path: l.Path}
	}
	r := &http.Request{Method: l.Method, URL: u, Host: "localhost", Header: http.Header{}, ContentLength: l.ReqLen}
	set := func(name, value string) {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	set("Sec-Fetch-Mode", l.Mode)
	set("Sec-Fetch-Dest", l.Dest)
	set("Sec-Fetch-Site", l.Site)
	set("Sec-Fetch-User", l.User)
	set("Accept", l.Accept)
	set("Cache-Control", l.CacheControl)
	set("Sec-Websocket-Protocol", l.ProtoOffered)
	if l.Kind == "ws-open" {
		set("Upgrade", "websocket")
	}
	if l.Method == http.MethodPost { // not recorded; what scripts send if they say nothing
		set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	}
	return r
}
