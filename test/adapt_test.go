package test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/sandman-proxy/sandman/caddymodule"
)

var update = flag.Bool("update", false, "write the golden files anew")

const divider = "\n----------\n"

// Each golden is a Caddyfile, a line of dashes, and the JSON that it means or
// the error that it is, with file and line.
func TestCaddyfile_adaptsAsTheGoldensSay(t *testing.T) {
	goldens, err := filepath.Glob(filepath.Join(repository(t), "test", "caddyfile_adapt", "*.caddyfiletest"))
	if err != nil || len(goldens) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	t.Setenv("HOME", t.TempDir())
	t.Chdir(t.TempDir())
	for _, name := range goldens {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".caddyfiletest"), func(t *testing.T) {
			compareGolden(t, name)
		})
	}
}

func compareGolden(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	input, want, ok := strings.Cut(string(content), divider)
	if !ok && !*update {
		t.Fatalf("%s has no line of ten dashes", path)
	}
	input = strings.TrimSuffix(input, "\n") + "\n"
	if formatted := string(caddyfile.Format([]byte(input))); formatted != input {
		t.Errorf("%s is not as `caddy fmt` would have it", path)
	}
	got := adapt(t, input)
	if *update {
		if err := os.WriteFile(path, []byte(strings.TrimSuffix(input, "\n")+divider+got+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("%s means\n%s\nbut the golden says\n%s", path, got, want)
	}
}

// repository gives the folder of the checkout, before a test leaves it.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// adapt gives the indented JSON, or the error's text.
func adapt(t *testing.T, input string) string {
	t.Helper()
	out, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err.Error()
	}
	for _, w := range warnings {
		t.Errorf("warning: %s", w)
	}
	var v any
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatal(err)
	}
	indented, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	return string(indented)
}

func TestCaddyfile_theQuickStartIsFormattedAndAdapts(t *testing.T) {
	path := filepath.Join(repository(t), "Caddyfile")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(caddyfile.Format(content)) != string(content) {
		t.Errorf("%s is not as `caddy fmt` would have it", path)
	}
	t.Chdir(t.TempDir())
	if got := adapt(t, string(content)); !strings.Contains(got, `"protocol": "sandman"`) {
		t.Errorf("the quick start adapts to\n%s", got)
	}
}
