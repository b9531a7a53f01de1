package envd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/creack/pty"

	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/process"
)

// defaultKeepalive is how long a stream is silent before a sign of life, unless
// the client asks for another interval.
const defaultKeepalive = 90 * time.Second

// processService is process.Process.
type processService struct{ *server }

// Start runs a command and follows it to its end.
func (s *processService) Start(ctx context.Context, req *connect.Request[process.StartRequest], stream *connect.ServerStream[process.StartResponse]) error {
	sp, err := s.spec(req)
	if err != nil {
		return err
	}
	c, f, err := startCommand(s.reaper, sp)
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	defer c.leave(f)
	s.add(c)
	return c.stream(ctx, f, keepalive(req.Header()), nil, func(ev *process.ProcessEvent) error {
		return stream.Send(&process.StartResponse{Event: ev})
	})
}

// spec checks and completes a request to start.
func (s *processService) spec(req *connect.Request[process.StartRequest]) (spec, error) {
	m := req.Msg
	sp := spec{config: m.GetProcess(), tag: m.Tag, dir: s.resolve(m.GetProcess().GetCwd())}
	if sp.config.GetCmd() == "" {
		return spec{}, connect.NewError(connect.CodeInvalidArgument, errors.New("cmd is missing"))
	}
	if info, err := os.Stat(sp.dir); err != nil || !info.IsDir() {
		return spec{}, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("cwd %q does not exist", m.GetProcess().GetCwd()))
	}
	timeout, err := awakeTimeoutOf(req.Header())
	if err != nil {
		return spec{}, err
	}
	sp.timeout = timeout
	sp.env = s.environ(sp.config.GetEnvs())
	// SDKs that know of the field always set it, older ones always write
	sp.stdin = m.Stdin == nil || m.GetStdin()
	if m.GetPty() != nil {
		sp.size = winsize(m.GetPty())
	}
	return sp, nil
}

func winsize(p *process.PTY) *pty.Winsize {
	return &pty.Winsize{Cols: uint16(min(p.GetSize().GetCols(), 1<<16-1)), Rows: uint16(min(p.GetSize().GetRows(), 1<<16-1))}
}

func awakeTimeoutOf(h http.Header) (time.Duration, error) {
	v := h.Get(headerAwake)
	if v == "" {
		return 0, nil
	}
	ms, err := strconv.ParseUint(v, 10, 33) // the protocol allows ten digits
	if err != nil || ms == 0 {
		return 0, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("invalid %s", headerTimeout))
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func keepalive(h http.Header) time.Duration {
	if s, err := strconv.ParseUint(h.Get("Keepalive-Ping-Interval"), 10, 16); err == nil && s > 0 {
		return time.Duration(s) * time.Second
	}
	return defaultKeepalive
}

// add keeps a command in the list until it ends.
func (s *server) add(c *command) {
	s.mu.Lock()
	s.commands[c.pid] = c
	s.mu.Unlock()
	go func() {
		<-c.done
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.commands[c.pid] == c { // the PID may be a new command's already
			delete(s.commands, c.pid)
		}
	}()
}

var errTimedOut = connect.NewError(connect.CodeDeadlineExceeded, errors.New("the command's timeout has passed"))

// stream sends a command's events until its end, or until the client leaves or
// expired is closed, which don't end the command.
func (c *command) stream(ctx context.Context, f *follower, interval time.Duration, expired <-chan struct{}, send func(*process.ProcessEvent) error) error {
	start := &process.ProcessEvent_StartEvent{Pid: uint32(c.pid)}
	if err := send(&process.ProcessEvent{Event: &process.ProcessEvent_Start{Start: start}}); err != nil {
		return err
	}
	alive := time.NewTimer(interval)
	defer alive.Stop()
	for {
		var ev *process.ProcessEvent
		select {
		case ev = <-f.events:
		case <-alive.C:
			ev = &process.ProcessEvent{Event: &process.ProcessEvent_Keepalive{Keepalive: &process.ProcessEvent_KeepAlive{}}}
		case <-c.done:
			return c.sendEnd(f, send)
		case <-expired:
			return errTimedOut
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := send(ev); err != nil {
			return err
		}
		alive.Reset(interval)
	}
}

// sendEnd sends what is left in the queue first.
func (c *command) sendEnd(f *follower, send func(*process.ProcessEvent) error) error {
	for {
		select {
		case ev := <-f.events:
			if err := send(ev); err != nil {
				return err
			}
			continue
		default:
		}
		end, timedOut := c.result()
		if timedOut {
			return errTimedOut
		}
		return send(&process.ProcessEvent{Event: &process.ProcessEvent_End{End: end}})
	}
}

// Connect follows a command that runs already. The call's timeout ends only the
// call.
func (s *processService) Connect(ctx context.Context, req *connect.Request[process.ConnectRequest], stream *connect.ServerStream[process.ConnectResponse]) error {
	c, err := s.selected(req.Msg.GetProcess())
	if err != nil {
		return err
	}
	timeout, err := awakeTimeoutOf(req.Header())
	if err != nil {
		return err
	}
	f, err := c.follow()
	if err != nil {
		return connect.NewError(connect.CodeNotFound, err)
	}
	defer c.leave(f)
	return c.stream(ctx, f, keepalive(req.Header()), expiry(ctx, timeout), func(ev *process.ProcessEvent) error {
		return stream.Send(&process.ConnectResponse{Event: ev})
	})
}

// selected finds a command by PID or tag.
func (s *processService) selected(sel *process.ProcessSelector) (*command, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch by := sel.GetSelector().(type) {
	case *process.ProcessSelector_Pid:
		if c, ok := s.commands[int(by.Pid)]; ok {
			return c, nil
		}
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("process with pid %d not found", by.Pid))
	case *process.ProcessSelector_Tag:
		for _, c := range s.commands {
			if c.tag != nil && *c.tag == by.Tag {
				return c, nil
			}
		}
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("process with tag %q not found", by.Tag))
	}
	return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("no process selected"))
}

