package cli

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// transition is a line of a sandbox's history.
type transition struct {
	At     time.Time `json:"at"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason"`
}

func (t tool) addShow(parent *cobra.Command) {
	cmd := t.add(parent, "show <id> [flags]", "Shows a sandbox and what became of it",
		"Looking at a sandbox neither wakes it nor counts as use. With --json it is the sandbox as the API shows it, without its history.",
		"  sandman sandbox show i4iqeeqsdwjexhv2us927", oneID)
	lines := cmd.Flags().Int("history", 5, "so many lines of its history, the newest first")
	noFiles(cmd, "history")
	completesIDs(cmd, false, append(slices.Clone(living), killed)...)
	t.does(cmd, func(r *run, args []string) error {
		if *lines < 0 || *lines > pageSize {
			return failf(ExitUsage, "--history is %d, and should be 0 to %d", *lines, pageSize)
		}
		answer, err := r.get(args[0])
		if err != nil {
			return err
		}
		if r.json {
			r.printJSON(answer.body)
			return nil
		}
		var sb sandbox
		if err := answer.decode(&sb); err != nil {
			return err
		}
		r.showSandbox(&sb, answer.now)
		return r.showHistory(args[0], *lines, answer.now)
	})
}

func (r *run) showSandbox(sb *sandbox, now time.Time) {
	fmt.Fprintf(r.out, "%s  %s for %s: %s\n\n", r.colour.paint(bold, clean(sb.SandboxID)),
		r.colour.paint(styleOf(sb.State), word(sb.State)), span(now.Sub(sb.Since)), clean(sb.Reason))
	var tab table
	for _, line := range sb.details(now) {
		if line[1] != "" {
			tab.add(cell{"  " + line[0], dim}, text(line[1]))
		}
	}
	_, _ = r.out.Write(tab.render(r.colour))
}

// details are names and values; what is empty is not shown.
func (s *sandbox) details(now time.Time) [][2]string {
	used, failed, streams, metadata := "", "", "", make([]string, 0, len(s.Metadata))
	if s.LastActivity != nil {
		used = ago(*s.LastActivity, now)
		switch s.ActivityKind {
		case "":
		case "adopted": // what Sandman itself has noted
			used = "not since it was first seen, " + used
		default:
			used += ": " + s.ActivityKind
		}
	}
	if s.LastError != nil {
		failed = fmt.Sprintf("%s, %s: %s", s.LastError.Op, ago(s.LastError.At, now), s.LastError.Message)
	}
	if o := s.OpenStreams; o != nil && o.Active+o.Dormant+o.Parked > 0 {
		streams = fmt.Sprintf("%d active, %d dormant, %d parked", o.Active, o.Dormant, o.Parked)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Metadata)) {
		metadata = append(metadata, name+"="+s.Metadata[name])
	}
	timeout := s.IdleTimeout
	if s.IdleTimeoutFrom != "" && s.IdleTimeoutFrom != "sandbox" {
		timeout += " (of the " + s.IdleTimeoutFrom + ")"
	}
	return [][2]string{
		{"sleeps", s.outlook(now)},
		{"last used", used},
		{"last error", failed},
		{"streams", streams},
		{"idle timeout", timeout},
		{"wake policy", s.WakePolicy},
		{"owner", s.Owner},
		{"project", s.Project},
		{"template", s.Template},
		{"metadata", strings.Join(metadata, ", ")},
		{"host", s.Host},
		{"known for", span(now.Sub(s.CreatedAt))},
		{"up to its last change", fmt.Sprintf("ran %s, slept %s; %s, %s", span(millis(s.Totals.RunningMs)), span(millis(s.Totals.PausedMs)),
			plural(s.Totals.Pauses, "pause"), plural(s.Totals.Wakes, "wake"))},
	}
}

func (r *run) showHistory(id string, lines int, now time.Time) error {
	if lines == 0 {
		return nil
	}
	answer, err := r.ask(request{
		method: http.MethodGet, path: sandboxPath(id, "history"), query: url.Values{"limit": {strconv.Itoa(lines)}}, sandbox: id,
	}, "")
	if err != nil {
		return err
	}
	var told struct {
		History []transition `json:"history"`
	}
	if err := answer.decode(&told); err != nil || len(told.History) == 0 {
		return err
	}
	var tab table
	for _, h := range told.History {
		tab.add(cell{"  " + ago(h.At, now), dim}, cell{word(h.To), styleOf(h.To)}, text(h.Reason))
	}
	fmt.Fprintln(r.out)
	_, _ = r.out.Write(tab.render(r.colour))
	return nil
}
