package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sandman-proxy/sandman/internal/stream"
)

// runMemory measures what Sandman's process holds for each sandbox that it
// knows and nobody uses, and for each open WebSocket on which nothing is sent.
// The sandboxes have no processes; the WebSockets' client is this process, and
// their server the host's.
func runMemory(ctx context.Context, args []string) error {
	flags := newFlags("memory")
	sandboxes := flags.Int("sandboxes", 10_000, "sandboxes, without processes")
	sockets := flags.Int("websockets", 9_000, "open WebSockets; each takes two file descriptors of Sandman's")
	cut := flags.Bool("cut", false, "the host cuts the WebSockets of a sandbox that it pauses: parked ones take one file descriptor each")
	profile := flags.String("profile", "", "write Sandman's heap profile, taken with the WebSockets open, to this file")
	_ = flags.Parse(args) // exits on error
	if *cut && *profile != "" {
		return errors.New("-profile is taken with the WebSockets open, which with -cut not all of them are at a time")
	}

	env := []string{"SANDMAN_IDLE_TIMEOUT=1h"}
	if *cut {
		env = append(env, "SANDBOXD_FAULTS=cut_connections")
	}
	r, err := newRecordsRig(ctx, env...)
	if err != nil {
		return err
	}
	defer r.close()
	// what the first of each kind brings with it is not theirs
	first, err := r.manySandboxes(ctx, crowd)
	if err == nil {
		err = r.visitAll(ctx, first)
	}
	if err != nil {
		return err
	}
	start, err := r.memory(ctx)
	if err != nil {
		return err
	}
	if _, err := r.manySandboxes(ctx, *sandboxes); err != nil {
		return err
	}
	known, err := r.memory(ctx)
	if err != nil {
		return err
	}
	var open, parked memory
	if *cut {
		parked, err = r.memoryOfCut(ctx, first, *sockets)
	} else {
		open, parked, err = r.memoryWithSockets(ctx, first[0], *sockets, *profile)
	}
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tlive heap\tstacks\tresident\tresident, not of files\t")
	start.row(w, "at the start, MB", 1000*1000)
	known.less(start).row(w, fmt.Sprintf("each of %d sandboxes, KB", *sandboxes), 1000**sandboxes)
	if !*cut {
		open.less(known).row(w, fmt.Sprintf("each of %d WebSockets, KB", *sockets), 1000**sockets)
	}
	parked.less(known).row(w, fmt.Sprintf("each of %d whose sandbox sleeps, KB", *sockets), 1000**sockets)
	return w.Flush()
}

// cutEach is how many WebSockets are open at a sandbox when it is paused and they
// are cut.
const cutEach = 2500

// memoryOfCut opens WebSockets at one sandbox after the other, each of which is then
// paused by a host that cuts them, and measures while all of them are parked. Then
// each of them is told to come again.
func (r *rig) memoryOfCut(ctx context.Context, ids []string, n int) (parked memory, err error) {
	conns := make([]net.Conn, n)
	defer closeAll(conns)
	for from := 0; from < n; from += cutEach {
		id, some := ids[from/cutEach], conns[from:min(n, from+cutEach)]
		if err := r.openWebSockets(ctx, id, some); err != nil {
			return parked, err
		}
		if err := r.pause(ctx, id); err != nil {
			return parked, err
		}
		progress("%d WebSockets are parked", from+len(some))
	}
	if parked, err = r.memory(ctx); err != nil {
		return parked, err
	}
	for i, c := range conns {
		if i%cutEach == 0 { // wakes the sandbox
			if _, err := io.WriteString(c, hi); err != nil {
				return parked, err
			}
		}
		if err := awaitRestart(c); err != nil {
			return parked, fmt.Errorf("WebSocket %d has not outlived the measurement: %w", i, err)
		}
	}
	return parked, nil
}

