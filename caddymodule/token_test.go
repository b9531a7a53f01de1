package caddymodule

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandman-proxy/sandman/internal/api"
)

func TestToken_generateMakesASecretOnceForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	generate := Token{Name: "admin", Role: "admin", Secret: "generate"}
	first, err := generate.resolve(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := generate.resolve(dir)
	if err != nil || second != first {
		t.Errorf("a second start has token %+v, %v; the first had %+v", second, err, first)
	}
	path := filepath.Join(dir, "token")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	secret, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if hash, err := api.HashSecret(strings.TrimSpace(string(secret))); err != nil || hash != first.Hash {
		t.Errorf("the file's secret is not the token's: %v", err)
	}
}

func TestToken_refusesWhatIsNoSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{"an empty file": "generate", "half a hash": "sha256:abcd", "nothing": ""} {
		if _, err := (Token{Name: "x", Role: "admin", Secret: secret}).resolve(dir); err == nil {
			t.Errorf("%s was taken for a secret", name)
		}
	}
}
