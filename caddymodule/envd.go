package caddymodule

import (
	"os"
	// a static binary on a machine without time zones must run, too
	_ "time/tzdata"

	"github.com/spf13/cobra"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/sandman-proxy/sandman/internal/sandboxd"
)

// envdCommand is the hidden command that a local sandbox's daemon is.
const envdCommand = "envd"

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  envdCommand,
		Short: "Runs the daemon of one local sandbox",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Hidden = true
			cmd.DisableFlagParsing = true
			cmd.RunE = func(_ *cobra.Command, args []string) error {
				os.Exit(sandboxd.EnvdMain(args)) // its exit codes are its own
				return nil
			}
		},
	})
}
