package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/test/sdk"
)

// pauseScript pauses a sandbox twice by the SDK, and tells what it was told.
const pauseScript = `
import { Sandbox } from 'e2b'
const sandbox = await Sandbox.create()
const first = await sandbox.pause()
const asleep = (await sandbox.getInfo()).state
const second = await sandbox.pause()
const again = await Sandbox.connect(sandbox.sandboxId)
const awake = (await again.getInfo()).state
console.log(JSON.stringify([first, asleep, second, awake, await again.kill()]))
`

func TestSDK_pauseIsTrueAndFalseOnlyIfItSleptBefore(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	got := s.node(t, nil, "--input-type=module", "--eval", pauseScript)
	if want := `[true,"paused",false,"running",true]`; strings.TrimSpace(got) != want {
		t.Errorf("pause, state, pause, state after connect and kill: wanted %s, got %s", want, got)
	}
}

const sleepScript = `
import { Sandbox } from 'e2b'
const sandbox = await Sandbox.create()
await sandbox.files.write('/home/user/kept.txt', 'kept')
const before = await sandbox.commands.run('echo $PPID')
for (;;) {
  if ((await sandbox.getInfo()).state === 'paused') break
  await new Promise((resolve) => setTimeout(resolve, 100))
}
const running = await sandbox.isRunning()
const after = await sandbox.commands.run('echo $PPID')
console.log(JSON.stringify([running, before.stdout === after.stdout, await sandbox.files.read('/home/user/kept.txt')]))
`

// A call of the SDK wakes what slept; only its isRunning, which monitors call, neither wakes nor lies.
func TestSDK_findsASandboxThatSleptAsItWas(t *testing.T) {
	t.Parallel()
	s := start(t, options{idle: 3 * time.Second})
	got := s.node(t, nil, "--input-type=module", "--eval", sleepScript)
	if want := `[false,true,"kept"]`; strings.TrimSpace(got) != want {
		t.Errorf("isRunning while asleep, same daemon, file: wanted %s, got %s", want, got)
	}
}

// The flow that the SDK's packages pass straight against the host, they pass through Sandman, too.
func TestSDK_flowPassesThroughSandman(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	for _, version := range []string{sdk.Latest, sdk.Version} {
		t.Run(version, func(t *testing.T) {
			sdk.Run(t, version, sdk.Host{APIURL: s.api, SandboxURL: s.data, APIKey: apiKey})
		})
	}
}

// As against E2B itself, the SDK finds each sandbox by a name of its own, over TLS and HTTP/2, under the
// domain that it was told when the sandbox was made. It is the only way that old versions know.
func TestSDK_flowPassesByNamesOverTLS(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	s := start(t, options{caddyfile: strings.NewReplacer(
		"persist_config off", ownCertificates,
		"domain localhost:{$SANDMAN_PORT:8080}", fmt.Sprintf("domain e2b.test:%d", port),
		"http://:{$SANDMAN_PORT:8080} {", fmt.Sprintf("https://*.e2b.test:%d {\n\tbind 127.0.0.1\n\ttls internal\n\tsandman_proxy\n}\n\nhttp://:{$SANDMAN_PORT:8080} {", port),
	)})
	root := filepath.Join(filepath.Dir(s.dir), "caddy/pki/authorities/local/root.crt")
	env := []string{"NODE_EXTRA_CA_CERTS=" + root, "NODE_OPTIONS=--import=" + filepath.Join(repository, "test/sdk/resolve.mjs")}
	for _, version := range []string{sdk.Latest, sdk.Beta} {
		t.Run(version, func(t *testing.T) {
			t.Log(s.node(t, env, "flow.mjs", version))
		})
	}
}

// node runs a script with the SDK's packages, pointed at Sandman, and returns its standard output. With
// no names of their own its sandboxes are found by headers.
func (s *sandman) node(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", args...)
	cmd.Dir = filepath.Join(repository, "test/sdk") // where its node_modules are
	cmd.Env = append(os.Environ(), "E2B_API_KEY="+apiKey, "E2B_API_URL="+s.api)
	if env == nil {
		env = []string{"E2B_SANDBOX_URL=" + s.data}
	}
	cmd.Env = append(cmd.Env, env...)
	var errors strings.Builder
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s%s", err, out, errors.String())
	}
	return string(out)
}
