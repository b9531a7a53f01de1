package sdk_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
	"github.com/sandman-proxy/sandman/test/sdk"
)

// startHost builds and runs cmd/sandboxd, as a user would.
func startHost(t *testing.T, env ...string) sdk.Host {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "sandboxd")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/sandman-proxy/sandman/cmd/sandboxd").CombinedOutput(); err != nil {
		t.Fatalf("building sandboxd: %v\n%s", err, out)
	}
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), "SANDBOXD_LISTEN=127.0.0.1:0", "SANDBOXD_DATA="+t.TempDir(), "E2B_API_KEY=")
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	url := ""
	t.Cleanup(func() {
		killAll(t, url)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("sandboxd after SIGTERM: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("sandboxd printed no address: %v", err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	url = line[strings.LastIndex(line, " ")+1 : len(line)-1]
	return sdk.Host{APIURL: url, SandboxURL: url, APIKey: sandboxd.DefaultAPIKey}
}

// killAll ends what a flow that failed has left: sandboxes outlive their host.
func killAll(t *testing.T, url string) {
	c := e2b.NewClient(url, sandboxd.DefaultAPIKey, nil)
	left, err := c.List(context.Background())
	for _, s := range left {
		t.Errorf("sandbox %s is left", s.SandboxID)
		err = errors.Join(err, c.Kill(context.Background(), s.SandboxID))
	}
	if err != nil {
		t.Error(err)
	}
}

func TestSDK_theWholeFlow(t *testing.T) {
	t.Parallel()
	host := startHost(t)
	t.Run("2.51", func(t *testing.T) { t.Parallel(); sdk.Run(t, sdk.Latest, host) })
	t.Run("2.50", func(t *testing.T) { t.Parallel(); sdk.Run(t, sdk.Version, host) })
	t.Run("2.51 by name", func(t *testing.T) { t.Parallel(); sdk.RunByName(t, sdk.Latest, host) })
	t.Run("2.6 by name", func(t *testing.T) { t.Parallel(); sdk.RunByName(t, sdk.Beta, host) })
}

func TestSDK_theWholeFlowWithoutCgroups(t *testing.T) {
	t.Parallel()
	host := startHost(t, "SANDBOXD_FREEZER=signal")
	sdk.Run(t, sdk.Latest, host)
}