// List returns the commands that run. Their children aren't commands.
func (s *processService) List(context.Context, *connect.Request[process.ListRequest]) (*connect.Response[process.ListResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	res := &process.ListResponse{}
	for _, c := range s.commands {
		res.Processes = append(res.Processes, &process.ProcessInfo{Config: c.config, Pid: uint32(c.pid), Tag: c.tag})
	}
	return connect.NewResponse(res), nil
}

// Update changes a terminal's size.
func (s *processService) Update(_ context.Context, req *connect.Request[process.UpdateRequest]) (*connect.Response[process.UpdateResponse], error) {
	c, err := s.selected(req.Msg.GetProcess())
	if err != nil {
		return nil, err
	}
	if p := req.Msg.GetPty(); p != nil {
		if err := c.resize(winsize(p)); err != nil {
			return nil, connect.NewError(connect.CodeFailedPrecondition, err)
		}
	}
	return connect.NewResponse(&process.UpdateResponse{}), nil
}

// SendInput writes to a command's stdin or terminal.
func (s *processService) SendInput(ctx context.Context, req *connect.Request[process.SendInputRequest]) (*connect.Response[process.SendInputResponse], error) {
	c, err := s.selected(req.Msg.GetProcess())
	if err != nil {
		return nil, err
	}
	if err := inputError(c.write(req.Msg.GetInput(), ctx.Done())); err != nil {
		return nil, err
	}
	return connect.NewResponse(&process.SendInputResponse{}), nil
}

func inputError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errEnded):
		return connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, errNoInput):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return connect.NewError(connect.CodeCanceled, err)
	default:
		return connect.NewError(connect.CodeInternal, err)
	}
}

// StreamInput writes many messages in their order to one command.
func (s *processService) StreamInput(ctx context.Context, stream *connect.ClientStream[process.StreamInputRequest]) (*connect.Response[process.StreamInputResponse], error) {
	var c *command
	for stream.Receive() {
		switch ev := stream.Msg().GetEvent().(type) {
		case *process.StreamInputRequest_Start:
			selected, err := s.selected(ev.Start.GetProcess())
			if err != nil {
				return nil, err
			}
			c = selected
		case *process.StreamInputRequest_Data:
			if c == nil {
				return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("data before start"))
			}
			if err := inputError(c.write(ev.Data.GetInput(), ctx.Done())); err != nil {
				return nil, err
			}
		}
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	return connect.NewResponse(&process.StreamInputResponse{}), nil
}

// SendSignal signals a command and the children in its process group.
func (s *processService) SendSignal(_ context.Context, req *connect.Request[process.SendSignalRequest]) (*connect.Response[process.SendSignalResponse], error) {
	c, err := s.selected(req.Msg.GetProcess())
	if err != nil {
		return nil, err
	}
	sig := req.Msg.GetSignal()
	if sig != process.Signal_SIGNAL_SIGKILL && sig != process.Signal_SIGNAL_SIGTERM {
		return nil, connect.NewError(connect.CodeUnimplemented, fmt.Errorf("signal %v", sig))
	}
	if !c.reaper.signalGroup(c.pid, syscall.Signal(sig)) {
		return nil, connect.NewError(connect.CodeNotFound, errEnded)
	}
	return connect.NewResponse(&process.SendSignalResponse{}), nil
}

// CloseStdin ends a command's input.
func (s *processService) CloseStdin(_ context.Context, req *connect.Request[process.CloseStdinRequest]) (*connect.Response[process.CloseStdinResponse], error) {
	c, err := s.selected(req.Msg.GetProcess())
	if err != nil {
		return nil, err
	}
	c.closeStdin()
	return connect.NewResponse(&process.CloseStdinResponse{}), nil
}
