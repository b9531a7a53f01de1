package freezer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/sandboxd/proctree"
)

// freezers are all ways that work here, of which Detect takes only the best.
func freezers(t *testing.T) []*Freezer {
	list := []*Freezer{{kind: KindSignal}}
	for _, kind := range []Kind{KindCgroup2, KindCgroup1} {
		parent, err := ownCgroup(kind)
		if err == nil {
			f := &Freezer{kind: kind, parent: parent}
			if err = f.try(t.Context()); err == nil {
				list = append(list, f)
			}
		}
		if err != nil {
			t.Logf("not tested: %s: %v", kind, err)
		}
	}
	return list
}

// busy starts a tree that computes: a root and three children.
func busy(t *testing.T, f *Freezer) (Group, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read x; for i in 1 2 3; do while :; do :; done & done; wait")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	g, err := f.New(fmt.Sprintf("sandboxd-test-%d-%d", os.Getpid(), time.Now().UnixNano()), cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	// children only now: what is in a group is what is born in it
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	for len(tree(t, cmd.Process.Pid)) < 4 {
		time.Sleep(time.Millisecond)
	}
	return g, cmd
}

func tree(t *testing.T, root int) []proctree.Process {
	t.Helper()
	all, err := proctree.List()
	if err != nil {
		t.Fatal(err)
	}
	return proctree.Descendants(all, root)
}

func cpu(t *testing.T, root int) (sum time.Duration) {
	for _, p := range tree(t, root) {
		sum += p.CPU
	}
	return sum
}

func TestGroup_usesNoCPUWhileFrozen(t *testing.T) {
	t.Parallel()
	for _, f := range freezers(t) {
		t.Run(string(f.kind), func(t *testing.T) {
			t.Parallel()
			g, cmd := busy(t, f)
			if frozen, err := g.Frozen(); err != nil || frozen {
				t.Fatalf("frozen %v, %v", frozen, err)
			}
			for range 3 {
				if err := g.Freeze(t.Context()); err != nil {
					t.Fatal(err)
				}
				// another process finds the group by its Ref
				other, err := Open(g.Ref())
				if err != nil {
					t.Fatal(err)
				}
				if frozen, err := other.Frozen(); err != nil || !frozen {
					t.Fatalf("frozen %v, %v", frozen, err)
				}
				before := cpu(t, cmd.Process.Pid)
				time.Sleep(60 * time.Millisecond) // six ticks of the kernel's clock
				if after := cpu(t, cmd.Process.Pid); after != before {
					t.Errorf("used %v of CPU time", after-before)
				}
				if err := other.Thaw(t.Context()); err != nil {
					t.Fatal(err)
				}
				for was := cpu(t, cmd.Process.Pid); cpu(t, cmd.Process.Pid) == was; {
					time.Sleep(time.Millisecond)
				}
			}
			if err := g.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestGroup_isKilledWhileFrozen(t *testing.T) {
	t.Parallel()
	for _, f := range freezers(t) {
		t.Run(string(f.kind), func(t *testing.T) {
			t.Parallel()
			g, cmd := busy(t, f)
			members := tree(t, cmd.Process.Pid)
			if err := g.Freeze(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := g.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, p := range members {
				if proctree.Alive(p.PID, p.Identity) {
					t.Errorf("process %d lives", p.PID)
				}
			}
			if _, err := os.Stat(g.Ref().Path); g.Ref().Path != "" && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the cgroup is left: %v", err)
			}
			if err := g.Kill(t.Context()); err != nil {
				t.Errorf("second kill: %v", err)
			}
		})
	}
}

func TestSignalGroup_isNotTakenInByAnotherProcess(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	g, err := Open(Ref{Kind: KindSignal, Root: cmd.Process.Pid, Identity: "an earlier one with this PID"})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Freeze(t.Context()); !errors.Is(err, proctree.ErrGone) {
		t.Errorf("freeze: %v", err)
	}
	if err := g.Kill(t.Context()); err != nil {
		t.Errorf("kill: %v", err)
	}
	if p, err := proctree.Get(cmd.Process.Pid); err != nil || p.Stopped || p.Dead {
		t.Errorf("the other process: %+v, %v", p, err)
	}
}

func TestFreeze_endsWithItsContextAndLeavesNothingStopped(t *testing.T) {
	t.Parallel()
	for _, f := range freezers(t) {
		t.Run(string(f.kind), func(t *testing.T) {
			t.Parallel()
			g, cmd := busy(t, f)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := g.Freeze(ctx); err == nil {
				t.Log("frozen before the context was looked at")
			}
			if err := g.Thaw(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, p := range tree(t, cmd.Process.Pid) {
				if p.Stopped {
					t.Errorf("process %d is stopped", p.PID)
				}
			}
			if err := g.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestDetect_knowsItsModes(t *testing.T) {
	t.Parallel()
	if _, err := Detect(t.Context(), "ice"); err == nil || !strings.Contains(err.Error(), "ice") {
		t.Errorf("got %v", err)
	}
	f, err := Detect(t.Context(), ModeSignal)
	if err != nil || f.Kind() != KindSignal {
		t.Errorf("got %v, %v", f, err)
	}
	if f, err = Detect(t.Context(), ModeAuto); err != nil {
		t.Errorf("got %v, %v", f, err)
	}
	if _, err := Open(Ref{Kind: "ice"}); err == nil {
		t.Error("opened an unknown kind")
	}
	if _, err := Open(Ref{Kind: KindCgroup2, Path: "/nowhere"}); err == nil {
		t.Error("opened a cgroup that is not there")
	}
}
