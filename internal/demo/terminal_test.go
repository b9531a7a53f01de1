package demo_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// patience bounds what a shell is waited for.
const patience = 20 * time.Second

// page is a page's side of the terminal.
type page struct {
	conn   *websocket.Conn
	seq    int64 // of its last input
	offset int64 // of the output that has come
	shown  string
	acked  int64
	events []string // the messages that are no output
}

// connect opens the terminal for the page of this name.
func (e *editor) connect(t *testing.T, name string, since int64) *page {
	t.Helper()
	url := fmt.Sprintf("%s/api/terminal?page=%s&since=%d&cols=90&rows=30", e.url, name, since)
	conn, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatalf("opening the terminal: %v", err)
	}
	conn.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = conn.CloseNow() })
	p := &page{conn: conn}
	p.until(t, func() bool { return len(p.events) > 0 })
	if p.events[0] != "hello" {
		t.Fatalf("the first message is %s", p.events[0])
	}
	p.seq = p.acked
	return p
}

// step reads one message. False: none came in time.
func (p *page) step(t *testing.T, limit time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	kind, b, err := p.conn.Read(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if err != nil {
		t.Fatalf("reading the terminal: %v; shown: %q", err, p.shown)
	}
	if kind == websocket.MessageBinary {
		p.offset += int64(len(b))
		p.shown += string(b)
		return true
	}
	var m struct {
		Type    string
		Seq, At int64
	}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("the message %q: %v", b, err)
	}
	p.events = append(p.events, m.Type)
	switch m.Type {
	case "hello":
		p.offset, p.acked = m.At, m.Seq
	case "reset":
		p.offset, p.shown = m.At, ""
	case "ack":
		p.acked = m.Seq
	}
	return true
}

func (p *page) until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if !p.step(t, time.Until(deadline)) {
			t.Fatalf("it did not come; shown: %q, events: %v", p.shown, p.events)
		}
	}
}

func (p *page) untilShown(t *testing.T, text string) {
	t.Helper()
	p.until(t, func() bool { return strings.Contains(p.shown, text) })
}

func (p *page) send(t *testing.T, message string) {
	t.Helper()
	if err := p.conn.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Fatalf("writing to the terminal: %v", err)
	}
}

// input sends input as the message number seq.
func (p *page) input(t *testing.T, seq int64, text string) {
	t.Helper()
	b, _ := json.Marshal(text)
	p.send(t, fmt.Sprintf(`{"type":"input","seq":%d,"data":%s}`, seq, b))
}

func (p *page) run(t *testing.T, command string) {
	t.Helper()
	p.seq++
	p.input(t, p.seq, command+"\n")
}

func TestTerminal_runsAShellInTheHome(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	p := e.connect(t, "a", 0)
	p.run(t, `echo at:$(pwd) size:$(stty size) term:$TERM`)
	p.untilShown(t, "term:xterm-256color")
	if !strings.Contains(p.shown, "at:"+e.home) || !strings.Contains(p.shown, "size:30 90") {
		t.Errorf("it shows %q", p.shown)
	}
	p.until(t, func() bool { return p.acked == p.seq })
	p.send(t, `{"type":"size","cols":101,"rows":17}`)
	p.run(t, `echo now:$(stty size)`)
	p.untilShown(t, "now:17 101")
}

func TestTerminal_aPageThatComesBackMissesNothingAndTypesNothingTwice(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	p := e.connect(t, "a", 0)
	p.run(t, "n=0; add() { n=$((n+1)); echo count:$n.; }")
	p.run(t, "add")
	p.untilShown(t, "count:1.")
	p.run(t, "sleep 0.3; echo la'te'")
	p.until(t, func() bool { return p.acked == p.seq })
	_ = p.conn.CloseNow()

	again := e.connect(t, "a", p.offset)
	if again.acked != p.seq {
		t.Fatalf("%d inputs have arrived, wanted %d", again.acked, p.seq)
	}
	again.input(t, p.seq, "add\n") // as if its acknowledgement had been lost
	again.seq = p.seq
	again.run(t, "add")
	again.untilShown(t, "count:2.")
	if !strings.Contains(again.shown, "late") || strings.Contains(again.shown, "count:1.") || strings.Contains(again.shown, "count:3.") {
		t.Errorf("since it left, it was shown %q", again.shown)
	}

	other := e.connect(t, "b", 0)
	other.untilShown(t, "count:2.")
	if other.acked != 0 || !strings.Contains(other.shown, "count:1.") {
		t.Errorf("another page has %d inputs, and was shown %q", other.acked, other.shown)
	}
}

func TestTerminal_inputWithAGapEndsTheConnection(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	p := e.connect(t, "a", 0)
	p.input(t, 5, "echo never\n")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		if _, b, err := p.conn.Read(ctx); err != nil {
			if ctx.Err() != nil {
				t.Error("the connection stays open")
			}
			return
		} else if strings.Contains(string(b), "never") {
			t.Fatal("it was typed")
		}
	}
}

func TestTerminal_isSilentWhileNobodyDoesAnything(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	p := e.connect(t, "a", 0)
	p.run(t, "echo rea'dy'; PS1=")
	p.untilShown(t, "ready")
	p.until(t, func() bool { return p.acked == p.seq })
	for p.step(t, 500*time.Millisecond) {
		continue // the rest of the prompt
	}
	// the read was given up, which closes the connection: listen on a new one
	p = e.connect(t, "a", p.offset)
	before := len(p.events)
	if p.step(t, 3*time.Second) {
		t.Errorf("it sent %v, or output %q", p.events[before:], p.shown)
	}
}

func TestTerminal_aFloodIsShownToItsEndAndForgottenUpToALine(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	p := e.connect(t, "a", 0)
	p.run(t, "stty -onlcr; seq 1 300000; echo fl'ood'")
	p.until(t, func() bool {
		return strings.HasSuffix(strings.TrimRight(p.shown, "\n$# ~"), "flood") || strings.Contains(p.shown, "\nflood\n")
	})
	if !strings.Contains(p.shown, "1\n2\n3\n4\n") || !strings.Contains(p.shown, "\n150000\n150001\n") || !strings.Contains(p.shown, "\n300000\n") {
		t.Errorf("of %d bytes some are missing", len(p.shown))
	}
	late := e.connect(t, "b", 1)
	late.untilShown(t, "\nflood\n")
	first, _, _ := strings.Cut(late.shown, "\n")
	if len(late.shown) > 600<<10 || len(first) != 6 {
		t.Errorf("a late page gets %d bytes, beginning with %q", len(late.shown), first)
	}
}

func TestTerminal_aShellThatEndedIsReplacedOnDemand(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	p := e.connect(t, "a", 0)
	p.run(t, "export LEFT=over; exit")
	p.until(t, func() bool { return p.events[len(p.events)-1] == "exit" })
	p.send(t, `{"type":"start"}`)
	p.run(t, "echo is:$LEFT.")
	p.untilShown(t, "is:.")
}

func TestTerminal_messagesThatAreNoneEndTheConnection(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	for _, bad := range []string{"", "ls\n", `[1]`, `{"type":"input","seq":"x"}`} {
		p := e.connect(t, "a", 0)
		p.send(t, bad)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		for {
			_, _, err := p.conn.Read(ctx)
			if err == nil {
				continue
			}
			if websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
				t.Errorf("after %q: %v", bad, err)
			}
			break
		}
		cancel()
	}
}
