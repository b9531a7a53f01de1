package sandboxd

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Faults make the host misbehave as the real one can, so that those who use it
// are tested against a host and not against a mock. The zero value is a good
// host. A probability is from 0 to 1; a name without a value means 1.
//
//	pause_delay=3s        a pause takes so much longer; meanwhile the sandbox can't be reached
//	late_pause=3s         a pause call is only looked at after so long; meanwhile all is as before
//	resume_delay=3s       a resume takes so much longer
//	pause_fail=0.1        a pause call is answered with 500 and nothing is done
//	pause_fail_after=0.1  a pause call is answered with 500 after the sandbox was paused
//	conflict=0.1          a pause call is answered with 409 "already paused" and nothing is done
//	connect_fail=0.1      a connect call is answered with 503 and nothing is done
//	kill_on_pause=0.1     a pause call kills the sandbox and is answered with 500
//	cut_connections       connections into a sandbox are reset when it is paused
//	max_run=1h            the longest run, after which a sandbox ends whatever its timeout
type Faults struct {
	PauseDelay, LatePause, ResumeDelay, MaxRun                    time.Duration
	PauseFail, PauseFailAfter, Conflict, ConnectFail, KillOnPause float64
	CutConnections                                                bool
}

// ParseFaults reads faults as they are documented at [Faults], separated by
// commas. An empty string has none.
func ParseFaults(s string) (Faults, error) {
	var f Faults
	for item := range strings.SplitSeq(s, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		name, value, has := strings.Cut(item, "=")
		if err := f.set(name, value, has); err != nil {
			return Faults{}, fmt.Errorf("reading fault %q: %w", item, err)
		}
	}
	return f, nil
}

func (f *Faults) set(name, value string, has bool) error {
	durations := map[string]*time.Duration{
		"pause_delay": &f.PauseDelay, "late_pause": &f.LatePause,
		"resume_delay": &f.ResumeDelay, "max_run": &f.MaxRun,
	}
	chances := map[string]*float64{
		"pause_fail": &f.PauseFail, "pause_fail_after": &f.PauseFailAfter, "conflict": &f.Conflict,
		"connect_fail": &f.ConnectFail, "kill_on_pause": &f.KillOnPause,
	}
	if d, ok := durations[name]; ok {
		v, err := time.ParseDuration(value)
		if err != nil || v < 0 {
			return fmt.Errorf("want a duration such as 3s")
		}
		*d = v
		return nil
	}
	if c, ok := chances[name]; ok {
		if !has {
			value = "1"
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || v < 0 || v > 1 {
			return fmt.Errorf("want a probability from 0 to 1")
		}
		*c = v
		return nil
	}
	if name == "cut_connections" && !has {
		f.CutConnections = true
		return nil
	}
	return fmt.Errorf("unknown fault")
}

// strikes draws whether a fault of this probability happens now.
func strikes(probability float64) bool {
	return probability > 0 && rand.Float64() < probability
}
