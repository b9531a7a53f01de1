// Package e2e_test drives the built binary as a user does: through HTTP and the SDK, with the
// repository's Caddyfile, a real etcd and real processes. It knows nothing of the code's inside.
package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// repository is the root of the checkout, and the others what TestMain has built.
var repository, sandmanBinary, sandboxdBinary, appBinary, etcdBinary string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	bin, err := os.MkdirTemp("", "sandman-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(bin)
	if repository, err = filepath.Abs("../.."); err != nil {
		return 1, err
	}
	sandmanBinary = filepath.Join(bin, "sandman")
	sandboxdBinary = filepath.Join(bin, "sandboxd")
	appBinary = filepath.Join(bin, "app")
	etcdBinary = filepath.Join(bin, "etcd")
	if err := build(bin); err != nil {
		return 1, err
	}
	if _, err := openAPI(); err != nil {
		return 1, fmt.Errorf("reading the API's own description: %w", err)
	}
	return m.Run(), nil
}

// build leaves the programs in the folder bin. SANDMAN_E2E_RACE puts the race detector into Sandman
// and its host, whose reports then fail the test that caused them.
func build(bin string) error {
	args := []string{"build", "-o", bin + string(filepath.Separator)}
	if os.Getenv("SANDMAN_E2E_RACE") != "" {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/sandman", "./cmd/sandboxd", "./test/e2e/app", "./test/e2e/etcd")...)
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building what the tests drive: %w\n%s", err, out)
	}
	return nil
}
