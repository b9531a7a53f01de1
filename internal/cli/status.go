package cli

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

const statusLong = `Tells how a running Sandman is doing: its store, its hosts, who leads.

Exit code 0 if everything works, 1 if something does not.`

type health struct {
	OK    bool   `json:"ok"`
	Error string `json:"error"`
}

// sandmanStatus is what people are shown of a Sandman.
type sandmanStatus struct {
	Summary string `json:"status"`
	Version string `json:"version"`
	Token   struct {
		Name  string `json:"name"`
		Role  string `json:"role"`
		Owner string `json:"owner"`
	} `json:"token"`
	Node   string `json:"node"`
	Leader struct {
		Node string `json:"node"`
		Me   bool   `json:"me"`
	} `json:"leader"`
	Store health `json:"store"`
	Hosts []struct {
		Name string `json:"name"`
		health
		Freezer string `json:"freezer"`
	} `json:"hosts"`
	Sandboxes     map[string]int `json:"sandboxes"`
	BrokenRecords int            `json:"brokenRecords"`
	Uptime        string         `json:"uptime"`
}

func fillStatus(cmd *cobra.Command, exit Exit) {
	t := tool{exit}
	t.setUp(cmd)
	t.checkArgs(cmd, noArgs)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.Example = "  sandman status"
	t.does(cmd, func(r *run, _ []string) error {
		answer, err := r.ask(request{method: http.MethodGet, path: "/status"}, "")
		if err != nil {
			return err
		}
		var s sandmanStatus
		if err := answer.decode(&s); err != nil {
			return err
		}
		if r.json {
			r.printJSON(answer.body)
		} else {
			r.showStatus(&s)
		}
		if s.Summary != "ok" {
			return &silentError{ExitError}
		}
		return nil
	})
}

func (r *run) showStatus(s *sandmanStatus) {
	summary := cell{"ok", green}
	if s.Summary != "ok" {
		summary = cell{clean(s.Summary), red}
	}
	fmt.Fprintf(r.out, "Sandman %s at %s: %s\n\n", clean(s.Version), r.client.base, r.colour.paint(summary.style, summary.text))
	var tab table
	add := func(name string, c cell) { tab.add(cell{"  " + name, dim}, c) }
	add("store", healthCell(s.Store, ""))
	for _, h := range s.Hosts {
		add("host "+clean(h.Name), healthCell(h.health, h.Freezer))
	}
	switch {
	case s.Leader.Node == "":
		add("leader", cell{"there is none: nothing is paused until there is", red})
	case s.Leader.Me:
		add("leader", text(s.Leader.Node+", which has answered"))
	default:
		add("leader", text(s.Leader.Node+"; "+s.Node+" has answered"))
	}
	if s.Sandboxes != nil {
		add("sandboxes", text(countStates(s.Sandboxes)))
	}
	if s.BrokenRecords > 0 {
		add("broken records", cell{fmt.Sprintf("%d, see the log", s.BrokenRecords), red})
	}
	if d, err := time.ParseDuration(s.Uptime); err == nil {
		add("up for", text(span(d)))
	}
	if t := s.Token; t.Name != "" {
		bound := ""
		if t.Owner != "" {
			bound = ", for what is " + t.Owner + "'s"
		}
		add("token", text(fmt.Sprintf("%s (%s%s), from %s", t.Name, t.Role, bound, r.client.tokenFrom)))
	}
	_, _ = r.out.Write(tab.render(r.colour))
}

func healthCell(h health, freezer string) cell {
	switch {
	case !h.OK:
		return cell{clean(h.Error), red}
	case freezer != "":
		return text("ok, pauses by " + freezer)
	default:
		return text("ok")
	}
}
