// Package envd is the daemon of one local sandbox: a process of its own that owns
// the sandbox's commands, their pipes and terminals, and serves E2B's data plane
// (the Connect services process.Process and filesystem.Filesystem, and /files) on
// the sandbox's own address.
//
// The host may be killed and restarted while this process and its children go on.
// So nothing of it hangs on the host: it is a session leader, its output goes to
// a file, and all it was told is in its config file. It is frozen together with
// its children, and therefore counts the time of a command's timeout by how long
// it was awake, not by any clock.
package envd

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Port is the port of E2B's data plane in every sandbox.
const Port = 49983

// Version is what SDKs are told, which choose their ways by it: 0.5.7 and later
// take raw uploads, 0.4.0 and later need no user.
const Version = "0.6.4"

// ConfigFile is the config's name in the sandbox's folder.
const ConfigFile = "envd.json"

// Config is what the host tells a sandbox's daemon.
type Config struct {
	SandboxID  string `json:"sandboxID"`
	TemplateID string `json:"templateID"`
	// Home is the absolute path of the folder that is /home/user to the SDKs.
	Home string `json:"home"`
	// AccessToken must come with every call but /health; empty means none.
	AccessToken string `json:"accessToken,omitempty"`
	// Env is the environment of all commands, on top of what environ sets.
	Env map[string]string `json:"env,omitempty"`
}

// WriteConfig leaves the config in the sandbox's folder, readable only by its
// owner, because of the token.
func WriteConfig(dir string, c Config) error {
	b, err := json.Marshal(c)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, ConfigFile), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing envd's config: %w", err)
	}
	return nil
}

func readConfig(dir string) (Config, error) {
	var c Config
	b, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return c, fmt.Errorf("reading envd's config: %w", err)
	}
	return c, nil
}

// Ready is the one line that envd writes to its host when it listens.
type Ready struct {
	// Addr is the address and port on which it listens.
	Addr string `json:"addr"`
	// Error says why it does not.
	Error string `json:"error,omitempty"`
}

// The descriptors that the host passes: on the first envd writes its [Ready], on
// the second it waits for a byte. The byte comes when the host has written down
// whom it started; without it envd exits, so that a host that is killed in
// between leaves nobody behind whom it doesn't know.
const (
	readyFD  = 3
	commitFD = 4
)
