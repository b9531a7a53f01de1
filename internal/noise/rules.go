package noise

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Rule is what an operator knows of an application: which of its messages or
// requests no person sends. With one of Opcode, Length, Prefix, Payload and Names
// it is about messages, and all of them must hold; without any of them it is about requests.
type Rule struct {
	// Name is shown where the rule took effect. Default: what the rule says.
	Name string `json:"name,omitempty"`
	// Path limits the rule to requests, or streams opened by requests, with this
	// path: /api/poll, /api/* for all below, */poll for all that end so. "" means all.
	Path string `json:"path,omitempty"`
	// Match limits it further, with the host's own matchers. nil means no limit.
	Match func(*http.Request) bool `json:"-"`
	// Methods limits a rule for requests, like ["GET"]. nil means all.
	Methods []string `json:"methods,omitempty"`

	// Opcode is "text" or "binary".
	Opcode string `json:"opcode,omitempty"`
	// Length is that of the payload in bytes, inflated: "13", "10-20", "100-" or "-8".
	Length string `json:"length,omitempty"`
	// Prefix is how the payload begins: text, or bytes in hexadecimal after 0x.
	Prefix string `json:"prefix,omitempty"`
	// Payload is the whole payload, written as Prefix is.
	Payload string `json:"payload,omitempty"`
	// Names are calls of a protocol that a preset reads: VS Code's ("$onFileEvent",
	// "telemetry.*"), Jupyter's message types, socket.io's events. A * at the end
	// stands for whatever follows.
	Names []string `json:"names,omitempty"`
}

func (r Rule) aboutMessages() bool {
	return r.Opcode != "" || r.Length != "" || r.Prefix != "" || r.Payload != "" || len(r.Names) > 0
}

// name is the operator's, or what the rule says.
func (r Rule) name() string {
	if r.Name != "" {
		return r.Name
	}
	parts := slices.Clone(r.Methods)
	for _, p := range []string{r.Path, r.Opcode, r.Length, r.Prefix, r.Payload, strings.Join(r.Names, ",")} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, " ")
}

// add compiles r.
func (s *Set) add(r Rule) error {
	w, err := compileWhere(r)
	if err != nil {
		return err
	}
	if !r.aboutMessages() {
		if len(r.Methods) == 0 && r.Path == "" && r.Match == nil {
			return errors.New("it says nothing: every request would be noise")
		}
		s.requests = append(s.requests, requestRule{where: w, name: r.name(), methods: r.Methods})
		return nil
	}
	m, err := compileMessage(r)
	if err != nil {
		return err
	}
	m.where = w
	s.messages = append(s.messages, m)
	return nil
}

// where says which requests a rule is for.
type where struct {
	path  string // "" all
	glob  byte   // 0 equal, '<' begins with path, '>' ends with it
	match func(*http.Request) bool
}

func compileWhere(r Rule) (where, error) {
	w := where{path: r.Path, match: r.Match}
	switch before, after, ok := strings.Cut(r.Path, "*"); {
	case !ok:
	case before == "" && after != "":
		w.path, w.glob = after, '>'
	case after == "":
		w.path, w.glob = before, '<'
	default:
		return w, fmt.Errorf("path %q: * may stand at one end only", r.Path)
	}
	if strings.Contains(w.path, "*") {
		return w, fmt.Errorf("path %q: only one * may be in it", r.Path)
	}
	if r.Path != "" && w.glob != '>' && !strings.HasPrefix(r.Path, "/") && r.Path != "*" {
		return w, fmt.Errorf("path %q: want it to begin with / or *", r.Path)
	}
	return w, nil
}

func (w *where) applies(r *http.Request) bool {
	ok := true
	switch {
	case w.glob == '<':
		ok = strings.HasPrefix(r.URL.Path, w.path)
	case w.glob == '>':
		ok = strings.HasSuffix(r.URL.Path, w.path)
	case w.path != "":
		ok = path.Clean("/"+r.URL.Path) == path.Clean(w.path)
	}
	return ok && (w.match == nil || w.match(r))
}

type requestRule struct {
	where
	name    string
	methods []string
}

func (r *requestRule) matches(req *http.Request) bool {
	return (r.methods == nil || slices.Contains(r.methods, req.Method)) && r.applies(req)
}

// messageRule is a compiled Rule. What it says nothing of is at its zero value.
type messageRule struct {
	where
	opcode          string
	least, most     int64
	prefix, payload []byte
	names           names
}

func compileMessage(r Rule) (messageRule, error) {
	m := messageRule{opcode: r.Opcode, most: math.MaxInt64}
	var errs [5]error
	if r.Opcode != "" && r.Opcode != "text" && r.Opcode != "binary" {
		errs[0] = fmt.Errorf("opcode %q: want text or binary", r.Opcode)
	}
	if r.Length != "" {
		m.least, m.most, errs[1] = parseRange(r.Length)
	}
	m.prefix, errs[2] = parseBytes("prefix", r.Prefix)
	m.payload, errs[3] = parseBytes("payload", r.Payload)
	m.names, errs[4] = compileNames(r.Names)
	if len(r.Methods) > 0 {
		return m, errors.New("methods are for requests, the rest is for messages: make two rules of it")
	}
	// names are looked up by the preset that reads the protocol, which sees only part of a message
	if len(r.Names) > 0 && (r.Opcode != "" || r.Length != "" || r.Prefix != "" || r.Payload != "") {
		return m, errors.New("names stand alone: leave opcode, length, prefix and payload away")
	}
	return m, errors.Join(errs[:]...)
}

// matches looks at a message whose payload could be read.
func (r *messageRule) matches(m Message) bool {
	size := int64(len(m.Payload))
	switch {
	case r.names != nil: // the preset's judge has asked them
		return false
	case r.opcode != "" && (r.opcode == "binary") != m.Binary, size < r.least, size > r.most:
		return false
	case r.payload != nil && !bytes.Equal(m.Payload, r.payload):
		return false
	default:
		return bytes.HasPrefix(m.Payload, r.prefix)
	}
}

// shareNames hands the operator's names to the preset's judge, if it reads names.
func (s *Stream) shareNames() {
	reader, ok := s.judge.(interface{ withNames(rules []names) judge })
	var lists []names
	for _, r := range s.rules {
		if r.names != nil {
			lists = append(lists, r.names)
		}
	}
	if ok && lists != nil {
		s.judge = reader.withNames(lists)
	}
}

func parseRange(s string) (least, most int64, err error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	least, most = 0, math.MaxInt64
	var err1, err2 error
	if from != "" {
		least, err1 = strconv.ParseInt(from, 10, 64)
	}
	if to != "" {
		most, err2 = strconv.ParseInt(to, 10, 64)
	}
	if err1 != nil || err2 != nil || from == "" && to == "" || least > most {
		return 0, 0, fmt.Errorf("length %q: want 13, 10-20, 100- or -8", s)
	}
	return least, most, nil
}

func parseBytes(what, s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	digits, isHex := strings.CutPrefix(s, "0x")
	if !isHex {
		return []byte(s), nil
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("%s %q: want text, or an even number of hexadecimal digits after 0x", what, s)
	}
	return b, nil
}
