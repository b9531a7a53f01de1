package sandboxd

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// retryExpiry is when an automatic pause that failed is tried again.
const retryExpiry = 5 * time.Second

// Lifetimes run by the monotonic clock, which EndAt carries: neither a wall
// clock that is set nor a suspended machine ends one early.

// shownEnd is what the wall clock will show at the end, which is left away. It
// is not what it was set to if the clock has been set since.
func shownEnd(end, now time.Time, left time.Duration) time.Time {
	end, at := end.Round(0), now.Round(0).Add(left)
	if at.Sub(end).Abs() > time.Second { // clocks are trimmed all the time
		return at
	}
	return end
}

// schedule sets the timer for the lifetime's end; s.mu must be held.
func (s *sandbox) schedule() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if s.rec.State == StateRunning && s.host.ctx.Err() == nil {
		s.timer = time.AfterFunc(time.Until(s.rec.EndAt), s.expire)
	}
}

func (s *sandbox) stopTimer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
}

// expire ends a lifetime, if it has not been extended since the timer fired.
func (s *sandbox) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.State != StateRunning {
		return
	}
	if time.Now().Before(s.rec.EndAt) {
		s.schedule()
		return
	}
	s.host.log.Info("a sandbox's lifetime has ended", zap.String("sandbox", s.id), zap.Bool("pause", s.rec.AutoPause))
	if !s.rec.AutoPause {
		s.begin(StateKilling, 0, func(ctx context.Context) (func(*record), error) { return s.killed(ctx, nil) })
		return
	}
	faults := s.host.currentFaults()
	own := Faults{CutConnections: faults.CutConnections} // the others are those of a call
	do := s.pauseWork(own, s.rec.AutoPauseMemory)
	s.begin(StatePausing, faults.PauseDelay, func(ctx context.Context) (func(*record), error) {
		result, err := do(ctx)
		if err != nil {
			return func(r *record) { result(r); r.EndAt = time.Now().Add(retryExpiry) }, err
		}
		return result, nil
	})
}

// extend makes the lifetime end no sooner than d from now; s.mu must be held.
func (s *sandbox) extend(d, maxRun time.Duration) error {
	end, err := s.endAfter(d, maxRun)
	if err == nil && end.After(s.rec.EndAt) {
		s.setEnd(end)
	}
	return err
}

// setTimeout makes the lifetime end d from now, be that sooner or later. It
// refuses a sandbox that doesn't run.
func (s *sandbox) setTimeout(d time.Duration, onlyExtend bool) error {
	maxRun := s.host.currentFaults().MaxRun
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.rec.State {
	case StateRunning:
	case StatePausing:
		return errPausing
	case StateKilling:
		return errKilling
	default:
		return ErrUnknown
	}
	if onlyExtend {
		return s.extend(d, maxRun)
	}
	end, err := s.endAfter(d, maxRun)
	if err == nil {
		s.setEnd(end)
	}
	return err
}

// endAfter is d from now, or the end of the longest run; s.mu must be held.
func (s *sandbox) endAfter(d, maxRun time.Duration) (time.Time, error) {
	end := time.Now().Add(d)
	if maxRun <= 0 {
		return end, nil
	}
	last := s.rec.StartedAt.Add(maxRun)
	if !time.Now().Before(last) {
		return time.Time{}, errMaxRun
	}
	if end.After(last) {
		end = last
	}
	return end, nil
}

func (s *sandbox) setEnd(end time.Time) {
	s.rec.EndAt = end
	s.save()
	s.schedule()
}

// clampRun is the timeout of a new run.
func clampRun(d, maxRun time.Duration) time.Duration {
	if maxRun > 0 {
		return min(d, maxRun)
	}
	return d
}
