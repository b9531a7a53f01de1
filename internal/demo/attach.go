package demo

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"github.com/creack/pty"
)

// The terminal's protocol. The page keeps its input until it is acknowledged,
// and sends it again after it has connected anew; numbers tell what was typed
// already. Nobody sends anything without a cause: an open terminal does not
// keep its sandbox awake.
//
//	page  ?page=<id>&since=<offset>&cols=&rows=   connects
//	        {"type":"hello","seq":n,"at":offset,"end":offset}  input up to n has arrived;
//	                                              output follows, up to end it is old
//	        <binary>                              the terminal's output
//	        {"type":"reset","at":offset}          some was skipped: clear, and go on here
//	page  {"type":"input","seq":n+1,"data":"ls"}
//	        {"type":"ack","seq":n+1}
//	page  {"type":"size","cols":80,"rows":24}
//	        {"type":"exit"}                       the shell has ended
//	page  {"type":"start"}                        another one
//	        {"type":"woke","ms":600000}           the process has not run for so long
const (
	// burst and pace bound how fast output is sent: a page draws more slowly than
	// a program prints, and could not say so without using the sandbox.
	burst = 64 << 10
	pace  = 8 * time.Millisecond
	// maxInput is the largest message of a page.
	maxInput = 256 << 10
	// sendTimeout ends a connection that takes nothing.
	sendTimeout = 30 * time.Second
)

const hangUp = syscall.SIGHUP

// message is one that is not output.
type message struct {
	Type string `json:"type"`
	Seq  int64  `json:"seq,omitempty"`
	At   int64  `json:"at,omitempty"`
	End  int64  `json:"end,omitempty"`
	Ms   int64  `json:"ms,omitempty"`
	Data string `json:"data,omitempty"`
	Cols uint16 `json:"cols,omitempty"`
	Rows uint16 `json:"rows,omitempty"`
}

// attachment is one connection of one page.
type attachment struct {
	*editor
	conn *websocket.Conn
	page string
	size pty.Winsize
}

// attach connects a page to the terminal. The library refuses a handshake whose
// Origin is not its Host.
func (e *editor) attach(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	page := q.Get("page")
	if page == "" || len(page) > 64 {
		fail(w, http.StatusBadRequest, "page is missing")
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it was answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxInput)
	a := &attachment{editor: e, conn: conn, page: page, size: sizeOf(number(q.Get("cols")), number(q.Get("rows")))}
	since, _ := strconv.ParseInt(q.Get("since"), 10, 64) // 0: all that is kept
	if err := a.serve(r.Context(), since); errors.Is(err, errNoShell) {
		_ = conn.Close(websocket.StatusInternalError, "no shell could be started")
	}
}

func number(s string) uint16 {
	n, _ := strconv.ParseUint(s, 10, 16) // 0 becomes the default
	return uint16(n)
}

func sizeOf(cols, rows uint16) pty.Winsize {
	if cols == 0 || rows == 0 {
		cols, rows = 80, 24
	}
	return pty.Winsize{Cols: cols, Rows: rows}
}

// serve returns when either side has ended the connection.
func (a *attachment) serve(ctx context.Context, since int64) error {
	if err := a.shell.start(a.size); err != nil {
		return errors.Join(errNoShell, err)
	}
	a.shell.resize(a.size)
	ctx, cancel := context.WithCancel(ctx)
	v := a.shell.view(since)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		defer cancel()
		defer a.shell.leave(v)
		_ = a.sendAll(ctx, v)
	}()
	err := a.receiveAll(ctx)
	cancel()
	<-sent
	return err
}

// sender is what a page has been sent so far.
type sender struct {
	*attachment
	viewer  *viewer
	at      int64 // the offset of the output that comes next
	run     int   // the shell that it is of
	running bool
	napped  int
}

// sendAll sends what there is to show, as it comes.
func (a *attachment) sendAll(ctx context.Context, v *viewer) error {
	s := &sender{attachment: a, viewer: v, running: true}
	_, s.napped, _ = a.life.lastNap()
	g := a.shell.next(v, 0)
	s.at, s.run = g.at, g.run
	if err := s.send(ctx, message{Type: "hello", Seq: a.shell.received(a.page), At: g.at, End: g.end}); err != nil {
		return err
	}
	for {
		news, err := s.sendNaps(ctx)
		if err != nil {
			return err
		}
		g := a.shell.next(v, burst)
		if err := s.sendOutput(ctx, g); err != nil {
			return err
		}
		wait := g.changed
		if len(g.out) > 0 {
			wait = nil // there may be more already, but not sooner than pace
		}
		select {
		case <-wait:
		case <-paced(g.out):
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// paced gives the time for the next output after out, nil after none.
func paced(out []byte) <-chan time.Time {
	if len(out) == 0 {
		return nil
	}
	return time.After(pace)
}

func (s *sender) sendNaps(ctx context.Context) (news <-chan struct{}, err error) {
	latest, napped, news := s.life.lastNap()
	if napped == s.napped {
		return news, nil
	}
	s.napped = napped
	return news, s.send(ctx, message{Type: "woke", Ms: latest.Ms})
}

func (s *sender) sendOutput(ctx context.Context, g glance) error {
	if g.at != s.at {
		if err := s.send(ctx, message{Type: "reset", At: g.at}); err != nil {
			return err
		}
	}
	s.at = g.at + int64(len(g.out))
	if len(g.out) > 0 {
		return s.write(ctx, websocket.MessageBinary, g.out)
	}
	if g.run != s.run {
		s.run, s.running = g.run, true
	}
	if s.running && !g.running {
		s.running = false
		return s.send(ctx, message{Type: "exit"})
	}
	return nil
}

// receiveAll does what the page asks for.
func (a *attachment) receiveAll(ctx context.Context) error {
	for {
		kind, b, err := a.conn.Read(ctx)
		if err != nil {
			return err
		}
		var m message
		if kind != websocket.MessageText || json.Unmarshal(b, &m) != nil {
			_ = a.conn.Close(websocket.StatusUnsupportedData, "want JSON")
			return errors.New("a message that is no JSON")
		}
		if err := a.receive(ctx, m); err != nil {
			return err
		}
	}
}

func (a *attachment) receive(ctx context.Context, m message) error {
	switch m.Type {
	case "input":
		seq, err := a.shell.input(a.page, m.Seq, []byte(m.Data))
		if errors.Is(err, errNoShell) {
			return nil // it stays unacknowledged, and is sent again to the next one
		}
		if err != nil {
			return err
		}
		return a.send(ctx, message{Type: "ack", Seq: seq})
	case "size":
		a.size = sizeOf(m.Cols, m.Rows)
		a.shell.resize(a.size)
	case "start":
		return a.shell.start(a.size)
	}
	return nil
}

func (a *attachment) send(ctx context.Context, m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return a.write(ctx, websocket.MessageText, b)
}

func (a *attachment) write(ctx context.Context, kind websocket.MessageType, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return a.conn.Write(ctx, kind, b)
}
