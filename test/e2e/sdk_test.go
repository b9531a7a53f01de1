package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	got := s.node(t, "--input-type=module", "--eval", pauseScript)
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
	got := s.node(t, "--input-type=module", "--eval", sleepScript)
	if want := `[false,true,"kept"]`; strings.TrimSpace(got) != want {
		t.Errorf("isRunning while asleep, same daemon, file: wanted %s, got %s", want, got)
	}
}

// The flow that the SDK's packages pass straight against the host, they pass through Sandman.
func TestSDK_flowPassesThroughSandman(t *testing.T) {
	t.Parallel()
	flows, _ := filepath.Glob(filepath.Join(repository, "test/sdk/flow*.mjs"))
	if len(flows) == 0 {
		t.Fatal("test/sdk holds no flow")
	}
	s := start(t, options{})
	for _, flow := range flows {
		t.Logf("%s:\n%s", flow, s.node(t, flow))
	}
}

// node runs a script with the SDK's packages, pointed at Sandman, and returns its standard output.
func (s *sandman) node(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", args...)
	cmd.Dir = filepath.Join(repository, "test/sdk") // where its node_modules are
	cmd.Env = append(os.Environ(), "E2B_API_KEY="+apiKey, "E2B_API_URL="+s.api, "E2B_SANDBOX_URL="+s.data)
	var errors strings.Builder
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s%s", err, out, errors.String())
	}
	return string(out)
}
