package e2e_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// clock is the wall clock as one running Go program sees it, which can be set without setting the
// machine's. Go asks the kernel's vDSO for the time, through one variable; that is made to point to
// a few instructions which ask the vDSO and add a number of seconds if it was the wall clock.
type clock struct {
	memory *os.File
	offset int64 // where the seconds are
}

// adding is what the variable is made to point to. It replaces a function that is called only when
// the runtime has crashed.
var adding = []byte{
	0x57,                   // push rdi: the clock
	0x56,                   // push rsi: where the time goes
	0x48, 0x83, 0xec, 0x08, // sub rsp, 8
	0xff, 0x15, 0x1c, 0, 0, 0, // call [vdso]
	0x48, 0x83, 0xc4, 0x08, // add rsp, 8
	0x5e,       // pop rsi
	0x5f,       // pop rdi
	0x85, 0xff, // test edi, edi: CLOCK_REALTIME?
	0x75, 0x0a, // jnz +10
	0x48, 0x8b, 0x0d, 0x13, 0, 0, 0, // mov rcx, [seconds]
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0xc3,                                     // ret
	0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, // so that what follows is aligned
	// 8 bytes each: vdso, seconds
}

const neverCalled = "runtime.tracebackHexdump"

func (p *process) clock(t *testing.T) *clock {
	t.Helper()
	symbol := symbolsOf(t, p.cmd.Path, "runtime.vdsoClockgettimeSym", neverCalled)
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", p.cmd.Process.Pid), os.O_RDWR, 0)
	if err != nil {
		t.Skipf("another process's memory can't be written: %v", err)
	}
	t.Cleanup(func() { _ = memory.Close() })
	variable, code := symbol["runtime.vdsoClockgettimeSym"], symbol[neverCalled]
	at := (code.Value + 15) &^ 15
	text := append(bytes.Clone(adding), make([]byte, 16)...)
	if at+uint64(len(text)) > code.Value+code.Size {
		t.Fatalf("%s has %d bytes only", neverCalled, code.Size)
	}
	vdso := text[len(adding) : len(adding)+8]
	if _, err := memory.ReadAt(vdso, int64(variable.Value)); err != nil || binary.LittleEndian.Uint64(vdso) == 0 {
		t.Skipf("the program does not ask the vDSO: %v", err)
	}
	if _, err := memory.WriteAt(text, int64(at)); err != nil {
		t.Skipf("another process's memory can't be written: %v", err)
	}
	if _, err := memory.WriteAt(binary.LittleEndian.AppendUint64(nil, at), int64(variable.Value)); err != nil {
		t.Fatal(err)
	}
	return &clock{memory: memory, offset: int64(at) + int64(len(adding)) + 8}
}

// set makes the clock differ from the machine's.
func (c *clock) set(t *testing.T, ahead time.Duration) {
	t.Helper()
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(int64(ahead/time.Second)))
	if _, err := c.memory.WriteAt(seconds, c.offset); err != nil {
		t.Fatal(err)
	}
}

func symbolsOf(t *testing.T, program string, names ...string) map[string]elf.Symbol {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := f.Symbols()
	if err != nil || f.Type != elf.ET_EXEC {
		t.Skipf("the program's addresses are not known: %v, %v", f.Type, err)
	}
	found := map[string]elf.Symbol{}
	for _, s := range all {
		for _, name := range names {
			if s.Name == name {
				found[name] = s
			}
		}
	}
	if len(found) != len(names) {
		t.Fatalf("of %v the program has %v", names, found)
	}
	return found
}

// The wall clock is set by an hour while Sandman runs, with a host in its own process or one whose
// clock is not set: what is in use is never paused, also not by its host, what sleeps wakes, and what
// is idle sleeps in time.
func TestClock_isSetByAnHour(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]time.Duration{"back": -time.Hour, "ahead": time.Hour} {
		for _, own := range []bool{true, false} {
			host := map[bool]string{true: "its own host", false: "another host"}[own]
			t.Run(name+", "+host, func(t *testing.T) {
				t.Parallel()
				o := options{idle: clusterIdle}
				if !own {
					o.host = startSandboxd(t, "").url
				}
				testClock(t, start(t, o), step)
			})
		}
	}
}

// hostEnds is when the host would end the run of a sandbox by itself. Sandman looks at it half-way.
const hostEnds = 16 * time.Second

func testClock(t *testing.T, s *sandman, step time.Duration) {
	c := s.process.clock(t)
	sleeping, sleepingBefore := s.startAppIn(t)
	s.pause(t, sleeping)
	idle, idleBefore := s.startAppIn(t)
	used, usedBefore := s.startAppIn(t)
	stop := s.measureUse(t, used)
	if a := s.rest(t, http.MethodPost, "/sandboxes/"+used+"/timeout", fmt.Sprintf(`{"timeout":%d}`, hostEnds/time.Second)); a.status != http.StatusNoContent {
		t.Fatalf("setting the host's timeout: %s", a)
	}

	c.set(t, step)
	began := time.Now()
	if off := s.clockAhead(t); (off - step).Abs() > 5*time.Second {
		t.Fatalf("its clock is %s ahead, and was set to be %s", off, step)
	}
	s.awaitState(t, settled+clusterIdle+late, idle, "PAUSED")
	if took := time.Since(began); took > clusterIdle+late {
		t.Errorf("the idle one slept after %s", took)
	}
	requireContinued(t, sleepingBefore, s.mustAsk(t, sleeping), 1)
	requireContinued(t, idleBefore, s.mustAsk(t, idle), 1)
	time.Sleep(time.Until(began.Add(hostEnds + 3*time.Second)))
	c.set(t, -step) // and by two hours
	time.Sleep(2 * clusterIdle)
	if longest := stop(); longest > late {
		t.Errorf("a request took %s", longest)
	}
	if r := s.record(t, used); r.Totals.Pauses != 0 || r.Totals.Wakes != 0 {
		t.Errorf("the one in use has slept: %+v", r)
	}
	var r record
	eventually(t, late, "a time to sleep", func() bool { r = s.record(t, used); return r.PauseAt != nil || r.State != "RUNNING" })
	if now := s.now(t); r.PauseAt == nil || now.Sub(*r.PauseAt).Abs() > time.Minute || now.Sub(*r.LastActivity).Abs() > time.Minute {
		t.Errorf("at %s it is shown to be %+v", now, r)
	}
	for _, id := range []string{used, idle, sleeping} {
		s.awaitState(t, clusterIdle+late, id, "PAUSED")
	}
	if after := s.mustAsk(t, used); after.Pid != usedBefore.Pid || after.Memory != usedBefore.Memory {
		t.Errorf("the one in use is %+v, was %+v", after, usedBefore)
	}
	if log := s.process.log.String(); strings.Contains(log, "lost contact") {
		t.Error("it has lost contact with its store")
	}
}

// now is what the program's clock shows.
func (s *sandman) now(t *testing.T) time.Time {
	t.Helper()
	at, err := http.ParseTime(s.call(t, http.MethodGet, "/status", "").header.Get("Date"))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func (s *sandman) clockAhead(t *testing.T) time.Duration {
	t.Helper()
	return time.Until(s.now(t)).Round(time.Second)
}
