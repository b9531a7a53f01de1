package cli

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	// completeWithin is how long a shell waits at its prompt for IDs.
	completeWithin = 2 * time.Second
	completeMost   = 200
)

// completesIDs makes the shell offer the IDs of sandboxes in these states, each
// once, and several where the command takes several. Where Sandman does not
// answer nothing is offered: at a prompt there is no place for errors.
func completesIDs(cmd *cobra.Command, several bool, states ...string) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, given []string, part string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(given) > 0 && !several {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
		defer cancel()
		return offered(ctx, states, given, part), cobra.ShellCompDirectiveNoFileComp
	}
}

func offered(ctx context.Context, states, given []string, part string) []cobra.Completion {
	c, err := newClient(os.Getenv)
	if err != nil {
		return nil
	}
	q := url.Values{"state": {strings.Join(states, ",")}, "limit": {strconv.Itoa(completeMost)}}
	set(q, "after", part) // lists go by the ID: what begins with part comes first
	answer, err := c.call(ctx, request{method: http.MethodGet, path: "/sandboxes", query: q, within: completeWithin})
	if err != nil {
		return nil
	}
	var page struct {
		Sandboxes []sandbox `json:"sandboxes"`
	}
	if answer.decode(&page) != nil {
		return nil
	}
	var all []cobra.Completion
	for _, sb := range page.Sandboxes {
		if strings.HasPrefix(sb.SandboxID, part) && !slices.Contains(given, sb.SandboxID) {
			all = append(all, cobra.CompletionWithDesc(sb.SandboxID, sb.inShort()))
		}
	}
	return all
}

// inShort tells which one it is.
func (s *sandbox) inShort() string {
	words := []string{word(s.State)}
	for _, w := range []string{s.Template, s.Owner, s.Project} {
		if w != "" {
			words = append(words, clean(w))
		}
	}
	return strings.Join(words, ", ")
}
