package caddymodule

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/sandman-proxy/sandman/internal/api"
)

// Token lets its bearer use the API.
type Token struct {
	// The name that histories show, one token each. Required.
	Name string `json:"name"`

	// What it allows: `viewer` (look), `operator` (also create, pause, resume,
	// change settings) or `admin` (also kill). Required.
	Role string `json:"role"`

	// The secret itself, or `sha256:` and the hex digest of it. `generate`
	// makes one at random and keeps it in the file `token` of the data folder,
	// readable by its owner only. Placeholders such as `{env.OPS_TOKEN}` are
	// replaced. Required.
	Secret string `json:"secret"`

	// Binds the token to an owner: it sees no other's sandboxes.
	// Default: it sees all.
	Owner string `json:"owner,omitempty"`
}

func (t Token) resolve(data string) (api.Token, error) {
	secret := caddy.NewReplacer().ReplaceAll(t.Secret, "")
	if secret == "generate" {
		var err error
		if secret, err = tokenFile(filepath.Join(data, "token")); err != nil {
			return api.Token{}, fmt.Errorf("token %q: %w", t.Name, err)
		}
	}
	hash, err := api.HashSecret(secret)
	if err != nil {
		return api.Token{}, fmt.Errorf("token %q: %w", t.Name, err)
	}
	return api.Token{Name: t.Name, Role: api.Role(t.Role), Owner: t.Owner, Hash: hash}, nil
}

// tokenFile reads the token kept in a file, and makes one where there is none.
func tokenFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if secret := strings.TrimSpace(string(b)); secret != "" {
			return secret, nil
		}
		return "", fmt.Errorf("file %s is empty: delete it to get a new token", path)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	var random [24]byte
	_, _ = rand.Read(random[:]) // never fails
	secret := hex.EncodeToString(random[:])
	err = writeSecret(path, secret+"\n")
	if errors.Is(err, os.ErrExist) { // another process was quicker
		return tokenFile(path)
	}
	return secret, err
}

// writeSecret makes a file that only its owner can read, whole or not at all: a
// part of a token, on a disk that is full, would be taken for one ever after.
func writeSecret(path, secret string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(secret)
	if err == nil {
		err = f.Sync() // a full disk may show only here
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	err = os.Link(f.Name(), path) // unlike a rename it replaces nothing
	if err != nil && !errors.Is(err, os.ErrExist) {
		err = os.Rename(f.Name(), path) // there are file systems without links
	}
	return err
}

// makeDataFolder makes the folder that nobody else may look into.
func makeDataFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	return nil
}
