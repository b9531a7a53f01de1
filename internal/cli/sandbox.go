package cli

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// The states of a sandbox, as the API names them.
const (
	running  = "RUNNING"
	pausing  = "PAUSING"
	paused   = "PAUSED"
	resuming = "RESUMING"
	killed   = "KILLED"
)

// sandbox is what people are shown of one.
type sandbox struct {
	SandboxID string            `json:"sandboxID"`
	Host      string            `json:"host"`
	Owner     string            `json:"owner"`
	Project   string            `json:"project"`
	Template  string            `json:"template"`
	Metadata  map[string]string `json:"metadata"`

	State  string    `json:"state"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`

	IdleTimeout     string    `json:"idleTimeout"`
	IdleTimeoutFrom string    `json:"idleTimeoutFrom"`
	WakePolicy      string    `json:"wakePolicy"`
	CreatedAt       time.Time `json:"createdAt"`

	LastActivity *time.Time `json:"lastActivity"`
	ActivityKind string     `json:"activityKind"`
	PauseAt      *time.Time `json:"pauseAt"`
	AwakeBecause []string   `json:"awakeBecause"`
	StoreAway    bool       `json:"storeAway"` // AwakeBecause says so

	LastError *struct {
		At      time.Time `json:"at"`
		Op      string    `json:"op"`
		Message string    `json:"message"`
	} `json:"lastError"`
	Totals struct {
		RunningMs int64 `json:"runningMs"`
		PausedMs  int64 `json:"pausedMs"`
		Pauses    int   `json:"pauses"`
		Wakes     int   `json:"wakes"`
	} `json:"totals"`
	OpenStreams *struct {
		Active  int `json:"active"`
		Dormant int `json:"dormant"`
		Parked  int `json:"parked"`
	} `json:"openStreams"`
}

// fillSandbox adds the commands below `sandbox`.
func fillSandbox(cmd *cobra.Command, exit Exit) {
	t := tool{exit}
	t.setUp(cmd)
	cmd.Aliases = []string{"sandboxes"}
	t.addList(cmd)
	t.addShow(cmd)
	t.addCreate(cmd)
	t.addPause(cmd)
	t.addResume(cmd)
	t.addHold(cmd)
	t.addWhy(cmd)
	t.addWatch(cmd)
	t.addKill(cmd)
	// without a command there is help, and an unknown one is an error
	t.checkArgs(cmd, func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(cmd, args[0])
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

func unknownCommand(cmd *cobra.Command, name string) error {
	meant := ""
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		meant = fmt.Sprintf(" (did you mean %s?)", strings.Join(near, " or "))
	}
	return fmt.Errorf("there is no command %q%s", name, meant)
}

var idPattern = regexp.MustCompile(`^[a-z0-9]{1,64}$`)

// oneID takes one sandbox's ID, before anything is asked of anybody.
func oneID(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return errors.New("which sandbox? Give its ID")
	case len(args) > 1:
		return fmt.Errorf("one ID was expected, and %d were given", len(args))
	}
	return someIDs(nil, args)
}

// someIDs takes at least one.
func someIDs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("which sandbox? Give its ID")
	}
	for _, id := range args {
		if !idPattern.MatchString(id) {
			return fmt.Errorf("%q is no sandbox's ID: it has 1 to 64 of a to z and 0 to 9", id)
		}
	}
	return nil
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q was not expected", args[0])
	}
	return nil
}

// get looks at a sandbox.
func (r *run) get(id string) (reply, error) {
	return r.ask(request{method: http.MethodGet, path: sandboxPath(id), sandbox: id}, "")
}

// word is how people say a state.
func word(state string) string {
	switch state {
	case pausing:
		return "pausing…"
	case resuming:
		return "waking…"
	default:
		return strings.ToLower(clean(state))
	}
}

func styleOf(state string) style {
	switch state {
	case running:
		return green
	case paused:
		return blue
	case pausing, resuming:
		return yellow
	default:
		return dim
	}
}

// outlook says what comes next, as far as it is known.
func (s *sandbox) outlook(now time.Time) string {
	switch {
	case s.PauseAt != nil:
		return until(*s.PauseAt, now)
	case s.State == running && s.StoreAway:
		return strings.Join(s.AwakeBecause, ", ")
	case s.State == running && len(s.AwakeBecause) > 0:
		return "not while: " + strings.Join(s.AwakeBecause, ", ")
	default:
		return ""
	}
}

// filter is what list and watch have in common.
type filter struct{ owner, project *string }

func filterFlags(cmd *cobra.Command) filter {
	f := filter{
		owner:   cmd.Flags().String("owner", "", "only this owner's"),
		project: cmd.Flags().String("project", "", "only those of this project"),
	}
	for _, name := range []string{"owner", "project"} {
		noFiles(cmd, name)
	}
	return f
}

// noFiles keeps the shell from offering files as a flag's value.
func noFiles(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	}) // fails where there is no such flag
}

func (f filter) query() url.Values {
	q := url.Values{}
	set(q, "owner", *f.owner)
	set(q, "project", *f.project)
	return q
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

// pageSize is the API's largest.
const pageSize = 1000

// list reads all sandboxes that match, up to limit of them, 0: all.
func (c *client) list(r *run, q url.Values, limit int, each func(raw []byte, now time.Time) error) (next string, err error) {
	q = maps.Clone(q)
	for seen := 0; ; {
		size := pageSize
		if limit > 0 {
			size = min(size, limit-seen)
		}
		q.Set("limit", strconv.Itoa(size))
		answer, err := c.call(r.ctx, request{method: http.MethodGet, path: "/sandboxes", query: q})
		if err != nil {
			return "", err
		}
		var page listPage
		if err := answer.decode(&page); err != nil {
			return "", err
		}
		for _, raw := range page.Sandboxes {
			if err := each(raw, answer.now); err != nil {
				return "", err
			}
		}
		seen += len(page.Sandboxes)
		if page.Next == "" || seen == limit || len(page.Sandboxes) == 0 {
			return page.Next, nil
		}
		q.Set("after", page.Next)
	}
}

func sandboxes(n int) string {
	if n == 1 {
		return "1 sandbox"
	}
	return fmt.Sprintf("%d sandboxes", n)
}

// countStates says how many sandboxes are in which state.
func countStates(n map[string]int) string {
	var parts []string
	for _, state := range append(slices.Clone(living), killed) {
		if n[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[state], word(state)))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// living are the states that a sandbox comes back from.
var living = []string{running, pausing, paused, resuming}
