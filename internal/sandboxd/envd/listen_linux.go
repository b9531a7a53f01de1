package envd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// listen takes the sandbox's address by binding Port on it.
func listen(sandboxID string) (net.Listener, error) {
	err := errors.New("no address")
	for a := range addresses(sandboxID) {
		var ln net.Listener
		ln, err = net.Listen("tcp", netip.AddrPortFrom(a, Port).String())
		if err == nil {
			return ln, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, fmt.Errorf("taking an address of 127.64.0.0/10: %w", err)
}

// becomeSubreaper keeps daemons in this process's tree: when their parent ends
// they become its children, and not those of the machine's init.
func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a subreaper: %w", err)
	}
	return nil
}
