package recording

import (
	"encoding/binary"
	"strings"

	"github.com/sandman-proxy/sandman/internal/noise"
)

// A recording has the first 32 bytes of a payload, and for VS Code the type and
// length of each protocol message. The judge wants all of it, so what is missing
// is made up, twice:
//
//   - once so that it counts if it can: unknown bytes are '?', no name;
//   - once so that it is noise if it can.
//
// Where both get the same verdict, the recording proves it. Where they differ it
// is unclear, and the sums take it for the worse.
//
// Something is known of more than 32 bytes: a name that was cut is completed if
// VS Code has one name only with this beginning and length, whose arguments fit,
// or if the recording names another call of the same object and length; a regular
// message of 5, 9 or 25 bytes is an answer, an answer, a telemetry ping; and the
// first message on a Jupyter kernel's stream asks what kernel it is. And telemetry
// may report an action of a person, but not while nobody is there.

const (
	unknown       = '?'
	largestLooked = 4 << 10 // larger messages are not looked into
)

// message is a whole WebSocket message as the recording has it.
type message struct {
	line
	size    int  // inflated
	cut     bool // it has fragments, of which the first is here
	ordinal int  // among its connection's
	known   named
}

// named is the names that a recording shows, by object and length of the body.
type named map[[2]int]string

// learn notes the names that can be completed for sure.
func (n named) learn(l *line) {
	head := l.head()
	if len(l.VSC) == 0 || l.VSC[0][0] != 1 || len(head) <= 13+7 || head[13] > 4 || head[13+7] != '$' {
		return
	}
	length := l.VSC[0][3]
	seen := head[13:min(len(head), 13+length)]
	sure, unsure := hostCall(seen, length, false), hostCall(seen, length, true)
	if end := 7 + int(seen[6]); string(sure) == string(unsure) && len(sure) >= end {
		n[[2]int{int(seen[5]), length}] = string(sure[7:end])
	}
}

// payloads makes up the two payloads; both nil where the proxy could read none either.
func (m *message) payloads(preset string) (counting, noisy noise.Message) {
	head := m.head()
	counting = noise.Message{Binary: m.Op == 2, Size: int64(m.size)}
	noisy = counting
	if m.size > largestLooked || m.Rsv1 && m.InflatedLen == nil || m.cut && m.size > len(head) {
		return counting, noisy
	}
	switch {
	case preset == "vscode" && len(m.VSC) > 0:
		counting.Payload = m.walk(head, false)
		noisy.Payload = m.walk(head, true)
	case preset == "jupyter" && m.ordinal == 0:
		counting.Payload = fill(m.size, head)
		copy(counting.Payload[min(len(head), m.size):], `,"msg_type":"kernel_info_request"`)
		noisy = counting
	default:
		counting.Payload = fill(m.size, head)
		noisy = counting
	}
	return counting, noisy
}

// fill returns size bytes that begin with head.
func fill(size int, head []byte) []byte {
	p := make([]byte, size)
	for i := range p {
		p[i] = unknown
	}
	copy(p, head)
	return p
}

// walk lays the protocol messages out one behind the other.
func (m *message) walk(head []byte, noisy bool) []byte {
	p := fill(m.size, nil)
	at := 0
	for _, v := range m.VSC {
		if at+13 > len(p) {
			break
		}
		putHeader(p[at:], v)
		body := p[at+13 : min(len(p), at+13+v[3])]
		var seen []byte
		if len(head) > at+13 {
			seen = head[at+13:]
		}
		copy(body, m.known.completed(seen, v[0], v[3], noisy))
		at += 13 + v[3]
	}
	// more messages than were listed: if there is room for headers only, they have no bodies
	if at <= len(p) && len(p)-at == 13*m.VSCMore {
		for ; at < len(p); at += 13 {
			putHeader(p[at:], []int{3, 0, 0, 0})
		}
	}
	return p
}

func putHeader(p []byte, v []int) {
	p[0] = byte(v[0])
	for i, n := range v[1:4] {
		binary.BigEndian.PutUint32(p[1+4*i:], uint32(n))
	}
}

// completed makes up a body of this length, of which the beginning may have been seen.
func (n named) completed(seen []byte, kind, length int, noisy bool) []byte {
	seen = seen[:min(len(seen), length)]
	switch {
	case kind != 1 || len(seen) == length:
		return seen
	case len(seen) == 0:
		return unseen(length, noisy)
	case len(seen) == 6 && seen[0] >= 1 && seen[0] <= 4 && seen[1] == 0: // the object is there, its name is not
		name := n[[2]int{int(seen[5]), length}]
		return append(append(seen[:6:6], byte(len(name))), name...)
	case len(seen) > 7 && seen[0] <= 4 && seen[7] == '$':
		return hostCall(seen, length, noisy)
	case seen[0] == 4 && len(seen) < 9 && noisy && length > 25:
		return []byte(telemetryPing) // or any other call
	case seen[0] == 4:
		return channelCall(seen, length, noisy)
	default:
		return seen
	}
}

