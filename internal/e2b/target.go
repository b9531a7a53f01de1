package e2b

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// The headers by which SDKs address a sandbox through a host's common address.
// They are honoured only where [ParseTarget] says.
const (
	HeaderSandboxID   = "E2b-Sandbox-Id"
	HeaderSandboxPort = "E2b-Sandbox-Port"
)

const (
	// maxHost is a DNS name's length, a port's and a final dot's.
	maxHost = 253 + len(":65535") + 1
	// maxID is a sandbox ID's length. E2B's own have 21 characters.
	maxID = 64
	// maxShown bounds what an error message repeats of a host or header.
	maxShown = 80
)

var (
	// ErrNoTarget says that a host names no sandbox at all: to be answered with
	// whatever else lives at that address, or 404.
	ErrNoTarget = errors.New("this host is no sandbox address")
	// ErrBadTarget says that a request tried to name a sandbox and did it wrong:
	// to be answered with 400 and the error's text.
	ErrBadTarget = errors.New("bad sandbox address")
)

// Target is a port of a sandbox.
type Target struct {
	SandboxID string
	Port      uint16
}

// String returns the target as a host's leftmost label, such as "8080-iabc".
func (t Target) String() string { return strconv.Itoa(int(t.Port)) + "-" + t.SandboxID }

// ParseTarget reads which sandbox and port a request is for, as E2B does:
//
//   - where the host is localhost, an IP address or begins with "sandbox.", from
//     [HeaderSandboxID] and [HeaderSandboxPort], both or none;
//   - elsewhere from the host's leftmost label, {port}-{id}, lower-cased. Further
//     parts of the label are ignored, E2B's old names had a third.
//
// Host is the request's Host, with or without a port. Headers on other hosts and
// X-Forwarded-Host mean nothing: a page can set them in a request to its own
// address, and would reach another sandbox's cookies. The error wraps
// [ErrNoTarget] or [ErrBadTarget]; its text can be shown to people.
func ParseTarget(host string, h http.Header) (Target, error) {
	if len(host) > maxHost {
		return Target{}, fmt.Errorf("%w: the host has %d characters", ErrBadTarget, len(host))
	}
	name, err := hostname(strings.ToLower(host))
	if err != nil {
		return Target{}, err
	}
	if isShared(name) {
		return targetFromHeaders(h)
	}
	return targetFromLabel(name)
}

// hostname strips the port, the brackets of an IPv6 address and a final dot.
func hostname(host string) (string, error) {
	name, port, hasPort := host, "", false
	if rest, ok := strings.CutPrefix(host, "["); ok {
		var tail string
		name, tail, ok = strings.Cut(rest, "]")
		port, hasPort = strings.CutPrefix(tail, ":")
		if _, err := netip.ParseAddr(name); !ok || err != nil || (tail != "" && !hasPort) {
			return "", fmt.Errorf("%w: invalid host %q", ErrBadTarget, shown(host))
		}
	} else if strings.Count(host, ":") == 1 {
		name, port, hasPort = strings.Cut(host, ":")
	}
	if hasPort && !isDigits(port) {
		return "", fmt.Errorf("%w: invalid port in host %q", ErrBadTarget, shown(host))
	}
	return strings.TrimSuffix(name, "."), nil
}

// isShared reports whether many sandboxes share this host, told apart by headers.
func isShared(name string) bool {
	if name == "localhost" || strings.HasPrefix(name, "sandbox.") {
		return true
	}
	if !mayBeIP(name) {
		return false // which spares every request the parser's error
	}
	_, err := netip.ParseAddr(name)
	return err == nil
}

// mayBeIP tells whether a name could be an IP address by what all of them have.
func mayBeIP(name string) bool {
	return strings.Contains(name, ":") || name != "" && isDigits(name[len(name)-1:])
}

func targetFromHeaders(h http.Header) (Target, error) {
	ids, ports := h.Values(HeaderSandboxID), h.Values(HeaderSandboxPort)
	if len(ids) == 0 && len(ports) == 0 {
		return Target{}, ErrNoTarget
	}
	// two values would let two readers of one request see different sandboxes
	if len(ids) != 1 || len(ports) != 1 {
		return Target{}, fmt.Errorf("%w: %s and %s are both needed, once each", ErrBadTarget, HeaderSandboxID, HeaderSandboxPort)
	}
	return newTarget(ports[0], strings.ToLower(ids[0]))
}

func targetFromLabel(name string) (Target, error) {
	label, _, dotted := strings.Cut(name, ".")
	port, rest, parted := strings.Cut(label, "-")
	// "my-site.example.com" is somebody's site and not a sandbox with a bad port
	if !dotted || !parted || !isDigits(port) {
		return Target{}, fmt.Errorf("%w: %q", ErrNoTarget, shown(name))
	}
	id, _, _ := strings.Cut(rest, "-")
	return newTarget(port, id)
}

func newTarget(port, id string) (Target, error) {
	n, err := strconv.ParseUint(port, 10, 16)
	// a leading zero would give one port many names, and rules on names holes
	if err != nil || port[0] == '0' {
		return Target{}, fmt.Errorf("%w: invalid port %q, want 1 to 65535", ErrBadTarget, shown(port))
	}
	if !ValidID(id) {
		return Target{}, fmt.Errorf("%w: invalid sandbox ID %q", ErrBadTarget, shown(id))
	}
	return Target{SandboxID: id, Port: uint16(n)}, nil
}

// ValidID reports whether s can be a sandbox ID: 1 to 64 of a to z and 0 to 9.
func ValidID(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= maxID
}

func isDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

// shown shortens what a stranger sent to what an error message may repeat.
func shown(s string) string {
	if len(s) > maxShown {
		return s[:maxShown] + "…"
	}
	return s
}
