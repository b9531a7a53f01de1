package caddymodule

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/sandman-proxy/sandman/internal/cli"
)

// binaryName is that of xcaddy.sh and cmd/sandman. Help and completion name
// Caddy's binary unless they are told another name; who builds Caddy with this
// module under Caddy's own name keeps it.
const binaryName = "sandman"

// errFailed ends the process with code 1; what there is to tell has been told.
var errFailed = errors.New("failed")

func init() {
	if called := filepath.Base(os.Args[0]); caddy.CustomBinaryName == "" && strings.TrimSuffix(called, ".exe") == binaryName {
		caddy.CustomBinaryName = binaryName
	}
	for _, c := range cli.Commands() {
		caddycmd.RegisterCommand(caddycmd.Command{
			Name: c.Name, Usage: c.Usage, Short: c.Short, Long: c.Long,
			CobraFunc: func(cmd *cobra.Command) {
				c.Fill(cmd, func(code int) error { return exitWith(cmd, code) })
			},
		})
	}
}

// exitWith gives an error that ends the process with a code. Caddy has its own
// kind of error for that, which only a wrapped function gives, and only for
// codes above 1: that is what every other error ends with.
func exitWith(cmd *cobra.Command, code int) error {
	if code == cli.ExitError {
		return errFailed
	}
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
}