const telemetryPing = "\x04\x04\x06\x64\x06\x81\x01\x01\x09telemetry\x01\x04ping"

func unseen(length int, noisy bool) []byte {
	switch {
	case length == 5:
		return []byte{5, 0, 0, 0, 0}
	case length == 9:
		return []byte("\x04\x02\x06\xc9\x01\x06\x81\x01\x00")
	case length == 25, noisy && length > 25:
		return []byte(telemetryPing)
	default:
		return nil
	}
}

// vscodeCall is a name of VS Code's, with how long its arguments can be.
type vscodeCall struct {
	name        string
	least, most int
	noise       bool
}

const endless = 1 << 30

// vscodeCalls are names of the extension host's protocol that may be cut in a
// recording; those that a person may cause are here so that they are not mistaken.
var vscodeCalls = []vscodeCall{
	{"$onDidChangeWindowActive", 6, 7, true},
	{"$onFileEvent", 0, endless, true},
	{"$shellExecutionStart", 0, endless, true},
	{"$shellExecutionData", 0, endless, true},
	{"$shellExecutionEnd", 0, endless, true},
	{"$shellIntegrationChange", 0, endless, true},
	{"$shellEnvChange", 0, endless, true},
	{"$acceptTerminalTitleChange", 6, endless, true}, // [1,"bash"]
	{"$acceptTerminalInteraction", 3, 5, false},      // [1]
	{"$acceptTerminalDimensions", 0, endless, false},
	{"$acceptTerminalMaximumDimensions", 0, endless, false},
	{"$acceptTerminalSelection", 0, endless, false},
	{"$acceptTerminalShellType", 0, endless, true},
	{"$acceptTerminalProcessId", 0, endless, true},
	{"$acceptTerminalProcessData", 0, endless, true},
	{"$acceptTerminalOpened", 0, endless, false},
	{"$acceptTerminalClosed", 0, endless, false},
	{"$acceptDidExecuteCommand", 0, endless, true},
	{"$acceptMarkersChange", 0, endless, true},
}

// hostCall completes the name of kind, request, rpc, length, $name, length of the arguments.
func hostCall(seen []byte, length int, noisy bool) []byte {
	named, begin := int(seen[6]), string(seen[7:])
	if len(begin) >= named {
		return seen
	}
	var fits []vscodeCall
	for _, c := range vscodeCalls {
		arguments := length - 7 - named - 4
		if len(c.name) == named && strings.HasPrefix(c.name, begin) && arguments >= c.least && arguments <= c.most {
			fits = append(fits, c)
		}
	}
	return append(seen[:7:7], pick(fits, begin, noisy)...)
}

// reportsAction tells whether all that may count in m is telemetry of a person's action.
func (m *message) reportsAction() bool {
	return len(m.VSC) == 1 && m.VSC[0][0] == 1 && strings.Contains(string(m.head()), "\x01\x09telemetr")
}

// pick returns the name to be believed: where there are several, one of each
// verdict gives the two payloads.
func pick(fits []vscodeCall, begin string, noisy bool) string {
	for _, c := range fits {
		if c.noise == noisy {
			return c.name
		}
	}
	if len(fits) > 0 {
		return fits[0].name
	}
	return begin
}

// channelCall completes [100, request, "channel", "command"], whose command is
// never within the first 32 bytes.
func channelCall(seen []byte, length int, noisy bool) []byte {
	at := strings.Index(string(seen), "\x01\x09telemetr")
	switch {
	case at > 0 && (noisy || length == 25):
		return append(seen[:at:at], "\x01\x09telemetry\x01\x04ping"...)
	case at > 0:
		return append(seen[:at:at], "\x01\x09telemetry\x01\x0clogTelemetry\x05workbenchActionExecuted"...)
	}
	const manifest = "\x01\x0aextensions\x01\x1cgetExtensionsControlManifest"
	if at = strings.Index(string(seen), manifest[:10]); at > 0 && length == at+len(manifest)+1 {
		return append(seen[:at:at], manifest...)
	}
	// a title has two letters at least; above that it may be so many letters typed at once
	const title = "\x01\x0eremoteterminal\x01\x0c$updateTitle"
	if at = strings.Index(string(seen), title[:8]); at > 0 && noisy && length >= at+len(title)+9 {
		return append(seen[:at:at], title...)
	}
	return seen
}
