package sandboxd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envd"
	"github.com/sandman-proxy/sandman/internal/sandboxd/freezer"
	"github.com/sandman-proxy/sandman/internal/sandboxd/proctree"
)

// envdEnv is what envd gets of the host's environment: there may be secrets in
// the rest, and its commands are other people's.
var envdEnv = []string{"PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"}

// launch starts the sandbox's envd. Write, which may be nil, is called when envd
// is known and before it goes on: what it writes down outlives this process, and
// if this process dies before it, envd ends.
func (s *sandbox) launch(ctx context.Context, write func(*process) error) (*process, error) {
	rec := s.snapshot()
	if err := envd.WriteConfig(s.dir, envd.Config{
		SandboxID: s.id, TemplateID: rec.TemplateID,
		Home:        filepath.Join(s.dir, homeFolder),
		AccessToken: rec.AccessToken, Env: rec.EnvVars,
	}); err != nil {
		return nil, err
	}
	e, err := s.startEnvd(ctx)
	if err != nil {
		return nil, fmt.Errorf("starting envd: %w", err)
	}
	defer e.commit.Close() // without the byte envd ends by itself
	group, err := s.host.freezer.New("sandboxd-"+s.id, e.pid)
	if err != nil {
		endChild(e.pid)
		return nil, fmt.Errorf("starting envd: %w", err)
	}
	p := &process{PID: e.pid, Identity: e.identity, Addr: e.addr, Group: group.Ref()}
	if write != nil {
		err = write(p)
	}
	if err == nil {
		s.group = group
		err = s.watch(p)
	}
	if err == nil {
		_, err = e.commit.Write([]byte{1})
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("starting envd: %w", err), group.Kill(ctx))
		reap(e.pid)
		return nil, err
	}
	return p, nil
}

// startedEnvd is an envd that listens and waits for a byte on commit.
type startedEnvd struct {
	pid            int
	identity, addr string
	commit         *os.File
}

func (s *sandbox) startEnvd(ctx context.Context) (_ *startedEnvd, err error) {
	cmd, ready, commit, err := s.envdCommand()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	defer func() {
		if err != nil {
			commit.Close()
		}
	}()
	err = cmd.Start()
	closeFiles(cmd)
	if err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	// the watcher collects it, also after this host was closed and opened again
	_ = cmd.Process.Release()
	r, err := readReady(ctx, ready)
	if err != nil {
		endChild(pid)
		return nil, fmt.Errorf("%w; see %s", err, filepath.Join(s.dir, logFile))
	}
	p, err := proctree.Get(pid)
	if err != nil {
		endChild(pid)
		return nil, err
	}
	return &startedEnvd{pid: pid, identity: p.Identity, addr: r.Addr, commit: commit}, nil
}

// envdCommand is the command with our ends of its two pipes. Nothing of it is
// tied to this process, see package envd.
func (s *sandbox) envdCommand() (cmd *exec.Cmd, ready, commit *os.File, err error) {
	log, err := os.OpenFile(filepath.Join(s.dir, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, nil, err
	}
	ready, theirReady, err := os.Pipe()
	if err != nil {
		log.Close()
		return nil, nil, nil, err
	}
	theirCommit, commit, err := os.Pipe()
	if err != nil {
		log.Close()
		ready.Close()
		theirReady.Close()
		return nil, nil, nil, err
	}
	argv := append(append([]string{}, s.host.cfg.EnvdCommand...), s.dir)
	cmd = exec.Command(argv[0], argv[1:]...)
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirReady, theirCommit}
	cmd.SysProcAttr = newSession()
	cmd.Env = []string{"E2B_SANDBOX_ID=" + s.id}
	for _, k := range envdEnv {
		if v, ok := os.LookupEnv(k); ok {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	return cmd, ready, commit, nil
}

// closeFiles closes our copies of what the child has.
func closeFiles(cmd *exec.Cmd) {
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	if f, ok := cmd.Stdout.(*os.File); ok {
		f.Close()
	}
}

func readReady(ctx context.Context, f *os.File) (envd.Ready, error) {
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var r envd.Ready
	err := json.NewDecoder(f).Decode(&r)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r, errors.New("it ended at once")
	}
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	return r, err
}

// watch follows envd to its death, which ends the sandbox.
func (s *sandbox) watch(p *process) error {
	exited, err := exit(s.host.ctx, p.PID)
	if err != nil {
		return fmt.Errorf("watching process %d: %w", p.PID, err)
	}
	pid := p.PID
	return s.host.start(func() {
		if !exited() {
			return // the host was closed
		}
		reap(pid)
		s.lost(pid)
	})
}

// lost removes a sandbox whose envd has died, unless it was meant to.
func (s *sandbox) lost(pid int) {
	for {
		s.mu.Lock()
		o := s.op
		if o == nil {
			if s.rec.State != StateKilled && s.rec.Process != nil && s.rec.Process.PID == pid {
				s.host.log.Error("a sandbox's envd has died", zap.String("sandbox", s.id))
				s.begin(StateKilling, 0, func(ctx context.Context) (func(*record), error) { return s.killed(ctx, nil) })
			}
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		<-o.done
	}
}

// attachAll finds the sandboxes of an earlier host in the folder.
func (h *Host) attachAll(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(h.cfg.Dir, "sandboxes"))
	if err != nil {
		return fmt.Errorf("reading the sandboxes: %w", err)
	}
	for _, e := range entries {
		if !e2b.ValidID(e.Name()) {
			continue // not ours
		}
		if err := h.attach(ctx, e.Name()); err != nil {
			h.log.Warn("a sandbox was not taken over", zap.String("sandbox", e.Name()), zap.Error(err))
		}
	}
	return nil
}

// attach takes over one sandbox, or removes what is left of it if it is lost. One
// that lives and can't be taken over is left alone, for whoever can.
func (h *Host) attach(ctx context.Context, id string) error {
	s := &sandbox{host: h, id: id, dir: h.dir(id)}
	rec, err := loadRecord(s.dir)
	if err == nil {
		s.rec = *rec
		err = s.reattach(ctx)
	}
	if errors.Is(err, errLost) || errors.Is(err, fs.ErrNotExist) {
		_, _ = s.killed(ctx, nil)
	}
	if err != nil {
		return err
	}
	if err := h.put(s); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.State != rec.State { // there may be many thousands
		s.save()
	}
	s.schedule()
	return nil
}

var errLost = errors.New("its processes are gone")

// reattach finds the processes again and settles a transition that was under
// way when the earlier host ended.
func (s *sandbox) reattach(ctx context.Context) error {
	p := s.rec.Process
	if p == nil {
		if s.rec.State == StatePaused || s.rec.State == StateResuming {
			s.rec.State = StatePaused
			return nil
		}
		return errLost
	}
	group, err := freezer.Open(p.Group)
	if err == nil {
		s.group = group
	}
	if s.rec.State == StateKilling || !proctree.Alive(p.PID, p.Identity) {
		return errLost // and what is left of its group goes, too
	}
	if err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	return s.watch(p)
}

// settle asks the kernel what came of a transition. What is frozen is paused.
func (s *sandbox) settle(ctx context.Context) error {
	frozen, err := s.group.Frozen()
	if err != nil {
		return err
	}
	switch {
	case frozen && s.rec.State != StateResuming:
		if s.rec.State != StatePaused {
			s.rec.State, s.rec.EndAt = StatePaused, time.Now()
		}
		return nil
	case s.rec.State == StatePaused:
		return s.group.Freeze(ctx)
	default:
		s.rec.State = StateRunning
		return s.group.Thaw(ctx)
	}
}
