package caddymodule

import (
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/sandman-proxy/sandman/internal/demo"
)

// demoCommand is the hidden command that the demo sandbox's editor is.
const demoCommand = "demo"

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  demoCommand,
		Short: "Runs the demo sandbox's web editor, inside a sandbox",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Hidden = true
			cmd.Args = cobra.NoArgs
			cmd.SilenceUsage = true
			port := cmd.Flags().Int("port", demoPort(), "the port to listen on, at SANDBOX_IP")
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				cfg, err := demo.FromEnvironment(*port)
				if err != nil {
					return err
				}
				ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
				defer stop()
				return demo.Run(ctx, cfg, cmd.OutOrStdout())
			}
		},
	})
}

// demoPort is the editor's port. Where sandboxes have no address of their own
// the usual one is likely to be Sandman's.
func demoPort() int {
	if runtime.GOOS == "linux" {
		return 8080
	}
	return 18080
}
