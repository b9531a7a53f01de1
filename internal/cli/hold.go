package cli

import (
	"errors"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// heldSandbox is a hold as the API shows it.
type heldSandbox struct {
	Name      string    `json:"name"`
	Reason    string    `json:"reason"`
	By        string    `json:"by"`
	ExpiresAt time.Time `json:"expiresAt"`
}

func (t tool) addHold(parent *cobra.Command) {
	cmd := t.add(parent, "hold <id> [flags]", "Keeps a sandbox awake for a time",
		"With --for the hold is put, or given another end: the sandbox is woken if it sleeps, and not paused before, unless by hand. With --end it is ended. With neither the sandbox's holds are listed. Holds have names, so that one does not end another.",
		`  sandman sandbox hold i4iqeeqsdwjexhv2us927 --for 2h --reason "training run"
  sandman sandbox hold i4iqeeqsdwjexhv2us927
  sandman sandbox hold i4iqeeqsdwjexhv2us927 --end`, oneID)
	var span length
	cmd.Flags().Var(&span, "for", "how long from now, such as 90m, 8h or 1d; at most seven days")
	reason := cmd.Flags().String("reason", "", "what for: people see it where they ask why")
	name := cmd.Flags().String("name", "cli", "the hold's name")
	end := cmd.Flags().Bool("end", false, "end the hold")
	for _, flag := range []string{"for", "reason", "name"} {
		noFiles(cmd, flag)
	}
	completesIDs(cmd, false, living...)
	t.does(cmd, func(r *run, args []string) error {
		asked := cmd.Flags().Changed("for")
		switch {
		case asked && *end:
			return failf(ExitUsage, "%w", errHoldBoth)
		case asked && span <= 0:
			return failf(ExitUsage, "--for is %s, and should be longer than nothing", time.Duration(span))
		case !holdName.MatchString(*name):
			return failf(ExitUsage, "%w", errHoldName)
		case asked:
			return r.putHold(args[0], *name, time.Duration(span), *reason)
		case *end:
			return r.endHold(args[0], *name)
		default:
			return r.showHolds(args[0])
		}
	})
}

var (
	holdName    = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)
	errHoldBoth = errors.New("--for and --end can't be had together")
	errHoldName = errors.New("--name should be 1 to 64 letters, digits, dots, - and _, and begin with no dot")
)

func (r *run) putHold(id, name string, span time.Duration, reason string) error {
	answer, err := r.ask(request{
		method: http.MethodPut, path: sandboxPath(id, "holds", name), sandbox: id, within: slowly,
		body: map[string]string{"for": span.String(), "reason": reason},
	}, "Keeping "+id+" awake")
	if err != nil {
		return err
	}
	if r.json {
		r.printJSON(answer.body)
		return nil
	}
	var h heldSandbox
	if err := answer.decode(&h); err != nil {
		return err
	}
	r.say("Sandbox %s is kept awake until %s, %s", r.colour.paint(bold, id), moment(h.ExpiresAt), until(h.ExpiresAt, answer.now))
	return nil
}

// moment is a time on the clock of who reads it.
func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// endHold asks first: the API ends what is not there, too, and a slip of the
// keyboard in its name would look like the end of a hold that goes on.
func (r *run) endHold(id, name string) error {
	_, told, err := r.holds(id)
	if err != nil {
		return err
	}
	if _, err := r.ask(request{method: http.MethodDelete, path: sandboxPath(id, "holds", name), sandbox: id}, ""); err != nil {
		return err
	}
	if !slices.ContainsFunc(told, func(h heldSandbox) bool { return h.Name == name }) {
		r.note("Sandbox %s has no hold %s: nothing is ended", id, clean(name))
		return nil
	}
	r.say("The hold %s of sandbox %s is ended", clean(name), r.colour.paint(bold, id))
	return nil
}

// holds gives the answer, and what is in it.
func (r *run) holds(id string) (answer reply, all []heldSandbox, err error) {
	answer, err = r.ask(request{method: http.MethodGet, path: sandboxPath(id, "holds"), sandbox: id}, "")
	if err != nil {
		return answer, nil, err
	}
	var told struct {
		Holds []heldSandbox `json:"holds"`
	}
	err = answer.decode(&told)
	return answer, told.Holds, err
}

func (r *run) showHolds(id string) error {
	answer, told, err := r.holds(id)
	if err != nil {
		return err
	}
	if r.json {
		r.printJSON(answer.body)
		return nil
	}
	tab := table{head: []string{"HOLD", "ENDS", "BY", "REASON"}}
	for _, h := range told {
		tab.add(text(h.Name), text(until(h.ExpiresAt, answer.now)), text(h.By), text(h.Reason))
	}
	if len(tab.rows) == 0 {
		r.note("No hold keeps sandbox %s awake. Put one with --for", id)
		return nil
	}
	_, _ = r.out.Write(tab.render(r.colour))
	return nil
}
