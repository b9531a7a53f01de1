package cli

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// listPage is a page of the API's list. The sandboxes are kept as they came.
type listPage struct {
	Sandboxes []json.RawMessage `json:"sandboxes"`
	Next      string            `json:"next,omitempty"`
}

func (t tool) addList(parent *cobra.Command) {
	cmd := t.add(parent, "list [flags]", "Lists sandboxes",
		"In the order of their IDs, without those that were killed. With --json all are one object, as the API answers them: {\"sandboxes\":[…]}, with \"next\" where --limit has left some out.",
		`  sandman sandbox list --state PAUSED --owner alice
  sandman sandbox list --json`, noArgs)
	cmd.Aliases = []string{"ls"}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	f := filterFlags(cmd)
	states := cmd.Flags().StringSlice("state", nil, "only these states, separated by commas: RUNNING, PAUSING, PAUSED, RESUMING, KILLED")
	host := cmd.Flags().String("host", "", "only those of this sandbox host")
	search := cmd.Flags().String("search", "", "only those with this in ID, owner, project, template or metadata")
	all := cmd.Flags().Bool("all", false, "also those that were killed in the last 30 days")
	limit := cmd.Flags().Int("limit", 0, "at most so many; 0: all")
	after := cmd.Flags().String("after", "", "only those behind this ID, such as the \"next\" of a list before")
	noFiles(cmd, "state", append(slices.Clone(living), killed)...)
	for _, name := range []string{"host", "search", "limit", "after"} {
		noFiles(cmd, name)
	}
	t.does(cmd, func(r *run, _ []string) error {
		q := f.query()
		switch {
		case *limit < 0:
			return failf(ExitUsage, "--limit is %d, and should be 0 or more", *limit)
		case len(*states) > 0 && *all:
			return failf(ExitUsage, "%w", errors.New("--state and --all can't be had together: add KILLED to the states"))
		case len(*states) > 0:
			q.Set("state", strings.ToUpper(strings.Join(*states, ",")))
		case !*all:
			q.Set("state", strings.Join(living, ","))
		}
		set(q, "host", *host)
		set(q, "q", *search)
		set(q, "after", *after)
		page, now := listPage{Sandboxes: []json.RawMessage{}}, time.Now()
		next, err := r.client.list(r, q, *limit, func(raw []byte, at time.Time) error {
			page.Sandboxes, now = append(page.Sandboxes, raw), at
			return nil
		})
		if err != nil {
			return err
		}
		page.Next = next
		return r.showList(page, now)
	})
}

func (r *run) showList(page listPage, now time.Time) error {
	if r.json {
		b, err := json.Marshal(page)
		if err != nil {
			return failf(ExitError, "reading Sandman's answer: %w", err)
		}
		r.printJSON(b)
		return nil
	}
	tab := table{head: []string{"SANDBOX", "STATE", "FOR", "OWNER", "PROJECT", "TEMPLATE", "LAST USED", "SLEEPS"}}
	if r.width > 0 {
		tab.most = 40
	}
	for _, raw := range page.Sandboxes {
		var sb sandbox
		if err := (reply{body: raw}).decode(&sb); err != nil {
			return err
		}
		used := ""
		if sb.LastActivity != nil {
			used = ago(*sb.LastActivity, now)
		}
		tab.add(text(sb.SandboxID), cell{word(sb.State), styleOf(sb.State)}, text(span(now.Sub(sb.Since))),
			text(sb.Owner), text(sb.Project), text(sb.Template), text(used), text(sb.outlook(now)))
	}
	if len(tab.rows) == 0 {
		r.note("No sandbox. Make one with `sandman sandbox create`, or see the killed ones with --all.")
		return nil
	}
	_, _ = r.out.Write(tab.render(r.colour))
	if page.Next != "" {
		r.note("There are more: --after %s", page.Next)
	}
	return nil
}
