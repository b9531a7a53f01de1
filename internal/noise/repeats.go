package noise

import (
	"encoding/hex"
	"hash/maphash"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// repeatTimes is how often something must have come at one period.
	repeatTimes = 20
	// repeatJitter is how far a gap may be from the mean of all.
	repeatJitter = 0.02
	// repeatShortest keeps a held key apart: it repeats to the millisecond, and faster.
	repeatShortest = 2 * time.Second
	// repeatLongest is when a thing that has not come again is forgotten.
	repeatLongest = time.Hour
	// repeatKept bounds what is watched at a time.
	repeatKept = 32
	// repeatPayload is the largest payload that is suggested as a rule.
	repeatPayload = 256
)

// Repeat is something that comes again and again at one period, as only a timer
// sends it. It is a suggestion: what to do with it is for a person to say.
type Repeat struct {
	// Count is how often it came so far.
	Count int
	// Every is the mean period.
	Every time.Duration
	// Last is when it came last.
	Last time.Time
	// Rule would make noise of it.
	Rule Rule
}

// Repeats watches the messages and requests of one sandbox that count, and
// finds those that a timer sends. It keeps at most 32 of them, those that came
// most often, and little of each. Its zero value is ready, and any number of goroutines may use it.
type Repeats struct {
	mu      sync.Mutex // guards the following fields
	entries []repeating
}

// repeating is one thing that came at least once.
type repeating struct {
	hash            uint64
	count           int
	first, last     time.Time
	shortest, width time.Duration // shortest gap; the longest is shortest+width
	rule            *Rule         // nil until it has come twice at a period
}

// One seed for all: a hash is compared within a process only. A sender can't
// know it, and so can't make two payloads that look the same.
var seed = maphash.MakeSeed()

// Message is told of a message that counts, of a stream that was opened by
// path, at now. The payload is not kept before it has come twice.
func (r *Repeats) Message(path string, m Message, now time.Time) {
	if m.Payload == nil || len(m.Payload) > repeatPayload {
		return
	}
	hash := maphash.Comparable(seed, path) ^ maphash.Bytes(seed, m.Payload)
	r.see(hash, now, func() Rule { return ruleOf(path, m) })
}

func ruleOf(path string, m Message) Rule {
	rule := Rule{Path: path, Opcode: "text", Payload: string(m.Payload)}
	if m.Binary {
		rule.Opcode = "binary"
	}
	if m.Binary || !utf8.Valid(m.Payload) || len(rule.Payload) > 1 && rule.Payload[:2] == "0x" {
		rule.Payload = "0x" + hex.EncodeToString(m.Payload)
	}
	if len(m.Payload) == 0 {
		rule.Payload, rule.Length = "", strconv.Itoa(0)
	}
	return rule
}

// Request is told of a request that counts, at now. Queries differ by time
// stamps in most polls, so they are left out.
func (r *Repeats) Request(method, path string, now time.Time) {
	hash := maphash.Comparable(seed, [2]string{method, path})
	r.see(hash, now, func() Rule { return Rule{Path: path, Methods: []string{method}} })
}

func (r *Repeats) see(hash uint64, now time.Time, rule func() Rule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.entries, func(e repeating) bool { return e.hash == hash })
	if i < 0 {
		r.unsyncedAdd(repeating{hash: hash, count: 1, first: now, last: now})
		return
	}
	e := &r.entries[i]
	e.come(now)
	if e.count > 2 && e.rule == nil {
		suggested := rule()
		e.rule = &suggested
	}
}

// unsyncedAdd makes room where there is none: what is silent for an hour goes
// first, then what came least often, then the oldest. r.mu must be held.
func (r *Repeats) unsyncedAdd(e repeating) {
	if len(r.entries) < repeatKept {
		r.entries = append(r.entries, e)
		return
	}
	worst := 0
	for i := range r.entries {
		if r.entries[i].worse(&r.entries[worst], e.last) {
			worst = i
		}
	}
	r.entries[worst] = e
}

func (e *repeating) worse(than *repeating, now time.Time) bool {
	if silent, other := now.Sub(e.last) > repeatLongest, now.Sub(than.last) > repeatLongest; silent != other {
		return silent
	}
	if e.count != than.count {
		return e.count < than.count
	}
	return e.last.Before(than.last)
}

// come notes one more. A gap that does not fit begins a new row with this one.
func (e *repeating) come(now time.Time) {
	gap := now.Sub(e.last)
	shortest, width := gap, time.Duration(0)
	if e.count > 1 {
		shortest = min(e.shortest, gap)
		width = max(e.shortest+e.width, gap) - shortest
	}
	mean := float64(now.Sub(e.first)) / float64(e.count)
	fits := float64(shortest) > mean*(1-repeatJitter) && float64(shortest+width) < mean*(1+repeatJitter)
	if !fits || gap < repeatShortest || gap > repeatLongest {
		*e = repeating{hash: e.hash, count: 1, first: now, last: now}
		return
	}
	e.count++
	e.last, e.shortest, e.width = now, shortest, width
}

// Suggested returns what has come 20 times at one period and has not missed its
// time since, the most frequent first.
func (r *Repeats) Suggested(now time.Time) []Repeat {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Repeat
	for _, e := range r.entries {
		if e.count < repeatTimes || e.rule == nil {
			continue
		}
		every := e.last.Sub(e.first) / time.Duration(e.count-1)
		if now.Sub(e.last) < 2*every {
			out = append(out, Repeat{Count: e.count, Every: every, Last: e.last, Rule: *e.rule})
		}
	}
	slices.SortStableFunc(out, func(a, b Repeat) int { return int(a.Every - b.Every) })
	return out
}
