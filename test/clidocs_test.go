package test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/sandman-proxy/sandman/internal/cli"
)

// The reference of the command line has prose, and between two marks what the
// commands say of themselves:
//
//	<!-- from sandman sandbox list --help -->
//	…
//	<!-- end -->
var helpMark = regexp.MustCompile(`(?s)<!-- from sandman ([a-z ]+) --help -->\n.*?<!-- end -->`)

func TestDocs_sayWhatTheHelpSays(t *testing.T) {
	t.Parallel()
	path := filepath.Join(repository(t), "docs", "cli.md")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	fresh := helpMark.ReplaceAllFunc(old, func(mark []byte) []byte {
		name := string(helpMark.FindSubmatch(mark)[1])
		seen = append(seen, name)
		return []byte("<!-- from sandman " + name + " --help -->\n```text\n" + help(t, name) + "```\n<!-- end -->")
	})
	for _, cmd := range commands(commandTree()) {
		if name := strings.TrimPrefix(cmd.CommandPath(), "sandman "); !slices.Contains(seen, name) {
			t.Errorf("there is a command %q, and docs/cli.md has no mark for it", name)
		}
	}
	requireFresh(t, path, old, fresh, "the commands say")
}

// commandTree is the binary's, as far as it is Sandman's.
func commandTree() *cobra.Command {
	root := &cobra.Command{Use: "sandman"}
	for _, c := range cli.Commands() {
		cmd := &cobra.Command{Use: strings.TrimSpace(c.Name + " " + c.Usage), Short: c.Short, Long: c.Long}
		c.Fill(cmd, func(int) error { return errors.New("failed") })
		root.AddCommand(cmd)
	}
	return root
}

// commands are all below a command.
func commands(parent *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, cmd := range parent.Commands() {
		all = append(append(all, cmd), commands(cmd)...)
	}
	return all
}

func help(t *testing.T, name string) string {
	t.Helper()
	var b bytes.Buffer
	root := commandTree()
	root.SetArgs(append(strings.Fields(name), "--help"))
	root.SetOut(&b)
	if err := root.Execute(); err != nil || b.Len() == 0 {
		t.Fatalf("sandman %s --help: %v", name, err)
	}
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ") // as editors leave it
	}
	return strings.Join(lines, "\n") + "\n"
}
