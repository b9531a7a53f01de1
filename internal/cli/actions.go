package cli

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func (t tool) addCreate(parent *cobra.Command) {
	cmd := t.add(parent, "create <template> [flags]", "Makes a sandbox, or takes in one that a host has",
		"Its owner and project are read from its metadata. A token that is bound to an owner makes that owner's.",
		`  sandman sandbox create base --metadata userId=alice --metadata projectId=atlas
  sandman sandbox create base --env API_KEY
  sandman sandbox create --register i4iqeeqsdwjexhv2us927`,
		func(*cobra.Command, []string) error { return nil })
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	register := cmd.Flags().String("register", "", "take in the sandbox of this ID instead, which a host has made")
	metadata := cmd.Flags().StringArray("metadata", nil, "metadata, as name=value; may be given again")
	env := cmd.Flags().StringArray("env", nil, "an environment variable, as name=value, or as a name alone with the value\nthat it has here: what is secret has no place on a command line; may be given again")
	for _, name := range []string{"register", "metadata", "env"} {
		noFiles(cmd, name)
	}
	t.checkArgs(cmd, func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) > 1:
			return errors.New("one template was expected")
		case len(args) == 0 && *register == "":
			return errors.New("which template? Or give --register and an ID")
		case *register != "" && len(args)+len(*metadata)+len(*env) > 0:
			return errors.New("a sandbox that is registered has its template, metadata and environment already")
		case *register != "":
			return someIDs(nil, []string{*register})
		}
		return nil
	})
	t.does(cmd, func(r *run, args []string) error {
		body, err := newSandbox(args, *register, *metadata, *env)
		if err != nil {
			return err
		}
		answer, err := r.ask(request{method: http.MethodPost, path: "/sandboxes", body: body, sandbox: *register, within: slowly}, "Making a sandbox")
		if err != nil {
			return err
		}
		return r.showDone(answer, *register)
	})
}

func newSandbox(args []string, register string, metadata, env []string) (map[string]any, error) {
	if register != "" {
		return map[string]any{"sandboxID": register}, nil
	}
	body := map[string]any{"template": args[0]}
	for _, part := range []struct {
		flag, name string
		given      []string
		lookup     func(string) (string, bool)
	}{
		{"metadata", "metadata", metadata, func(string) (string, bool) { return "", false }},
		{"env", "envVars", env, os.LookupEnv},
	} {
		values := map[string]string{}
		for _, g := range part.given {
			name, value, ok := strings.Cut(g, "=")
			if !ok {
				value, ok = part.lookup(name)
			}
			if !ok || name == "" {
				return nil, failf(ExitUsage, "--%s %s has no value: give it as name=value%s", part.flag, name, map[string]string{"env": ", or set it here"}[part.flag])
			}
			values[name] = value
		}
		if len(values) > 0 {
			body[part.name] = values
		}
	}
	return body, nil
}

// showDone shows how a sandbox is after something was done to it. Id is "" for
// one that is new.
func (r *run) showDone(answer reply, id string) error {
	if r.json {
		r.printJSON(answer.body)
		return nil
	}
	var sb sandbox
	if err := answer.decode(&sb); err != nil {
		return err
	}
	whose := "Sandbox"
	if id == "" {
		whose = "Made sandbox"
	}
	r.say("%s %s: %s (%s)", whose, r.colour.paint(bold, clean(sb.SandboxID)), r.colour.paint(styleOf(sb.State), word(sb.State)), clean(sb.Reason))
	return nil
}

func (t tool) addPause(parent *cobra.Command) {
	cmd := t.add(parent, "pause <id>... [flags]", "Puts sandboxes to sleep",
		"Waits until they sleep; one that sleeps already stays as it is. What is in flight is waited for, and if that takes too long the pause is given up: exit code 4.",
		"  sandman sandbox pause i4iqeeqsdwjexhv2us927", someIDs)
	force := cmd.Flags().Bool("force", false, "cut off what is in flight instead of giving up")
	completesIDs(cmd, true, running, pausing)
	t.does(cmd, func(r *run, args []string) error {
		q := url.Values{}
		if *force {
			q.Set("force", "true")
		}
		return r.each(args, func(id string) error { return r.move(id, "pause", "Pausing "+id, q) })
	})
}

func (t tool) addResume(parent *cobra.Command) {
	cmd := t.add(parent, "resume <id>... [flags]", "Wakes sandboxes",
		"Waits until they run; one that runs already stays as it is. A resume counts as use: the idle time begins anew.",
		"  sandman sandbox resume i4iqeeqsdwjexhv2us927", someIDs)
	cmd.Aliases = []string{"wake"}
	completesIDs(cmd, true, paused, resuming, pausing)
	t.does(cmd, func(r *run, args []string) error {
		return r.each(args, func(id string) error { return r.move(id, "resume", "Waking "+id, nil) })
	})
}

// each does the same to several sandboxes, all of them, also where one fails.
// The exit code is the first failure's.
func (r *run) each(ids []string, do func(id string) error) error {
	code := ExitOK
	for _, id := range ids {
		err := do(id)
		if err == nil {
			continue
		}
		if code == ExitOK {
			code = exitCode(err)
		}
		r.report(err)
		if c := exitCode(err); c == ExitInterrupted || c == ExitUnreachable {
			break // it would not be better with the next
		}
	}
	if code != ExitOK {
		return &silentError{code}
	}
	return nil
}

func (r *run) move(id, how, working string, q url.Values) error {
	answer, err := r.ask(request{method: http.MethodPost, path: sandboxPath(id, how), query: q, sandbox: id, within: slowly}, working)
	if err != nil {
		return err
	}
	return r.showDone(answer, id)
}

func (t tool) addKill(parent *cobra.Command) {
	cmd := t.add(parent, "kill <id>... --yes [flags]", "Ends sandboxes for good",
		"All that is in them is lost. This takes an administrator's token, and --yes.",
		"  sandman sandbox kill i4iqeeqsdwjexhv2us927 --yes", someIDs)
	yes := cmd.Flags().Bool("yes", false, "yes, for good")
	completesIDs(cmd, true, living...)
	t.does(cmd, func(r *run, args []string) error {
		if !*yes {
			return failf(ExitUsage, "this would end %s for good, with all that is in it: if you mean it, add --yes", strings.Join(args, ", "))
		}
		return r.each(args, func(id string) error {
			if _, err := r.ask(request{method: http.MethodDelete, path: sandboxPath(id), sandbox: id, within: slowly}, "Killing "+id); err != nil {
				return err
			}
			r.say("Sandbox %s: %s", r.colour.paint(bold, id), r.colour.paint(dim, "killed"))
			return nil
		})
	})
}
