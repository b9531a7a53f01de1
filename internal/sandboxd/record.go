package sandboxd

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd/freezer"
)

// State is where a sandbox is in its life, see the package's picture.
type State string

// The states. The E2B API shows pausing and resuming both as paused.
const (
	StateRunning  State = "running"
	StatePausing  State = "pausing"
	StatePaused   State = "paused"
	StateResuming State = "resuming"
	StateKilling  State = "killing"
	StateKilled   State = "killed"
)

// record is all that is known of a sandbox, as it is kept in its folder.
type record struct {
	ID         string    `json:"id"`
	TemplateID string    `json:"templateID"`
	CreatedAt  time.Time `json:"createdAt"`
	// StartedAt is the start of the current run; MaxRun counts from it.
	StartedAt time.Time `json:"startedAt"`
	// EndAt is the end of the lifetime; of a paused sandbox, the time of its pause.
	EndAt time.Time `json:"endAt"`
	// EndUptime is EndAt of a running sandbox by the machine's monotonic clock,
	// as it was saved: the wall clock may be set while no host is there.
	EndUptime time.Duration `json:"endUptime,omitempty"`
	State     State         `json:"state"`

	AutoPause       bool              `json:"autoPause"`
	AutoPauseMemory bool              `json:"autoPauseMemory"`
	AutoResume      bool              `json:"autoResume"`
	AllowInternet   *bool             `json:"allowInternet,omitempty"`
	Network         json.RawMessage   `json:"network,omitempty"`
	Metadata        map[string]string `json:"metadata,omitempty"`
	EnvVars         map[string]string `json:"envVars,omitempty"`
	AccessToken     string            `json:"accessToken,omitempty"`
	TrafficToken    string            `json:"trafficToken,omitempty"`

	// Process is envd; nil after a pause that kept only the files.
	Process *process `json:"process,omitempty"`
}

// process is a sandbox's envd.
type process struct {
	PID      int         `json:"pid"`
	Identity string      `json:"identity"`
	Addr     string      `json:"addr"`
	Group    freezer.Ref `json:"group"`
}

// listedState is the state in the words of the E2B API.
func (r *record) listedState() e2b.State {
	if r.State == StateRunning {
		return e2b.StateRunning
	}
	return e2b.StatePaused
}

const (
	recordFile = "state.json"
	homeFolder = "home"
	logFile    = "envd.log"
)

// save replaces the record on disk. The rename makes it whole or not at all;
// there is no sync, because no process outlives the machine.
func (r *record) save(dir string) error {
	r.EndUptime = 0
	if up := uptime(); up != 0 && r.State == StateRunning {
		r.EndUptime = up + time.Until(r.EndAt)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("saving sandbox %q: %w", r.ID, err)
	}
	tmp := filepath.Join(dir, recordFile+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("saving sandbox %q: %w", r.ID, err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, recordFile)); err != nil {
		return fmt.Errorf("saving sandbox %q: %w", r.ID, err)
	}
	return nil
}

func loadRecord(dir string) (*record, error) {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if r.ID != filepath.Base(dir) {
		return nil, fmt.Errorf("the record is that of %q", r.ID)
	}
	if up := uptime(); up != 0 && r.EndUptime != 0 {
		r.EndAt = time.Now().Add(r.EndUptime - up)
	}
	return &r, nil
}
