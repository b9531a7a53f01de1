package envd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"

	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/process"
)

const (
	// chunk is the most output in one event.
	chunk = 32 << 10
	// backlog is how many events a slow client may be behind before the command
	// has to wait for it.
	backlog = 64
	// outputGrace is how long a command's end waits for its output's end: a child
	// in the background can hold the pipe open for ever.
	outputGrace = time.Second
)

// command is one command of the sandbox, with its pipes or its terminal. It
// outlives the streams that follow it.
type command struct {
	pid    int
	config *process.ProcessConfig
	tag    *string
	reaper *reaper

	inMu  sync.Mutex // serialises writes to, and guards closing of, stdin
	stdin *os.File   // nil where the command has none, or after it was closed
	tty   *os.File   // the terminal's other end; nil for pipes

	mu       sync.Mutex // guards the following fields
	followed map[*follower]struct{}
	end      *process.ProcessEvent_EndEvent
	timedOut bool
	done     chan struct{} // closed with end set
}

// follower is one stream's view of a command.
type follower struct {
	events chan *process.ProcessEvent
	gone   chan struct{} // closed by the stream when it leaves
}

// spec is what a command is started with.
type spec struct {
	config  *process.ProcessConfig
	tag     *string
	dir     string
	env     []string
	size    *pty.Winsize // nil for pipes
	stdin   bool
	timeout time.Duration // awake time; 0 is none
}

// startCommand starts a command and returns it with a follower that misses
// nothing of it.
func startCommand(r *reaper, sp spec) (*command, *follower, error) {
	c := &command{
		config: sp.config, tag: sp.tag, reaper: r,
		followed: map[*follower]struct{}{}, done: make(chan struct{}),
	}
	f, err := c.follow()
	if err != nil {
		return nil, nil, err
	}
	if sp.size != nil {
		err = c.startTerminal(sp)
	} else {
		err = c.startPiped(sp)
	}
	if err != nil {
		return nil, nil, err
	}
	if sp.timeout > 0 {
		afterAwake(sp.timeout, c.done, c.timeOut)
	}
	return c, f, nil
}

func (c *command) startTerminal(sp spec) error {
	tty, child, err := pty.Open()
	if err != nil {
		return fmt.Errorf("opening a terminal: %w", err)
	}
	defer child.Close()
	if err := pty.Setsize(tty, sp.size); err != nil {
		tty.Close()
		return fmt.Errorf("sizing the terminal: %w", err)
	}
	status, err := c.exec(sp, []*os.File{child, child, child}, &syscall.SysProcAttr{Setsid: true, Setctty: true})
	if err != nil {
		tty.Close()
		return err
	}
	c.tty = tty
	var out sync.WaitGroup
	out.Go(func() { c.copyOutput(tty, terminalEvent) })
	go c.awaitEnd(status, &out)
	return nil
}

