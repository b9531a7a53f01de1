package freezer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// poll is how often a state is read again where the kernel sends no event.
const poll = time.Millisecond

// cgroup is a group of either version.
type cgroup struct {
	kind Kind
	path string
	root int
}

func openCgroup(r Ref) (Group, error) {
	return &cgroup{kind: r.Kind, path: r.Path, root: r.Root}, nil
}

func (f *Freezer) newCgroup(name string, root int) (Group, error) {
	g := &cgroup{kind: f.kind, path: filepath.Join(f.parent, name), root: root}
	if err := os.Mkdir(g.path, 0o755); err != nil {
		return nil, fmt.Errorf("making a cgroup: %w", err)
	}
	if err := g.write("cgroup.procs", strconv.Itoa(root)); err != nil {
		_ = os.Remove(g.path)
		return nil, fmt.Errorf("entering a cgroup: %w", err)
	}
	return g, nil
}

func (g *cgroup) Ref() Ref { return Ref{Kind: g.kind, Path: g.path, Root: g.root} }

func (g *cgroup) Freeze(ctx context.Context) error { return g.set(ctx, true) }
func (g *cgroup) Thaw(ctx context.Context) error   { return g.set(ctx, false) }

// set asks for a state and waits for the kernel's word that it is reached.
func (g *cgroup) set(ctx context.Context, frozen bool) error {
	file, value := "cgroup.freeze", "0"
	if frozen {
		value = "1"
	}
	if g.kind == KindCgroup1 {
		file, value = "freezer.state", "THAWED"
		if frozen {
			value = "FROZEN"
		}
	}
	if err := g.write(file, value); err != nil {
		return fmt.Errorf("writing %s to %s: %w", value, file, err)
	}
	if err := g.await(ctx, func() (bool, error) {
		is, err := g.Frozen()
		return is == frozen, err
	}); err != nil {
		return fmt.Errorf("waiting for %s of %s: %w", value, file, err)
	}
	return nil
}

// Frozen reads the kernel's word. A v1 group in FREEZING is not frozen: reading
// its state makes the kernel look again.
func (g *cgroup) Frozen() (bool, error) {
	if g.kind == KindCgroup1 {
		b, err := os.ReadFile(filepath.Join(g.path, "freezer.state"))
		return strings.TrimSpace(string(b)) == "FROZEN", err
	}
	return g.event("frozen 1")
}

// event reports whether cgroup.events of version 2 has a line.
func (g *cgroup) event(line string) (bool, error) {
	b, err := os.ReadFile(filepath.Join(g.path, "cgroup.events"))
	if err != nil {
		return false, err
	}
	for l := range strings.Lines(string(b)) {
		if strings.TrimSpace(l) == line {
			return true, nil
		}
	}
	return false, nil
}

// await waits until done says so. Version 2 wakes us at each change of
// cgroup.events; version 1 has nothing of the kind and is asked again.
func (g *cgroup) await(ctx context.Context, done func() (bool, error)) error {
	events, err := g.openEvents()
	if err != nil {
		return err
	}
	if events != nil {
		defer events.Close()
	}
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := waitEvent(events); err != nil {
			return err
		}
	}
}

func (g *cgroup) openEvents() (*os.File, error) {
	if g.kind == KindCgroup1 {
		return nil, nil
	}
	return os.Open(filepath.Join(g.path, "cgroup.events"))
}

