//go:build !linux

package envd

import (
	"fmt"
	"net"
)

// listen takes any port of 127.0.0.1: other systems have no further loopback
// addresses unless somebody adds them.
func listen(string) (net.Listener, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("taking a port: %w", err)
	}
	return ln, nil
}

// becomeSubreaper does nothing: a daemon leaves the tree and is not paused.
func becomeSubreaper() error { return nil }
