package sandboxd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/sandboxd/proctree"
)

// The outcomes of which the API makes its answers.
var (
	errPaused   = errors.New("the sandbox is paused")
	errRunning  = errors.New("the sandbox is running")
	errKilling  = errors.New("the sandbox is being killed")
	errPausing  = errors.New("the sandbox is being paused")
	errWaited   = errors.New("the transition that was waited for has failed")
	errInjected = errors.New("a fault was asked for")
	errCapacity = errors.New("no capacity")
	errMaxRun   = errors.New("the sandbox has run for as long as it may")
)

// pause pauses the sandbox, or joins a pause that is under way. With memory
// false it keeps only the files. [errPaused] covers a resume under way, as at E2B.
func (s *sandbox) pause(ctx context.Context, memory bool) error {
	faults := s.host.currentFaults()
	switch {
	case strikes(faults.Conflict):
		return errPaused
	case strikes(faults.PauseFail):
		return errInjected
	}
	if faults.LatePause > 0 {
		// the call is on its way still: what the sandbox is then will count
		return s.pauseLate(ctx, faults, memory)
	}
	return s.pauseNow(ctx, faults, memory)
}

func (s *sandbox) pauseLate(ctx context.Context, faults Faults, memory bool) error {
	result := make(chan error, 1)
	err := s.host.start(func() {
		sleep(s.host.ctx, faults.LatePause)
		result <- s.pauseNow(context.Background(), faults, memory)
	})
	if err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *sandbox) pauseNow(ctx context.Context, faults Faults, memory bool) error {
	s.mu.Lock()
	var o *op
	switch s.rec.State {
	case StateRunning:
		o = s.begin(StatePausing, faults.PauseDelay, s.pauseWork(faults, memory))
	case StatePausing:
		o = s.op
	case StatePaused, StateResuming:
		s.mu.Unlock()
		return errPaused
	default:
		s.mu.Unlock()
		return ErrUnknown
	}
	s.mu.Unlock()
	return o.wait(ctx)
}

// pauseWork freezes the sandbox. One that can't be frozen goes on running.
func (s *sandbox) pauseWork(faults Faults, memory bool) work {
	return func(ctx context.Context) (func(*record), error) {
		if strikes(faults.KillOnPause) {
			return s.killed(ctx, errInjected)
		}
		if faults.CutConnections {
			s.host.conns.cut(s.id)
		}
		if err := s.freeze(ctx, memory); err != nil {
			s.host.log.Error("pausing a sandbox", zap.String("sandbox", s.id), zap.Error(err))
			return func(r *record) { r.State = StateRunning }, err
		}
		if faults.CutConnections {
			s.host.conns.cut(s.id) // those made until it was frozen
		}
		var err error
		if strikes(faults.PauseFailAfter) {
			err = errInjected
		}
		return func(r *record) {
			r.State, r.EndAt = StatePaused, time.Now()
			if !memory {
				r.Process = nil
			} else {
				r.Process.Group = s.group.Ref()
			}
		}, err
	}
}

// freeze undoes a freeze that failed half-way. Without memory there is nothing
// to be frozen: the processes end, the files stay.
func (s *sandbox) freeze(ctx context.Context, memory bool) error {
	if !memory {
		err := s.group.Kill(ctx)
		if err == nil {
			s.group = nil
		}
		return err
	}
	if err := s.group.Freeze(ctx); err != nil {
		thaw, cancel := context.WithTimeout(context.WithoutCancel(ctx), opTimeout)
		defer cancel()
		return errors.Join(err, s.group.Thaw(thaw))
	}
	return nil
}

