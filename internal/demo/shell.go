package demo

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"

	"github.com/creack/pty"
)

const (
	// keptOutput is how much of the terminal's output a page that comes back
	// gets again; it may be up to twice as much.
	keptOutput = 256 << 10
	// maxBehind is how far a page may be behind before the programs in the
	// terminal have to wait for it, as they would for any terminal.
	maxBehind = keptOutput / 2
	// maxPages bounds the pages whose input is remembered.
	maxPages = 64
)

// shell is the terminal of all pages: they see the same, and a page that comes
// back finds what it left.
type shell struct {
	home string

	mu      sync.Mutex // guards the following fields
	moved   *sync.Cond // a page has taken output, or left
	changed chan struct{}
	run     int      // counts the shells; 0: none was started yet
	tty     *os.File // nil while no shell runs
	cmd     *exec.Cmd
	closed  bool
	out     []byte // the last output
	from    int64  // the offset of out[0]; it never goes back
	viewers map[*viewer]struct{}
	pages   []page // the one that typed last comes last
}

// viewer is a page that is connected. seen is guarded by shell.mu.
type viewer struct{ seen int64 }

// page is how much of a page's input has arrived. It outlives connections, so
// that what is sent again is not typed twice.
type page struct {
	id       string
	received int64
}

var errNoShell = errors.New("no shell is running")

func newShell(home string) *shell {
	s := &shell{home: home, changed: make(chan struct{}), viewers: make(map[*viewer]struct{})}
	s.moved = sync.NewCond(&s.mu)
	return s
}

// start makes sure that a shell runs, in a terminal of the given size.
func (s *shell) start(size pty.Winsize) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tty != nil || s.closed {
		return nil
	}
	cmd := exec.Command(shellProgram())
	cmd.Dir = s.home
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "COLORTERM=truecolor")
	tty, err := pty.StartWithSize(cmd, &size)
	if err != nil {
		return fmt.Errorf("starting a shell: %w", err)
	}
	s.tty, s.cmd = tty, cmd
	s.run++
	s.unsyncedNotify()
	go s.pump(tty, cmd)
	return nil
}

func shellProgram() string {
	for _, name := range []string{os.Getenv("SHELL"), "bash", "sh"} {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	return "/bin/sh"
}

// pump takes the terminal's output until its last program has gone.
func (s *shell) pump(tty *os.File, cmd *exec.Cmd) {
	buf := make([]byte, 16<<10)
	for {
		n, err := tty.Read(buf)
		s.mu.Lock()
		s.unsyncedAppend(buf[:n])
		for s.unsyncedBehind() > maxBehind && s.tty == tty {
			s.moved.Wait()
		}
		s.mu.Unlock()
		if err != nil {
			break
		}
	}
	_ = tty.Close()
	_ = cmd.Wait() // how it ended is its user's affair
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tty == tty {
		s.tty, s.cmd = nil, nil
		s.unsyncedNotify()
	}
}

// unsyncedAppend forgets the oldest output, up to the end of a line: the rest
// of an escape sequence would be shown as garbage. s.mu must be held.
func (s *shell) unsyncedAppend(b []byte) {
	s.out = append(s.out, b...)
	if len(s.out) >= 2*keptOutput { // seldom, because it copies all that is kept
		over := len(s.out) - keptOutput
		if i := slices.Index(s.out[over:], '\n'); i >= 0 {
			over += i + 1
		}
		s.from += int64(over)
		s.out = append(s.out[:0], s.out[over:]...)
	}
	s.unsyncedNotify()
}

// unsyncedBehind is how far the slowest page is behind. s.mu must be held.
func (s *shell) unsyncedBehind() int64 {
	var most int64
	for v := range s.viewers {
		most = max(most, s.from+int64(len(s.out))-v.seen)
	}
	return most
}

func (s *shell) unsyncedNotify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// view begins to follow the output: after offset since, if that much is still
// kept, else from the oldest that is. Leave must be called.
func (s *shell) view(since int64) *viewer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if end := s.from + int64(len(s.out)); since < s.from || since > end {
		since = s.from
	}
	v := &viewer{seen: since}
	s.viewers[v] = struct{}{}
	return v
}

func (s *shell) leave(v *viewer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.viewers, v)
	s.moved.Broadcast()
}

// glance is what a page has to be told.
type glance struct {
	at      int64  // the offset of out
	end     int64  // of all output
	out     []byte // the caller's
	run     int
	running bool
	changed <-chan struct{} // closed when there is more
}

// next gives up to most bytes that v has not seen, and takes them for seen.
func (s *shell) next(v *viewer, most int) glance {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.seen = max(v.seen, s.from)
	g := glance{at: v.seen, end: s.from + int64(len(s.out)), run: s.run, running: s.tty != nil, changed: s.changed}
	rest := s.out[v.seen-s.from:]
	g.out = slices.Clone(rest[:min(len(rest), most)])
	v.seen += int64(len(g.out))
	s.moved.Broadcast()
	return g
}

// received tells how much of a page's input has arrived.
func (s *shell) received(id string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsyncedPage(id).received
}

// unsyncedPage gives a page, which is then the last of the list. s.mu must be
// held.
func (s *shell) unsyncedPage(id string) *page {
	p := page{id: id}
	if i := slices.IndexFunc(s.pages, func(p page) bool { return p.id == id }); i >= 0 {
		p = s.pages[i]
		s.pages = slices.Delete(s.pages, i, i+1)
	} else if len(s.pages) >= maxPages {
		s.pages = slices.Delete(s.pages, 0, 1)
	}
	s.pages = append(s.pages, p)
	return &s.pages[len(s.pages)-1]
}

// input types what a page has sent as its message number seq, unless that has
// been typed already, and returns the number of the last one that has.
func (s *shell) input(id string, seq int64, data []byte) (int64, error) {
	s.mu.Lock()
	p := s.unsyncedPage(id)
	received, tty := p.received, s.tty
	switch {
	case seq <= received:
		s.mu.Unlock()
		return received, nil
	case seq > received+1:
		s.mu.Unlock()
		return received, fmt.Errorf("input %d follows %d", seq, received)
	case tty == nil:
		s.mu.Unlock()
		return received, errNoShell
	}
	p.received = seq
	s.mu.Unlock()
	// not under the lock: a program that does not read makes this wait
	if _, err := tty.Write(data); err != nil {
		return seq, fmt.Errorf("typing: %w", err)
	}
	return seq, nil
}

func (s *shell) resize(size pty.Winsize) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tty != nil {
		_ = pty.Setsize(s.tty, &size) // of a shell that is just ending it is of no use
	}
}

// close hangs up: the shell and its programs get SIGHUP.
func (s *shell) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.tty == nil {
		return
	}
	_ = s.cmd.Process.Signal(hangUp)
	_ = s.tty.Close()
	s.tty = nil
	s.moved.Broadcast()
}