func (c *command) startPiped(sp spec) (err error) {
	var ours, theirs []*os.File
	defer func() {
		closeAll(theirs)
		if err != nil {
			closeAll(ours)
		}
	}()
	in, err := os.Open(os.DevNull)
	if sp.stdin {
		var w *os.File
		in, w, err = os.Pipe()
		c.stdin, ours = w, append(ours, w)
	}
	theirs = append(theirs, in)
	for range 2 {
		if err != nil {
			return fmt.Errorf("opening pipes: %w", err)
		}
		var r, w *os.File
		r, w, err = os.Pipe()
		ours, theirs = append(ours, r), append(theirs, w)
	}
	if err != nil {
		return fmt.Errorf("opening pipes: %w", err)
	}
	// a group of its own, so that a kill reaches what the shell has started
	status, err := c.exec(sp, theirs, &syscall.SysProcAttr{Setpgid: true})
	if err != nil {
		return err
	}
	stdout, stderr := ours[len(ours)-2], ours[len(ours)-1]
	var out sync.WaitGroup
	out.Go(func() { c.copyOutput(stdout, stdoutEvent) })
	out.Go(func() { c.copyOutput(stderr, stderrEvent) })
	go c.awaitEnd(status, &out)
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

func (c *command) exec(sp spec, files []*os.File, sys *syscall.SysProcAttr) (<-chan syscall.WaitStatus, error) {
	path, err := exec.LookPath(sp.config.GetCmd())
	if err != nil {
		return nil, err
	}
	argv := append([]string{sp.config.GetCmd()}, sp.config.GetArgs()...)
	pid, status, err := c.reaper.start(path, argv, &os.ProcAttr{Dir: sp.dir, Env: sp.env, Files: files, Sys: sys})
	if err != nil {
		return nil, fmt.Errorf("starting %q: %w", sp.config.GetCmd(), err)
	}
	c.pid = pid
	return status, nil
}

func stdoutEvent(b []byte) *process.ProcessEvent_DataEvent {
	return &process.ProcessEvent_DataEvent{Output: &process.ProcessEvent_DataEvent_Stdout{Stdout: b}}
}

func stderrEvent(b []byte) *process.ProcessEvent_DataEvent {
	return &process.ProcessEvent_DataEvent{Output: &process.ProcessEvent_DataEvent_Stderr{Stderr: b}}
}

func terminalEvent(b []byte) *process.ProcessEvent_DataEvent {
	return &process.ProcessEvent_DataEvent{Output: &process.ProcessEvent_DataEvent_Pty{Pty: b}}
}

// copyOutput reads until the last holder of the other end is gone, whether or
// not anybody follows: a full pipe would stop the command.
func (c *command) copyOutput(r *os.File, event func([]byte) *process.ProcessEvent_DataEvent) {
	defer r.Close()
	for {
		buf := make([]byte, chunk)
		n, err := r.Read(buf)
		if n > 0 {
			c.publish(&process.ProcessEvent{Event: &process.ProcessEvent_Data{Data: event(buf[:n])}})
		}
		if err != nil { // EOF, or EIO from a terminal
			return
		}
	}
}

// publish gives an event to all followers and waits for the slowest of them:
// nothing is lost, and what can't be sent holds up the command, as a pipe does.
func (c *command) publish(ev *process.ProcessEvent) {
	c.mu.Lock()
	var list []*follower
	if c.end == nil {
		for f := range c.followed {
			list = append(list, f)
		}
	}
	c.mu.Unlock()
	for _, f := range list {
		select {
		case f.events <- ev:
		case <-f.gone:
		}
	}
}

// awaitEnd publishes the end after the output, if that ends.
func (c *command) awaitEnd(status <-chan syscall.WaitStatus, out *sync.WaitGroup) {
	ws := <-status
	drained := make(chan struct{})
	go func() { out.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(outputGrace):
	}
	c.mu.Lock()
	c.end = endEvent(ws)
	c.mu.Unlock()
	close(c.done)
	c.closeStdin()
}

// endEvent describes an exit in the words of os.ProcessState, as E2B does.
func endEvent(ws syscall.WaitStatus) *process.ProcessEvent_EndEvent {
	end := &process.ProcessEvent_EndEvent{ExitCode: int32(ws.ExitStatus()), Exited: ws.Exited()}
	switch {
	case ws.Exited():
		end.Status = fmt.Sprintf("exit status %d", ws.ExitStatus())
	case ws.Signaled():
		end.Status = "signal: " + ws.Signal().String()
		if ws.CoreDump() {
			end.Status += " (core dumped)"
		}
	}
	if end.ExitCode != 0 {
		status := end.Status
		end.Error = &status
	}
	return end
}

// errEnded says that there is nothing left to follow or to write to.
var errEnded = errors.New("the command has ended")

// follow makes a follower of all that comes from now on. The caller must leave.
func (c *command) follow() (*follower, error) {
	f := &follower{events: make(chan *process.ProcessEvent, backlog), gone: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		return nil, errEnded
	}
	c.followed[f] = struct{}{}
	return f, nil
}

func (c *command) leave(f *follower) {
	close(f.gone)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.followed, f)
}

// result is how it ended; only after done is closed.
func (c *command) result() (end *process.ProcessEvent_EndEvent, timedOut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end, c.timedOut
}

func (c *command) timeOut() {
	c.mu.Lock()
	c.timedOut = c.end == nil
	c.mu.Unlock()
	c.reaper.signalGroup(c.pid, syscall.SIGKILL)
}

// errNoInput says that the command was started without what is to be written to.
var errNoInput = errors.New("the command has no such input")

// write writes to stdin, or to the terminal, until all is taken or the caller
// gives up (cancelled is closed): a command that doesn't read makes it wait.
func (c *command) write(in *process.ProcessInput, cancelled <-chan struct{}) error {
	c.inMu.Lock()
	defer c.inMu.Unlock()
	w, data := c.stdin, in.GetStdin()
	if _, ok := in.GetInput().(*process.ProcessInput_Pty); ok {
		w, data = c.tty, in.GetPty()
	}
	if w == nil {
		return errNoInput
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-cancelled:
			_ = w.SetWriteDeadline(time.Unix(1, 0))
		case <-stop:
		}
	}()
	_, err := w.Write(data)
	close(stop)
	<-stopped // the deadline must not be set once it is cleared
	_ = w.SetWriteDeadline(time.Time{})
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
		return errEnded
	}
	return err
}

// closeStdin lets the command read an end; a second call does nothing.
func (c *command) closeStdin() {
	c.inMu.Lock()
	defer c.inMu.Unlock()
	if c.stdin != nil {
		c.stdin.Close()
		c.stdin = nil
	}
}

func (c *command) resize(size *pty.Winsize) error {
	if c.tty == nil {
		return errNoInput
	}
	return pty.Setsize(c.tty, size)
}
