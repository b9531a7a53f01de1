// Package sdk runs a flow of the official E2B SDKs against a host of sandboxes,
// be that the local host itself or a proxy before it. See flow.mjs for the flow.
package sdk

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Names of the SDK's versions in package.json.
const (
	Latest  = "e2b"     // 2.51: the second generation of routes
	Version = "e2b-250" // 2.50: the first generation
	Beta    = "e2b-264" // 2.6: betaCreate, betaPause, no E2B_SANDBOX_URL
)

// flowTimeout is far above what a flow takes, which is a few seconds.
const flowTimeout = 2 * time.Minute

// Host is where a flow finds its host. Both addresses are plain http.
type Host struct {
	APIURL     string
	SandboxURL string
	APIKey     string
}

// Run runs the flow with one version of the SDK, and fails the test with the
// flow's output. The SDK's data plane goes to h.SandboxURL, with headers that name
// the sandbox.
func Run(tb testing.TB, version string, h Host) {
	tb.Helper()
	run(tb, version, h, "E2B_SANDBOX_URL="+h.SandboxURL)
}

// RunByName runs the flow as against E2B itself: the SDK finds each sandbox by a
// name of its own, over TLS and HTTP/2. A front that ends TLS sends it on to
// h.SandboxURL, with the sandbox's name kept in the host.
func RunByName(tb testing.TB, version string, h Host) {
	tb.Helper()
	f := newFront(tb, h.SandboxURL)
	run(tb, version, h, "E2B_DOMAIN="+f.domain, "NODE_EXTRA_CA_CERTS="+f.caFile, "NODE_OPTIONS=--import="+filepath.Join(dir(), "resolve.mjs"))
}

func run(tb testing.TB, version string, h Host, env ...string) {
	tb.Helper()
	install(tb)
	cmd := exec.Command("node", "flow.mjs", version)
	cmd.Dir = dir()
	cmd.Env = append(environ(), "E2B_API_URL="+h.APIURL, "E2B_API_KEY="+h.APIKey)
	cmd.Env = append(cmd.Env, env...)
	// node's own group, so that a flow that hangs goes as a whole
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := time.AfterFunc(flowTimeout, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer kill.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("the flow of %s: %v\n%s", version, err, out)
	}
	tb.Logf("%s", out)
}

// environ is ours without what would lead an SDK elsewhere.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "E2B_") })
}

// install gets the SDKs by the lock file, once: tests of several packages may
// come here at the same time.
func install(tb testing.TB) {
	tb.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		tb.Fatal("node is missing; the SDKs need version 20.18 or later")
	}
	lock, err := os.Open(filepath.Join(dir(), "package-lock.json"))
	if err == nil {
		defer lock.Close()
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		tb.Fatal(err)
	}
	// npm writes this file last
	if _, err := os.Stat(filepath.Join(dir(), "node_modules", ".package-lock.json")); err == nil {
		return
	}
	cmd := exec.Command("npm", "ci", "--no-audit", "--no-fund")
	cmd.Dir = dir()
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("npm ci: %v\n%s", err, out)
	}
}

// dir is this folder.
func dir() string {
	_, file, _, _ := runtime.Caller(0) //nolint:dogsled // the rest of it is of no use here
	return filepath.Dir(file)
}
