package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Command is one of the commands that the binary has.
type Command struct {
	Name, Usage, Short, Long string
	// Fill makes cmd the command.
	Fill func(cmd *cobra.Command, exit Exit)
}

// Exit gives the error whose command ends the process with a code, which is not
// 0. The command has told everything that there is to tell.
type Exit func(code int) error

// Commands returns all of them.
func Commands() []Command {
	return []Command{
		{"sandbox", "", "Lists, explains, pauses and resumes sandboxes", sandboxLong + environmentHelp, fillSandbox},
		{"status", "[--json]", "Tells how a running Sandman is doing", statusLong + seeAlso, fillStatus},
		{"savings", "[--from <date>] [--to <date>] [--group <by>] [--json]", "Tells what sleeping sandboxes have saved", savingsLong + seeAlso, fillSavings},
	}
}

const sandboxLong = `Works on the sandboxes of a running Sandman, through its API.`

// environmentHelp is what all commands have in common.
const environmentHelp = `

Where Sandman is, and what lets this command in, is in the environment:

  SANDMAN_URL    its address. Default: http://localhost:$SANDMAN_PORT, port 8080
  SANDMAN_TOKEN  a token. Default: what is in the file $SANDMAN_DATA/token,
                 or in ./.sandman/token
  NO_COLOR       if set, there are no colours. Without a terminal there are none

Exit codes:

    0  done
    1  it failed; of status: something does not work
    2  the command line is wrong
    3  there is no such sandbox, or it was killed
    4  refused: in use, changed meanwhile, no token, or one that may not
    5  Sandman, or what it needs, can't be reached now
  130  interrupted`

// helpTemplate is cobra's, and in the place of Caddy's footer the way to the
// whole.
const helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}`

const seeAlso = `

Where Sandman is, what lets this command in, and what the other exit codes are:
see sandman sandbox --help.`

const helpWidth = 80

// tool is what all commands share.
type tool struct{ exit Exit }

// setUp makes cmd and its children tell errors by this package.
func (t tool) setUp(cmd *cobra.Command) {
	cmd.SetHelpTemplate(helpTemplate)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return t.usage(cmd, err)
	})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.DisableFlagsInUseLine = true
}

func (t tool) usage(cmd *cobra.Command, err error) error {
	return t.end(cmd, failf(ExitUsage, "%w. See `%s --help`", err, cmd.CommandPath()))
}

// add gives parent a command that does what do does.
func (t tool) add(parent *cobra.Command, use, short, long, example string, args cobra.PositionalArgs) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: wrap(short+". "+long, helpWidth, ""), Example: example}
	cmd.SilenceErrors, cmd.SilenceUsage, cmd.DisableFlagsInUseLine = true, true, true
	t.checkArgs(cmd, args)
	parent.AddCommand(cmd)
	return cmd
}

func (t tool) checkArgs(cmd *cobra.Command, args cobra.PositionalArgs) {
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return t.usage(cmd, err)
		}
		return nil
	}
}

// does makes do what the command does. Every command has --json.
func (t tool) does(cmd *cobra.Command, do func(r *run, args []string) error) {
	asked := cmd.Flags().Bool("json", false, "print the API's JSON as it is, for programs")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		context.AfterFunc(ctx, stop) // a second Ctrl+C ends it at once
		r := newRun(ctx, cmd, *asked)
		var err error
		if r.client, err = newClient(os.Getenv); err == nil {
			err = do(r, args)
		}
		if lost := r.out.(*output).err; err == nil && lost != nil {
			err = failf(ExitError, "writing the output: %w", lost)
		}
		return t.end(cmd, err)
	}
}

// end tells of an error.
func (t tool) end(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	if silent, ok := errors.AsType[*silentError](err); ok {
		return t.exit(silent.code)
	}
	newRun(cmd.Context(), cmd, wantsJSON(cmd)).report(err)
	return t.exit(exitCode(err))
}

// wantsJSON is for errors of the command line itself, where flags may not have
// been read.
func wantsJSON(cmd *cobra.Command) bool {
	f := cmd.Flags().Lookup("json")
	return f != nil && f.Value.String() == "true"
}

// silentError ends a command that has told what is wrong.
type silentError struct{ code int }

func (e *silentError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// run is one command as it runs.
type run struct {
	ctx      context.Context // a run is one call of a command, and ends with it
	client   *client
	out, err io.Writer
	json     bool
	colour   painter // of out
	// width of out, 0 where it is no terminal
	width       int
	errTerminal bool
	errColour   painter
}

func newRun(ctx context.Context, cmd *cobra.Command, json bool) *run {
	r := &run{ctx: ctx, out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), json: json}
	fancy := os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	outTerminal, width := terminal(r.out)
	r.errTerminal, _ = terminal(r.err)
	r.width, r.out = width, &output{w: r.out}
	r.colour, r.errColour = painter(outTerminal && fancy), painter(r.errTerminal && fancy)
	r.errTerminal = r.errTerminal && os.Getenv("TERM") != "dumb"
	return r
}

// output remembers that something could not be written, such as to a full disk.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// terminal tells whether w is one, and how wide.
func terminal(w io.Writer) (yes bool, width int) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return false, 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 {
		width = 80
	}
	return true, width
}

// report shows an error.
func (r *run) report(err error) {
	if r.json {
		fmt.Fprintf(r.err, "%s\n", asJSON(err))
		return
	}
	said := strings.TrimSuffix(clean(err.Error()), ".") + "."
	fmt.Fprintf(r.err, "%s %s\n", r.errColour.paint(red, "Error:"), said)
}

// say shows a line to people. With --json there is nothing to say.
func (r *run) say(format string, args ...any) {
	if !r.json {
		fmt.Fprintf(r.out, format+"\n", args...)
	}
}

// printJSON prints what the API has answered.
func (r *run) printJSON(raw []byte) {
	fmt.Fprintf(r.out, "%s\n", raw)
}

// ask makes a request, and shows that it takes long if it does.
func (r *run) ask(req request, working string) (reply, error) {
	if working != "" {
		defer r.working(working)()
	}
	return r.client.call(r.ctx, req)
}

// note tells people what is no part of the output, so that a program that reads
// it does not stumble.
func (r *run) note(format string, args ...any) {
	if !r.json {
		fmt.Fprintln(r.err, r.errColour.paint(dim, fmt.Sprintf(format, args...)))
	}
}