// openWebSockets fills conns; where it fails, some of them are nil.
func (r *rig) openWebSockets(ctx context.Context, id string, conns []net.Conn) error {
	proxy := strings.TrimPrefix(r.base, "http://")
	return each(ctx, len(conns), func(ctx context.Context, i int) (err error) {
		conns[i], err = openWebSocket(ctx, proxy, r.url(id))
		return err
	})
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		if c != nil {
			_ = c.Close()
		}
	}
}

// awaitRestart reads the close frame that asks a client to come again.
func awaitRestart(conn net.Conn) error {
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	if code := binary.BigEndian.Uint16(head[2:]); head[0] != 0x88 || code != stream.StatusServiceRestart {
		return fmt.Errorf("got % x instead of a close frame with %d", head, stream.StatusServiceRestart)
	}
	return nil
}

// memoryWithSockets opens WebSockets, and measures while they are open, and while
// they are parked. Then each of them goes on.
func (r *rig) memoryWithSockets(ctx context.Context, id string, n int, profile string) (open, parked memory, err error) {
	conns := make([]net.Conn, n)
	defer closeAll(conns)
	if err := r.openWebSockets(ctx, id, conns); err != nil {
		return open, parked, err
	}
	progress("%d WebSockets", n)
	if open, err = r.memory(ctx); err != nil {
		return open, parked, err
	}
	if profile != "" {
		b, err := r.admin(ctx, "/debug/pprof/heap")
		if err := errors.Join(err, os.WriteFile(profile, b, 0o600)); err != nil {
			return open, parked, err
		}
	}
	if err := r.pause(ctx, id); err != nil {
		return open, parked, err
	}
	if parked, err = r.memory(ctx); err != nil {
		return open, parked, err
	}
	for _, c := range conns {
		if err := sendAndReceive(c); err != nil {
			return open, parked, fmt.Errorf("a WebSocket has not outlived the measurement: %w", err)
		}
	}
	return open, parked, nil
}

// memory is what a process holds, in bytes.
type memory struct{ heap, stacks, resident, anonymous float64 }

func (m memory) less(o memory) memory {
	return memory{m.heap - o.heap, m.stacks - o.stacks, m.resident - o.resident, m.anonymous - o.anonymous}
}

func (m memory) row(w io.Writer, name string, unit int) {
	u := float64(unit)
	fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t\n", name, m.heap/u, m.stacks/u, m.resident/u, m.anonymous/u)
}

// memory looks at Sandman when it has come to rest: after two collections, of
// which the second frees what the first has made free to be freed.
func (r *rig) memory(ctx context.Context) (memory, error) {
	select {
	case <-time.After(5 * time.Second): // the writes of activity, and the linger, are over
	case <-ctx.Done():
		return memory{}, ctx.Err()
	}
	var stats string
	for range 2 {
		b, err := r.admin(ctx, "/debug/pprof/heap?gc=1&debug=1")
		if err != nil {
			return memory{}, err
		}
		stats = string(b)
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(r.sandman.Process.Pid) + "/status")
	if err != nil {
		return memory{}, fmt.Errorf("resident memory is read from /proc, which only Linux has: %w", err)
	}
	m := memory{
		heap: number(stats, "# HeapAlloc = "), stacks: number(stats, "# Stack = "),
		resident: 1024 * number(string(status), "VmRSS:"), anonymous: 1024 * number(string(status), "RssAnon:"),
	}
	if m.heap*m.stacks*m.resident*m.anonymous == 0 {
		return m, fmt.Errorf("a figure is missing: %+v", m)
	}
	return m, nil
}

// number gives the number that follows label in text, 0 if there is none.
func number(text, label string) float64 {
	_, rest, _ := strings.Cut(text, label)
	rest = strings.TrimLeft(rest, " \t")
	end := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' })
	n, _ := strconv.ParseFloat(rest[:max(end, 0)], 64)
	return n
}

// admin asks Caddy's admin endpoint, which listens on a socket in the data folder.
func (r *rig) admin(ctx context.Context, path string) ([]byte, error) {
	var d net.Dialer
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", r.dir+"/data/admin.sock")
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("asking the admin endpoint for %s: status %d", path, res.StatusCode)
	}
	return b, err
}
