package proctree

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tick is what the kernel counts CPU time in, for all architectures (USER_HZ).
const tick = 10 * time.Millisecond

// bootID is the machine's current boot; start times count from it.
var bootID = sync.OnceValue(func() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // absent in some sandboxes: then the start time has to do
	return strings.TrimSpace(string(b))
})

// List returns all processes that can be seen.
func List() ([]Process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var all []Process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, err := Get(pid); err == nil {
			all = append(all, p)
		}
	}
	return all, nil
}

// Get reads one process; the error is [ErrGone] where there is none.
func Get(pid int) (Process, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return Process{}, ErrGone
	}
	if err != nil {
		return Process{}, fmt.Errorf("reading process %d: %w", pid, err)
	}
	return parseStat(pid, b)
}

// parseStat reads /proc/PID/stat. The name in parentheses may hold anything,
// spaces and parentheses too, so the fields are counted from the last one.
func parseStat(pid int, b []byte) (Process, error) {
	end := bytes.LastIndexByte(b, ')')
	f := strings.Fields(string(b[end+1:]))
	if end < 0 || len(f) < 22 {
		return Process{}, fmt.Errorf("reading process %d: short stat", pid)
	}
	// field n of proc_pid_stat(5) is f[n-3]
	ppid, err := strconv.Atoi(f[1])
	if err != nil {
		return Process{}, fmt.Errorf("reading process %d: %w", pid, err)
	}
	utime, _ := strconv.ParseInt(f[11], 10, 64)
	stime, _ := strconv.ParseInt(f[12], 10, 64)
	rss, _ := strconv.ParseUint(f[21], 10, 64)
	return Process{
		PID: pid, PPID: ppid,
		Identity: bootID() + "/" + f[19],
		Stopped:  f[0] == "T" || f[0] == "t",
		Dead:     f[0] == "Z" || f[0] == "X",
		CPU:      time.Duration(utime+stime) * tick,
		RSS:      rss * uint64(os.Getpagesize()),
	}, nil
}

// WithEnv returns the processes whose environment at their start had this
// NAME=value, of those that this process may look into.
func WithEnv(entry string) ([]int, error) {
	all, err := List()
	if err != nil {
		return nil, err
	}
	var pids []int
	want := []byte(entry)
	for _, p := range all {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "environ"))
		if err != nil {
			continue
		}
		for e := range bytes.SplitSeq(b, []byte{0}) {
			if bytes.Equal(e, want) {
				pids = append(pids, p.PID)
				break
			}
		}
	}
	return pids, nil
}

// age is the time since the process was started, 0 where it can't be had.
func age(pid int) time.Duration {
	p, err := Get(pid)
	if err != nil {
		return 0
	}
	_, ticks, _ := strings.Cut(p.Identity, "/")
	start, err := strconv.ParseInt(ticks, 10, 64)
	var now unix.Timespec
	if err != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano()) - time.Duration(start)*tick
}

func memTotal() uint64 {
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) != nil {
		return 0
	}
	return uint64(si.Totalram) * uint64(si.Unit) //nolint:unconvert // 32 bits wide on some architectures
}
