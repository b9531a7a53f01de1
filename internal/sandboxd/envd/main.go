package envd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// Main runs the daemon of the sandbox whose folder is the last of args, until it
// is killed, and returns the exit code.
func Main(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "envd: want the sandbox's folder; this command is the host's own")
		return 2
	}
	if err := run(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, "envd:", err)
		return 1
	}
	return 0
}

func run(dir string) error {
	ready, commit := inherited(readyFD, "ready"), inherited(commitFD, "commit")
	s, ln, err := prepare(dir)
	if reportErr := report(ready, ln, err); err == nil {
		err = reportErr
	}
	if err != nil {
		return err
	}
	if err := awaitCommit(commit); err != nil {
		return err
	}
	return serve(s, ln)
}

// inherited keeps a descriptor of the host's from leaking into commands.
func inherited(fd uintptr, name string) *os.File {
	syscall.CloseOnExec(int(fd))
	return os.NewFile(fd, name)
}

func prepare(dir string) (*server, net.Listener, error) {
	cfg, err := readConfig(dir)
	if err != nil {
		return nil, nil, err
	}
	if err := becomeSubreaper(); err != nil {
		return nil, nil, err
	}
	ln, err := listen(cfg.SandboxID)
	if err != nil {
		return nil, nil, err
	}
	host, _, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	return newServer(cfg, host), ln, nil
}

func report(ready *os.File, ln net.Listener, err error) error {
	defer ready.Close()
	var r Ready
	if err != nil {
		r.Error = err.Error()
	} else {
		r.Addr = ln.Addr().String()
	}
	if err := json.NewEncoder(ready).Encode(r); err != nil {
		return fmt.Errorf("telling the host: %w", err)
	}
	return nil
}

func awaitCommit(commit *os.File) error {
	defer commit.Close()
	if _, err := io.ReadFull(commit, make([]byte, 1)); err != nil {
		return fmt.Errorf("the host went away while it started this sandbox: %w", err)
	}
	return nil
}

// serve has no timeouts on reading and writing: uploads and streams take as long
// as they take, and the time of a pause would count.
func serve(s *server, ln net.Listener) error {
	go s.reaper.run(context.Background())
	hs := &http.Server{Handler: s.handler(), ReadHeaderTimeout: time.Minute}
	if err := hs.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}
