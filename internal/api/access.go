package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// access is what a token's bearer may do, so that programs can offer only that.
type access struct {
	Name  string `json:"name" doc:"As in the configuration; of a badge token, that of the one that it was made with."`
	Role  Role   `json:"role" enum:"viewer,operator,admin" doc:"What it may do at most."`
	Owner string `json:"owner,omitempty" doc:"The only owner whose sandboxes it sees. Absent: it sees all."`

	SandboxID string     `json:"sandboxID,omitempty" doc:"Of a badge token: the only sandbox that it is for."`
	May       []string   `json:"may" nullable:"false" enum:"see,hold,pause,resume" doc:"What it may do to sandboxes, in a badge token's words."`
	ExpiresAt *time.Time `json:"expiresAt,omitempty" doc:"Of a badge token: when it ends."`
}

type accessOutput struct {
	Body access
}

func (s *server) addAccess() {
	add(s, RoleViewer, huma.Operation{
		OperationID: "token", Method: http.MethodGet, Path: "/token",
		Summary:     "What the token that asks may do",
		Description: "So that a page offers no button that would be refused.",
		Metadata:    badgeMay(maySee),
	}, s.access)
}

func (s *server) access(_ context.Context, who Token, _ *struct{}) (*accessOutput, error) {
	a := access{Name: who.Name, Role: who.Role, Owner: who.Owner, May: []string{maySee}}
	switch {
	case who.badge != nil:
		expires := who.badge.expires().UTC()
		a.SandboxID, a.May, a.ExpiresAt = who.badge.Sandbox, who.badge.May, &expires
	case who.Role.rank() >= RoleOperator.rank():
		a.May = append(a.May, mayHold, mayPause, mayResume)
	}
	return &accessOutput{Body: a}, nil
}
