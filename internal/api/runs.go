package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sandman-proxy/sandman/internal/session"
)

type runsInput struct {
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"500" doc:"At most so many."`
	Before string `query:"before" maxLength:"128" pattern:"^[0-9]{13,}-(sweep|pass)-.+$" patternDescription:"the id of a run" doc:"Only those before this one: next of the page before."`
}

type runsOutput struct {
	Body runsBody
}

type runsBody struct {
	Runs []run `json:"runs" nullable:"false"`
	// SuccessRate is over all that are kept, not over the page.
	SuccessRate float64 `json:"successRate" doc:"The part of what all kept runs tried that did not fail: 1 where nothing was tried."`
	Next        string  `json:"next,omitempty" doc:"Where the next page begins, for before. Absent on the last page."`
}

type run struct{ session.Run }

// TransformSchema adds the descriptions.
func (run) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	describe(s, map[string]string{
		"id":         "In the order of their starts.",
		"kind":       "sweep: every record was compared with its host's list. pass: what came due within a minute.",
		"node":       "Who led.",
		"startedAt":  "When it began.",
		"durationMs": "How long it took; a pass from its first to its last sandbox.",
		"looked":     "How many sandboxes were looked at.",
		"paused":     "How many were put to sleep, or found asleep at their host.",
		"resumed":    "How many were found to run at their host.",
		"killed":     "How many were found to be gone at their host.",
		"failed":     "How many of these changes, or hosts' lists, failed.",
		"errors":     "What failed, each once.",
	})
	s.Properties["kind"].Enum = []any{string(session.RunSweep), string(session.RunPass)}
	s.Properties["errors"].Nullable = false
	return s
}

func (s *server) addRuns() {
	add(s, RoleViewer, huma.Operation{
		OperationID: "list-runs", Method: http.MethodGet, Path: "/runs",
		Summary:     "What the pauser has done",
		Description: "The newest first; the last 500 are kept. Not for tokens that are bound to an owner.",
	}, s.runs)
}

func (s *server) runs(ctx context.Context, who Token, in *runsInput) (*runsOutput, error) {
	if who.Owner != "" {
		return nil, newProblem(http.StatusForbidden, "forbidden", fmt.Sprintf("The token %q is bound to one owner, and runs are about all.", who.Name))
	}
	all, err := s.Reader.LeaderRuns(ctx)
	if err != nil {
		return nil, err
	}
	body := runsBody{Runs: []run{}, SuccessRate: successRate(all)}
	for _, r := range all {
		if in.Before != "" && r.ID >= in.Before {
			continue
		}
		if len(body.Runs) == in.Limit {
			body.Next = body.Runs[in.Limit-1].ID
			break
		}
		if r.Errors == nil {
			r.Errors = []string{}
		}
		body.Runs = append(body.Runs, run{r})
	}
	return &runsOutput{Body: body}, nil
}

func successRate(all []session.Run) float64 {
	tried, failed := 0, 0
	for _, r := range all {
		tried += r.Tried()
		failed += r.Failed
	}
	if tried == 0 {
		return 1
	}
	return float64(tried-failed) / float64(tried)
}
