// Command app is what the end-to-end tests run inside a sandbox. All that it knows is in its memory,
// in a file it keeps open and in a ticker, so that its answers show whether a pause lost something.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

const (
	memorySize = 4 << 20
	tickEvery  = 50 * time.Millisecond
)

// app is the state that must outlive any number of pauses.
type app struct {
	counter atomic.Int64
	ticks   atomic.Int64
	uploads atomic.Int64
	memory  []byte // random, never written again

	mu   sync.Mutex // guards the following field and its offset
	file *os.File   // opened at the start, appended to by each request for the state
}

// state is the answer to GET /state; each one adds 1 to the counter and a line to the file.
type state struct {
	Pid     int    `json:"pid"`
	Home    string `json:"home"`
	Counter int64  `json:"counter"`
	Ticks   int64  `json:"ticks"`
	Memory  string `json:"memory"` // checksum of the memory as it is now
	Lines   int64  `json:"lines"`  // lines in the open file
}

func main() {
	a := &app{memory: make([]byte, memorySize)}
	_, _ = rand.Read(a.memory) // never fails
	var err error
	if a.file, err = os.Create("lines"); err != nil {
		log.Fatalf("creating the file to keep open: %v", err)
	}
	ticks, err := os.Create("ticks")
	if err != nil {
		log.Fatalf("creating the file of ticks: %v", err)
	}
	a.tick(ticks) // the first one before anybody can ask
	go func() {
		for range time.Tick(tickEvery) {
			a.tick(ticks)
		}
	}()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", a.state)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("GET /slow", slow)
	mux.HandleFunc("/upload", a.upload)
	mux.HandleFunc("GET /events", events)
	mux.HandleFunc("GET /file", a.download)
	mux.HandleFunc("GET /ws", socket)
	mux.HandleFunc("GET /headers", headers)
	gate := &gate{opened: make(chan struct{})}
	mux.HandleFunc("GET /gate", gate.wait)
	mux.HandleFunc("GET /waiting", gate.count)
	mux.HandleFunc("GET /open", gate.open)
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	log.Fatal(http.ListenAndServe(net.JoinHostPort(os.Getenv("SANDBOX_IP"), port), mux))
}

// tick counts in memory, and in the size of a file, which a test can see from outside.
func (a *app) tick(file *os.File) {
	a.ticks.Add(1)
	if _, err := file.WriteString("."); err != nil {
		log.Fatalf("writing a tick: %v", err)
	}
}

func (a *app) state(w http.ResponseWriter, _ *http.Request) {
	lines, err := a.appendLine()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	home, _ := os.Getwd()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(state{
		Pid:     os.Getpid(),
		Home:    home,
		Counter: a.counter.Add(1),
		Ticks:   a.ticks.Load(),
		Memory:  checksum(a.memory),
		Lines:   lines,
	})
}

// appendLine writes through the descriptor that was opened at the start, and counts what it holds.
func (a *app) appendLine() (int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := a.file.WriteString("line\n"); err != nil {
		return 0, err
	}
	size, err := a.file.Seek(0, io.SeekEnd)
	return size / int64(len("line\n")), err
}

// echo answers with the request's body.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = w.Write(body)
}

// slow sends one byte at once and then one a second, "seconds" times. A trailer tells when it was about
// to send the last one.
func slow(w http.ResponseWriter, r *http.Request) {
	seconds, err := strconv.Atoi(r.FormValue("seconds"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Trailer", "Last-Byte")
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for range seconds {
		if _, err := w.Write([]byte(".")); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		<-ticker.C
	}
	w.Header().Set("Last-Byte", time.Now().Format(time.RFC3339Nano))
	_, _ = w.Write([]byte("."))
}

// upload answers with the checksum of the body that it has read to the end, and says in a header how
// many there were.
func (a *app) upload(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	if _, err := io.Copy(hash, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Uploads", strconv.FormatInt(a.uploads.Add(1), 10))
	_, _ = io.WriteString(w, hex.EncodeToString(hash.Sum(nil)))
}

// events sends server-sent events: one at once, then one every "every" milliseconds, or none any more
// where that is 0.
func events(w http.ResponseWriter, r *http.Request) {
	every, err := strconv.Atoi(r.FormValue("every"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var next <-chan time.Time
	if every > 0 {
		ticker := time.NewTicker(time.Duration(every) * time.Millisecond)
		defer ticker.Stop()
		next = ticker.C
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for n := 0; ; n++ {
		if _, err := fmt.Fprintf(w, "data: %d\n\n", n); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-next:
		case <-r.Context().Done():
			return
		}
	}
}

// headers answers with the headers of the request, and sets the cookies that "set" asks for.
func headers(w http.ResponseWriter, r *http.Request) {
	for _, cookie := range r.URL.Query()["set"] {
		w.Header().Add("Set-Cookie", cookie)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(r.Header)
}

// download serves the memory as a file, whole or in parts.
func (a *app) download(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "memory.bin", time.Unix(1, 0), bytes.NewReader(a.memory))
}

// socket echoes messages until the other side closes; pings are answered by the library.
func socket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// gate holds requests until it is opened, for good.
type gate struct {
	waiting atomic.Int64
	once    sync.Once
	opened  chan struct{}
}

func (g *gate) wait(w http.ResponseWriter, r *http.Request) {
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	select {
	case <-g.opened:
		_, _ = io.WriteString(w, "open")
	case <-r.Context().Done():
	}
}

func (g *gate) count(w http.ResponseWriter, _ *http.Request) {
	_, _ = fmt.Fprint(w, g.waiting.Load())
}

func (g *gate) open(http.ResponseWriter, *http.Request) { g.once.Do(func() { close(g.opened) }) }
