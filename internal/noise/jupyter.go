package noise

import (
	"bytes"
	"net/http"
	"strings"
)

// A kernel's stream carries one JSON message each (protocol
// v1.kernel.websocket.jupyter.org: with a table of offsets before it). The page
// asks the kernel what it is at each connect, also at a reconnect; all else is
// done because somebody ran, completed or inspected something.
func jupyterStream(r *http.Request, _ string, s *Stream) bool {
	if !strings.HasSuffix(r.URL.Path, "/channels") || !strings.Contains(r.URL.Path, "/api/kernels/") {
		return false
	}
	s.judge = jupyterJudge{}
	s.key = strings.Clone(r.URL.Query().Get("session_id"))
	return true
}

var jupyterNames = names{{name: "kernel_info_request"}, {name: "comm_info_request"}}

type jupyterJudge struct{ rules []names }

func (j jupyterJudge) judge(m Message) Verdict {
	name := jupyterType(m.Payload)
	if name != nil && (jupyterNames.have(nil, name) || haveAny(j.rules, nil, name)) {
		return Noise
	}
	return Counts
}

func (j jupyterJudge) withNames(rules []names) judge { return jupyterJudge{rules} }

var msgType = []byte(`"msg_type":`)

// jupyterType returns the message's only msg_type, nil if there is none or more
// than one. Quotes inside JSON strings are escaped, so no cell's text looks like it.
func jupyterType(p []byte) []byte {
	_, after, ok := bytes.Cut(p, msgType)
	if !ok || bytes.Contains(after, msgType) {
		return nil
	}
	after, ok = bytes.CutPrefix(bytes.TrimLeft(after, " "), []byte(`"`))
	if !ok {
		return nil
	}
	name, _, ok := bytes.Cut(after, []byte(`"`))
	if !ok {
		return nil
	}
	return name
}

// jupyterRequest knows the polls of JupyterLab (every 10 s) and of the
// notebook's list of files (every 60 s). They carry a time stamp against caches,
// as no program's call does.
func jupyterRequest(s *Set, r *http.Request) string {
	_, rest, ok := strings.Cut(r.URL.Path, "/api/")
	if r.Method != http.MethodGet || !ok {
		return ""
	}
	switch kind, id, _ := strings.Cut(rest, "/"); {
	case kind == "contents":
		if listsFolder(r.URL.RawQuery) && s.folders.polls(r) {
			return "poll of a folder"
		}
	case strings.Contains(id, "/"):
	case kind == "kernels", kind == "sessions" && id == "", kind == "terminals" && id == "", kind == "kernelspecs" && id == "":
		if stamps, others := splitStamps(r.URL.RawQuery); stamps == 1 && len(others) == 0 {
			return "poll of " + kind
		}
	}
	return ""
}

// listsFolder tells a listing from a file that is opened, which names its type.
// The notebook asks for type=directory, JupyterLab for content=1 without a type.
func listsFolder(query string) bool {
	stamps, others := splitStamps(query)
	if stamps != 1 {
		return false
	}
	content := false
	for _, o := range others {
		switch o {
		case "type=directory", "content=1":
			content = true
		case "hash=0":
		default:
			return false
		}
	}
	return content
}

// splitStamps counts the time stamps in a query ("1732480000000", "_=1732480000000")
// and returns the other parts.
func splitStamps(query string) (stamps int, others []string) {
	if query == "" {
		return 0, nil
	}
	for part := range strings.SplitSeq(query, "&") {
		if isStamp(strings.TrimPrefix(part, "_=")) {
			stamps++
		} else {
			others = append(others, part)
		}
	}
	return stamps, others
}

// isStamp tells a time in milliseconds.
func isStamp(s string) bool {
	return len(s) >= 12 && len(s) <= 14 && strings.Trim(s, "0123456789") == ""
}