// connect makes the sandbox run for at least timeout from now. Resumed is true
// if it was paused, also for those who join a resume; their timeout is ignored.
func (s *sandbox) connect(ctx context.Context, timeout time.Duration) (resumed bool, err error) {
	faults := s.host.currentFaults()
	if strikes(faults.ConnectFail) {
		return false, errCapacity
	}
	for {
		s.mu.Lock()
		switch s.rec.State {
		case StateRunning:
			defer s.mu.Unlock()
			return false, s.extend(timeout, faults.MaxRun)
		case StatePaused:
			o := s.begin(StateResuming, faults.ResumeDelay, s.resumeWork(timeout, faults.MaxRun))
			s.mu.Unlock()
			return true, o.wait(ctx)
		case StateResuming:
			o := s.op
			s.mu.Unlock()
			return true, o.wait(ctx)
		case StatePausing:
			o := s.op
			s.mu.Unlock()
			if err := o.wait(ctx); err != nil {
				return false, fmt.Errorf("%w: %w", errWaited, err)
			}
		case StateKilling:
			s.mu.Unlock()
			return false, errKilling
		default:
			s.mu.Unlock()
			return false, ErrUnknown
		}
	}
}

// resume is the old way to connect, which refuses a running sandbox.
func (s *sandbox) resume(ctx context.Context, timeout time.Duration, autoPause *bool) error {
	s.mu.Lock()
	running := s.rec.State == StateRunning
	s.mu.Unlock()
	if running {
		return errRunning
	}
	if _, err := s.connect(ctx, timeout); err != nil {
		return err
	}
	if autoPause != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rec.AutoPause = *autoPause
		s.save()
	}
	return nil
}

// resumeWork thaws the sandbox, or starts it anew where only files were kept.
func (s *sandbox) resumeWork(timeout, maxRun time.Duration) work {
	cold := s.rec.Process == nil
	return func(ctx context.Context) (func(*record), error) {
		proc, err := s.wake(ctx, cold)
		if err != nil {
			s.host.log.Error("resuming a sandbox", zap.String("sandbox", s.id), zap.Error(err))
			return func(r *record) { r.State = StatePaused }, err
		}
		return func(r *record) {
			now := time.Now()
			r.State, r.StartedAt, r.EndAt = StateRunning, now, now.Add(clampRun(timeout, maxRun))
			if cold {
				r.Process = proc
			} else {
				r.Process.Group = s.group.Ref()
			}
		}, nil
	}
}

// wake returns the new process of a cold start.
func (s *sandbox) wake(ctx context.Context, cold bool) (*process, error) {
	if cold {
		return s.launch(ctx, nil)
	}
	if err := s.group.Thaw(ctx); err != nil {
		refreeze, cancel := context.WithTimeout(context.WithoutCancel(ctx), opTimeout)
		defer cancel()
		return nil, errors.Join(err, s.group.Freeze(refreeze))
	}
	return nil, nil
}

// kill ends the sandbox and removes its files, after the transition under way.
// It joins a kill that is under way.
func (s *sandbox) kill(ctx context.Context) error {
	for {
		s.mu.Lock()
		o := s.op
		switch {
		case s.rec.State == StateKilled:
			s.mu.Unlock()
			return ErrUnknown
		case o == nil:
			o = s.begin(StateKilling, 0, func(ctx context.Context) (func(*record), error) { return s.killed(ctx, nil) })
			s.mu.Unlock()
			return o.wait(ctx)
		case s.rec.State == StateKilling:
			s.mu.Unlock()
			return o.wait(ctx)
		}
		s.mu.Unlock()
		if err := o.wait(ctx); err != nil && ctx.Err() != nil {
			return err
		}
	}
}

// killed is a kill's work. Whatever can't be removed is logged: the sandbox is
// gone all the same, and the next start of the host tries again.
func (s *sandbox) killed(ctx context.Context, result error) (func(*record), error) {
	var errs []error
	if s.group != nil {
		errs = append(errs, s.group.Kill(ctx))
	}
	errs = append(errs, killStrays(s.id), os.RemoveAll(s.dir))
	if err := errors.Join(errs...); err != nil {
		s.host.log.Error("killing a sandbox", zap.String("sandbox", s.id), zap.Error(err))
	}
	return func(r *record) { r.State = StateKilled }, result
}

// killStrays ends processes that have lost their envd, and with it the tree by
// which they are known; the ID in their environment stays. They would keep the
// ports of an address that the next sandbox may get.
func killStrays(id string) error {
	pids, err := proctree.WithEnv("E2B_SANDBOX_ID=" + id)
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range pids {
		if p, err := os.FindProcess(pid); err == nil && pid != os.Getpid() {
			if err := p.Kill(); !errors.Is(err, os.ErrProcessDone) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
