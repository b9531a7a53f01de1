package e2b

import (
	"encoding/json"
	"time"
)

// State is a sandbox's state as the E2B API names it. There is no word for the
// transitions: a sandbox that is being paused is "paused" already, one that is
// being resumed is "paused" still.
type State string

// The two states of the E2B API.
const (
	StateRunning State = "running"
	StatePaused  State = "paused"
)

// NewSandbox is the body of POST /sandboxes and POST /v2/sandboxes. A nil
// pointer is a field that the caller left out, for which the API has defaults
// of its own, which differ between the two routes.
type NewSandbox struct {
	TemplateID string `json:"templateID"`
	// Timeout is the sandbox's lifetime in seconds from now: 15 by default on
	// the first route, 300 on the second.
	Timeout *int32 `json:"timeout,omitempty"`
	// AutoPause pauses the sandbox at the end of its lifetime. The default is
	// to kill it.
	AutoPause *bool `json:"autoPause,omitempty"`
	// AutoPauseMemory false keeps only the files at an automatic pause.
	AutoPauseMemory *bool       `json:"autoPauseMemory,omitempty"`
	AutoResume      *AutoResume `json:"autoResume,omitempty"`
	// Secure asks for an access token to the sandbox's own daemon. Only on the
	// first route: on the second every sandbox has one.
	Secure              *bool             `json:"secure,omitempty"`
	AllowInternetAccess *bool             `json:"allow_internet_access,omitempty"`
	Network             json.RawMessage   `json:"network,omitempty"`
	Metadata            map[string]string `json:"metadata,omitempty"`
	EnvVars             map[string]string `json:"envVars,omitempty"`
	MCP                 json.RawMessage   `json:"mcp,omitempty"`
}

// AutoResume is the host's own resuming at a request.
type AutoResume struct {
	Enabled bool `json:"enabled"`
}

// Sandbox is what create, connect and resume answer. It holds neither a state
// nor an end time: who needs them asks with [Client.Get].
type Sandbox struct {
	TemplateID         string  `json:"templateID"`
	SandboxID          string  `json:"sandboxID"`
	ClientID           string  `json:"clientID"`
	Alias              string  `json:"alias,omitempty"`
	EnvdVersion        string  `json:"envdVersion"`
	EnvdAccessToken    string  `json:"envdAccessToken,omitempty"`
	TrafficAccessToken *string `json:"trafficAccessToken,omitempty"`
	// Domain is nil where the SDK's own domain applies.
	Domain *string `json:"domain,omitempty"`
}

// ListedSandbox is an entry of GET /v2/sandboxes.
type ListedSandbox struct {
	TemplateID string `json:"templateID"`
	SandboxID  string `json:"sandboxID"`
	ClientID   string `json:"clientID"`
	Alias      string `json:"alias,omitempty"`
	// StartedAt is the start of the current run, or of the last one.
	StartedAt time.Time `json:"startedAt"`
	// EndAt is when the host will pause or kill a running sandbox. Of a paused
	// one it is the time of its pause.
	EndAt       time.Time         `json:"endAt"`
	CPUCount    int32             `json:"cpuCount"`
	MemoryMB    int32             `json:"memoryMB"`
	DiskSizeMB  int32             `json:"diskSizeMB"`
	State       State             `json:"state"`
	EnvdVersion string            `json:"envdVersion"`
	Metadata    map[string]string `json:"metadata,omitempty"`
}

// SandboxDetail is the answer of GET /sandboxes/{id}.
type SandboxDetail struct {
	ListedSandbox
	EnvdAccessToken     string          `json:"envdAccessToken,omitempty"`
	Domain              *string         `json:"domain,omitempty"`
	AllowInternetAccess *bool           `json:"allowInternetAccess,omitempty"`
	Network             json.RawMessage `json:"network,omitempty"`
	Lifecycle           *Lifecycle      `json:"lifecycle,omitempty"`

	// AsOf is when this was said by the clock that EndAt goes by, or up to a second
	// later: Client.Get fills it in. The caller's own clock may
	// be an hour off.
	AsOf time.Time `json:"-"`
}

// Lifecycle says what the host does by itself.
type Lifecycle struct {
	AutoResume bool `json:"autoResume"`
	// OnTimeout is "kill" or "pause".
	OnTimeout string `json:"onTimeout"`
}