// waitEvent returns at the next change, or after a moment: the caller looks
// itself. The file must be read once, or its first change is not reported.
func waitEvent(events *os.File) error {
	if events == nil {
		time.Sleep(poll)
		return nil
	}
	var buf [128]byte
	if _, err := events.ReadAt(buf[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
	_, err := unix.Poll(fds, 10)
	if errors.Is(err, unix.EINTR) {
		err = nil
	}
	return err
}

// Kill ends all processes of the group and removes it.
func (g *cgroup) Kill(ctx context.Context) error {
	err := g.await(ctx, func() (bool, error) {
		pids, err := g.pids()
		if err != nil || len(pids) == 0 {
			return true, err
		}
		return false, g.killOnce(pids)
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil // somebody removed the empty group
	}
	if err != nil {
		return fmt.Errorf("killing a cgroup: %w", err)
	}
	return g.remove(ctx)
}

// killOnce kills what is in the group now. Old kernels have no cgroup.kill;
// there, and in version 1, a child may be born meanwhile: the caller repeats.
func (g *cgroup) killOnce(pids []int) error {
	if g.kind == KindCgroup2 && g.write("cgroup.kill", "1") == nil {
		return nil
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("killing process %d: %w", pid, err)
		}
	}
	if g.kind == KindCgroup1 {
		// a signal waits in a frozen process: here it dies at the thaw
		return g.write("freezer.state", "THAWED")
	}
	return nil
}

// remove waits for the last process to have left: one that is dying still holds
// the group for a moment.
func (g *cgroup) remove(ctx context.Context) error {
	for {
		err := unix.Rmdir(g.path)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || ctx.Err() != nil {
			return fmt.Errorf("removing cgroup %q: %w", g.path, err)
		}
		time.Sleep(poll)
	}
}

// pids are the living members. Zombies are not: they wait for their parent.
func (g *cgroup) pids() ([]int, error) {
	b, err := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for f := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("reading cgroup.procs: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func (g *cgroup) write(file, value string) error {
	f, err := os.OpenFile(filepath.Join(g.path, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

// detectCgroup tries version 2, then version 1.
func detectCgroup(ctx context.Context) (*Freezer, error) {
	var errs []error
	for _, kind := range []Kind{KindCgroup2, KindCgroup1} {
		parent, err := ownCgroup(kind)
		if err == nil {
			f := &Freezer{kind: kind, parent: parent}
			if err = f.try(ctx); err == nil {
				return f, nil
			}
		}
		errs = append(errs, fmt.Errorf("%s: %w", kind, err))
	}
	return nil, errors.Join(errs...)
}

// try freezes, thaws and kills a process.
func (f *Freezer) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sleep", "60")
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	g, err := f.newCgroup(fmt.Sprintf("sandboxd-try-%d-%d", os.Getpid(), time.Now().UnixNano()), cmd.Process.Pid)
	if err != nil {
		return err
	}
	err = g.Freeze(ctx)
	if err == nil {
		err = g.Thaw(ctx)
	}
	return errors.Join(err, g.Kill(ctx))
}

// ownCgroup is the folder of this process's own cgroup: the one place where a
// plain user may have been given leave to make more.
func ownCgroup(kind Kind) (string, error) {
	mount, root, err := cgroupMount(kind)
	if err != nil {
		return "", err
	}
	own, err := cgroupPath(kind)
	if err != nil {
		return "", err
	}
	if root != "/" {
		own = strings.TrimPrefix(own, root)
	}
	return filepath.Join(mount, own), nil
}

// cgroupMount finds the hierarchy in mountinfo, see proc_pid_mountinfo(5).
func cgroupMount(kind Kind) (mount, root string, err error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		v2 := kind == KindCgroup2 && g[0] == "cgroup2"
		v1 := kind == KindCgroup1 && g[0] == "cgroup" && hasOption(g[2], "freezer")
		if v1 || v2 {
			return f[4], f[3], nil
		}
	}
	return "", "", errors.New("not mounted")
}

// cgroupPath finds this process in the hierarchy, see cgroups(7).
func cgroupPath(kind Kind) (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		v2 := kind == KindCgroup2 && f[0] == "0" && f[1] == ""
		v1 := kind == KindCgroup1 && hasOption(f[1], "freezer")
		if v1 || v2 {
			return f[2], nil
		}
	}
	return "", errors.New("this process is in none")
}

func hasOption(list, option string) bool {
	for o := range strings.SplitSeq(list, ",") {
		if o == option {
			return true
		}
	}
	return false
}
