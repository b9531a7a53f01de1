package proctree

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"
)

func TestParseStat_ofAProcessWithAnEvilName(t *testing.T) {
	t.Parallel()
	const stat = "42 (a) T 1 (b) S 7 42 42 0 -1 4194560 1 0 0 0 3 4 0 0 20 0 1 0 12345 1000 2 18446744073709551615 0 0 0\n"
	p, err := parseStat(42, []byte(stat))
	if err != nil || p.PPID != 7 || p.Stopped || p.Dead || p.CPU != 7*tick || p.RSS != 2*uint64(os.Getpagesize()) {
		t.Errorf("got %+v, %v", p, err)
	}
	if p.Identity != bootID()+"/12345" {
		t.Errorf("identity %q", p.Identity)
	}
	for _, bad := range []string{"", "42", "42 (x)", "42 (x) S 1", "42 (x) S y" + stat[20:]} {
		if p, err := parseStat(42, []byte(bad)); err == nil {
			t.Errorf("%q: got %+v", bad, p)
		}
	}
}

func TestDescendants_parentsFirst(t *testing.T) {
	t.Parallel()
	all := []Process{{PID: 5, PPID: 4}, {PID: 4, PPID: 2}, {PID: 3, PPID: 2}, {PID: 2, PPID: 1}, {PID: 9, PPID: 1}, {PID: 1}}
	var pids []int
	for _, p := range Descendants(all, 2) {
		pids = append(pids, p.PID)
	}
	if !slices.Equal(pids, []int{2, 4, 3, 5}) {
		t.Errorf("got %v", pids)
	}
	if got := Descendants(all, 77); len(got) != 0 {
		t.Errorf("of nobody: %v", got)
	}
}

func TestGet_knowsTheLivingFromTheDead(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	cmd.Env = []string{"PROCTREE_TEST=" + t.Name()}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	p, err := Get(pid)
	if err != nil || p.PPID != os.Getpid() || !Alive(pid, p.Identity) || Alive(pid, "another") {
		t.Errorf("got %+v, %v", p, err)
	}
	if pids, err := WithEnv("PROCTREE_TEST=" + t.Name()); err != nil || !slices.Equal(pids, []int{pid}) {
		t.Errorf("by its environment: %v, %v", pids, err)
	}
	if u, err := Measure(os.Getpid(), "/"); err != nil || u.MemUsed == 0 || u.MemTotal < u.MemUsed || u.DiskTotal == 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := Get(pid); !errors.Is(err, ErrGone) || Alive(pid, p.Identity) {
		t.Errorf("after its end: %v", err)
	}
}
