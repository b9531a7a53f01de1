package api

import (
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// RateLimit is how many requests each token may send. The badge tokens of a
// sandbox share one. The zero value limits nothing.
type RateLimit struct {
	PerSecond float64
	// Burst is how many may come at once; 0: one second's, at least 1.
	Burst int
}

// maxLimiters bounds what is kept of tokens; there are as many as there are
// sandboxes with badges.
const maxLimiters = 10_000

// limiters are those of all tokens that were seen.
type limiters struct {
	limit RateLimit

	mu  sync.Mutex // guards the following field
	all map[string]*rate.Limiter
}

// wait is how long this token must wait before its next request; 0: it may send
// this one.
func (l *limiters) wait(who Token, now time.Time) time.Duration {
	if l.limit.PerSecond <= 0 {
		return 0
	}
	r := l.of(who, now).ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now) // it was refused, and costs nothing
	}
	return wait
}

func (l *limiters) of(who Token, now time.Time) *rate.Limiter {
	key := "token " + who.Name
	if who.badge != nil {
		key = "badge " + who.badge.Sandbox
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.all[key]; one != nil {
		return one
	}
	if len(l.all) >= maxLimiters {
		l.unsyncedForget(now)
	}
	burst := l.limit.Burst
	if burst == 0 {
		burst = max(1, int(l.limit.PerSecond))
	}
	one := rate.NewLimiter(rate.Limit(l.limit.PerSecond), burst)
	l.all[key] = one
	return one
}

// unsyncedForget drops the limiters that a new one would equal, or all of them
// if that is none: nobody gets to fill the memory. l.mu must be held.
func (l *limiters) unsyncedForget(now time.Time) {
	for key, one := range l.all {
		if one.TokensAt(now) >= float64(one.Burst()) {
			delete(l.all, key)
		}
	}
	if len(l.all) >= maxLimiters {
		clear(l.all)
	}
}

func tooFast(wait time.Duration) *Problem {
	return newProblem(http.StatusTooManyRequests, "rate-limited", "This token sends more requests than it may. Wait before the next one.").retryAfter(wait)
}
