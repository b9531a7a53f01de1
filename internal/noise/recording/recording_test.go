package recording_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/noise"
	"github.com/sandman-proxy/sandman/internal/noise/recording"
)

const idle = time.Minute

func classify(t *testing.T, name string, cfg noise.Config) *recording.Result {
	t.Helper()
	rec, err := recording.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	set, err := noise.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return recording.Classify(rec, set, idle)
}

func files(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("../testdata/frames/*.jsonl.gz")
	if err != nil || len(names) < 59 {
		t.Fatalf("%d recordings: %v", len(names), err)
	}
	return names
}

func file(name string) string { return "../testdata/frames/" + name + ".jsonl.gz" }

func TestRecordings_aPageAloneSleepsAndAPersonIsSeen(t *testing.T) {
	t.Parallel()
	assessed := 0
	for _, name := range files(t) {
		r := classify(t, name, noise.Config{})
		if !r.Good(idle) {
			t.Errorf("%s: dormant %t, silence %v, missed %v", r.Name, r.Dormant, r.Silence, r.Missed)
		}
		if r.Assessed {
			assessed++
		}
		for _, f := range r.Counted[min(len(r.Counted), 3):] {
			t.Errorf("%s: more than three messages count with nobody there: %s", r.Name, f)
		}
		for _, part := range []string{"idle", "long", "bg", "output", "freeze"} {
			if strings.Contains(r.Name, part) && !r.Assessed {
				t.Errorf("%s was not assessed", r.Name)
			}
		}
	}
	if assessed < 48 {
		t.Errorf("%d recordings were assessed", assessed)
	}
}

// The figures that the rules of these presets reached when they were drawn from the
// recordings. They may only become better.
func TestRecordings_inputsThatAreFound(t *testing.T) {
	t.Parallel()
	for name, least := range map[string]int{
		"code-server-typing": 40, "code-server-typing-noext": 40, "code-server-nav": 23, "code-server-mouse": 8,
		"code-server-output": 36, "socketio-typing": 36, "xterm-ws-typing": 37, "shellinabox-typing": 37, "jupyter-typing": 25,
	} {
		if r := classify(t, file(name), noise.Config{}); r.Found-r.Doubtful < least {
			t.Errorf("%s: %d inputs found of %d, %d of them doubtful; want %d", name, r.Found, r.Inputs, r.Doubtful, least)
		}
	}
}

func TestRecordings_withoutPresetsNoEditorSleeps(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"code-server-idle", "code-server-output", "vite-idle", "next-idle", "socketio-idle", "jlab-services-idle", "socketio-polling-idle"} {
		if r := classify(t, file(name), noise.Config{Presets: []string{}}); r.Good(idle) {
			t.Errorf("%s sleeps by itself: the presets prove nothing", name)
		}
	}
}

func TestRecordings_aRuleThatTakesAPersonForNoiseIsCaught(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]noise.Rule{
		"code-server-typing": {Opcode: "binary"},
		"socketio-typing":    {Names: []string{"typing"}},
		"xterm-ws-typing":    {Length: "1"},
		"shellinabox-typing": {Methods: []string{"POST"}},
	} {
		if r := classify(t, file(name), noise.Config{Rules: []noise.Rule{rule}}); r.Good(idle) || len(r.Missed) == 0 {
			t.Errorf("%s: %d of %d found, none missed", name, r.Found, r.Inputs)
		}
	}
}

func TestRead_saysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"", "no recording"},
		{`{"t":0,"kind":"meta"}`, "no recording"},
		{"{\"t\":0}\n{", "line 2"},
		{`{"t":0,"head":"xyz"}`, "line 1"},
		{`{"t":0,"len":-1}`, "line 1: a size"},
		{`{"t":0,"vsc":[[1,2,3]]}`, "line 1: vsc [1 2 3]"},
		{`{"t":0,"vsc":[[1,2,3,9999999999]]}`, "line 1: a size"},
	} {
		if _, err := recording.Read(strings.NewReader(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v", tt.in, err)
		}
	}
	if _, err := recording.Open("read.go"); err == nil || !strings.Contains(err.Error(), "read.go") {
		t.Errorf("a file that is none: %v", err)
	}
}

// Held-out recordings come from anywhere: nothing in one may panic.
func FuzzRead(f *testing.F) {
	const ready = `{"t":0,"event":"ready"}` + "\n"
	f.Add(ready + `{"t":1,"kind":"ws-open","conn":1,"path":"/?reconnectionToken=a&reconnection=true","status":101}` + "\n" +
		`{"t":9,"conn":1,"dir":"c2s","op":2,"fin":true,"rsv1":true,"len":4,"inflated_len":40,"inflated_head":"0100","vsc":[[1,2,3,4],[9,1,1,90]],"vsc_more":2}`)
	f.Add(ready + `{"t":8,"kind":"http","method":"POST","path":":","req_len":-5}` + "\n" + `{"t":9,"event":"SIGSTOP"}`)
	f.Add(ready + `{"t":8,"conn":1,"dir":"c2s","op":1,"fin":true,"len":5000000,"head":"00"}` + "\n" + `{"t":-1,"event":"key"}`)
	set, err := noise.New(noise.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, in string) {
		if rec, err := recording.Read(strings.NewReader(in)); err == nil {
			recording.Classify(rec, set, idle)
		}
	})
}
