package e2e_test

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestQuickStart_listensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.create(t) // with a sandbox, whose daemon listens too
	listeners := listenersOf(t, append(processesOf(s.dir), descendants(s.process.cmd.Process.Pid)...))
	if !slices.Contains(listeners, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(s.port))) {
		t.Errorf("its own listener on port %d is not among %v", s.port, listeners)
	}
	for _, l := range listeners {
		if !l.Addr().IsLoopback() {
			t.Errorf("it listens on %s", l)
		}
	}
}

// listenersOf returns the TCP addresses on which the processes listen.
func listenersOf(t *testing.T, pids []int) []netip.AddrPort {
	t.Helper()
	listening := append(listenTable(t, "/proc/net/tcp"), listenTable(t, "/proc/net/tcp6")...)
	var found []netip.AddrPort
	for _, pid := range pids {
		sockets := socketsOf(pid)
		for _, l := range listening {
			if slices.Contains(sockets, l.inode) {
				found = append(found, l.address)
			}
		}
	}
	return found
}

type listener struct {
	address netip.AddrPort
	inode   string
}

// listenTable reads the sockets in state LISTEN (0A) from one of the kernel's tables.
func listenTable(t *testing.T, name string) []listener {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		if os.IsNotExist(err) {
			return nil // no IPv6
		}
		t.Fatal(err)
	}
	defer f.Close()
	var found []listener
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != "0A" {
			continue
		}
		address, err := kernelAddress(fields[1])
		if err != nil {
			t.Fatalf("reading %s: %v", name, err)
		}
		found = append(found, listener{address, "socket:[" + fields[9] + "]"})
	}
	return found
}

// kernelAddress reads "0100007F:1F90": words of four bytes in the machine's order (little endian
// here), and a port.
func kernelAddress(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("no address: %q", s)
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	address, ok := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil || !ok {
		return netip.AddrPort{}, fmt.Errorf("no address: %q", s)
	}
	return netip.AddrPortFrom(address.Unmap(), uint16(n)), nil
}

func socketsOf(pid int) []string {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	var sockets []string
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "socket:") {
			sockets = append(sockets, target)
		}
	}
	return sockets
}

// descendants returns the processes below pid, as far as they are not orphaned.
func descendants(pid int) []int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var all []int
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for field := range strings.FieldsSeq(string(b)) {
			child, _ := strconv.Atoi(field)
			all = append(all, child)
			all = append(all, descendants(child)...)
		}
	}
	return all
}

func hasIPv6Loopback() bool {
	b, _ := os.ReadFile("/proc/net/if_inet6")
	return strings.Contains(string(b), strings.Repeat("0", 31)+"1 ")
}
