// Package recording reads what a browser and an application said to each other,
// and counts how well the judgements of package noise fit it.
//
// A recording is a file of JSON lines, sorted by time: frames of WebSockets with
// the first 32 bytes of their payload, requests, and as truth what a person did
// and when (testdata/frames/README.md has the format). Only the beginning of a
// payload is there, so a recording proves less than the traffic did: see complete.go.
package recording

import (
	"bufio"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Recording is one run of one scenario.
type Recording struct {
	// Name is that of the file, without what it ends on.
	Name  string
	lines []line
}

// line is any line of a recording; which fields it has says what it is.
type line struct {
	T    float64 `json:"t"` // seconds since the start
	Kind string  `json:"kind"`

	// a frame
	Dir          string  `json:"dir"`
	Conn         int     `json:"conn"`
	Op           int     `json:"op"`
	Fin          bool    `json:"fin"`
	Rsv1         bool    `json:"rsv1"`
	Len          int     `json:"len"`
	Head         hexed   `json:"head"`
	InflatedLen  *int    `json:"inflated_len"`
	InflatedHead hexed   `json:"inflated_head"`
	VSC          [][]int `json:"vsc"`      // type, id, ack, length of each protocol message in it
	VSCMore      int     `json:"vsc_more"` // how many more there are

	// a request, or the handshake of a WebSocket
	Method        string          `json:"method"`
	Path          string          `json:"path"`
	Mode          string          `json:"mode"`
	Dest          string          `json:"dest"`
	Site          string          `json:"site"`
	User          string          `json:"user"`
	Accept        string          `json:"accept"`
	CacheControl  string          `json:"cache_control"`
	ReqLen        int64           `json:"req_len"`
	Proto         string          `json:"proto"`
	ProtoOffered  string          `json:"proto_offered"`
	OriginPresent bool            `json:"origin_present"`
	Status        int             `json:"status"`
	Proxy         json.RawMessage `json:"proxy"` // the recorder's own doing

	// truth
	Event string `json:"event"`
	Key   string `json:"key"`
	Where string `json:"where"`
}

// hexed is bytes written in hexadecimal.
type hexed []byte

func (h *hexed) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func (l *line) clientData() bool { return l.Dir == "c2s" && l.Op <= 2 && l.Kind == "" && l.Event == "" }

// answered tells whether the application itself answered a request.
func (l *line) answered() bool { return len(l.Proxy) == 0 }

const largestSize = 1 << 30

// check spares the rest of the package sizes that can't be.
func (l *line) check() error {
	sizes := []int{l.Len, l.VSCMore}
	if l.InflatedLen != nil {
		sizes = append(sizes, *l.InflatedLen)
	}
	for _, v := range l.VSC {
		if len(v) != 4 || v[0] < 1 || v[0] > 255 || min(v[1], v[2]) < 0 {
			return fmt.Errorf("vsc %v: want [type, id, ack, length]", v)
		}
		sizes = append(sizes, v[3])
	}
	if slices.Min(sizes) < 0 || slices.Max(sizes) > largestSize {
		return errors.New("a size is out of range")
	}
	return nil
}

// head is what a proxy that can read the message sees of it.
func (l *line) head() []byte {
	if l.Rsv1 {
		return l.InflatedHead
	}
	return l.Head
}

// Open reads a file, which may be compressed by gzip.
func Open(name string) (*Recording, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var in io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
	}
	rec, err := Read(in)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	rec.Name = strings.TrimSuffix(strings.TrimSuffix(filepath.Base(name), ".gz"), ".jsonl")
	return rec, nil
}

// largestLine bounds the memory that a broken file can take.
const largestLine = 16 << 20

// Read reads a recording. It must say when its page was ready.
func Read(in io.Reader) (*Recording, error) {
	rec := new(Recording)
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, largestLine)
	ready := false
	for n := 1; scanner.Scan(); n++ {
		if len(scanner.Bytes()) == 0 {
			continue
		}
		var l line
		if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if err := l.check(); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		ready = ready || l.Event == "ready"
		rec.lines = append(rec.lines, l)
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	if !ready {
		return nil, errors.New(`no recording: there is no event "ready" in it`)
	}
	return rec, nil
}
