package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

type statusOutput struct {
	Body statusBody
}

type statusBody struct {
	Summary string  `json:"status" enum:"ok,degraded" doc:"degraded: something of what follows does not work."`
	Version string  `json:"version" doc:"Sandman's own."`
	Token   bearing `json:"token" doc:"The token that asks."`
	Status
}

// bearing is what a token's bearer may know of it, so that programs can offer
// only what it may do.
type bearing struct {
	Name  string `json:"name" doc:"As in the configuration."`
	Role  Role   `json:"role" enum:"viewer,operator,admin" doc:"What it may do."`
	Owner string `json:"owner,omitempty" doc:"The only owner whose sandboxes it sees. Absent: it sees all."`
}

func (s *server) addStatus() {
	add(s, RoleViewer, huma.Operation{
		OperationID: "status", Method: http.MethodGet, Path: "/status",
		Summary:     "How Sandman is doing",
		Description: "Answers 200 also while the store or a host is out of reach, and says so.",
	}, s.status)
}

func (s *server) status(ctx context.Context, who Token, _ *struct{}) (*statusOutput, error) {
	body := statusBody{Summary: "ok", Version: s.Version, Token: bearing{who.Name, who.Role, who.Owner}, Status: s.Reader.Status(ctx)}
	if !body.healthy() {
		body.Summary = "degraded"
	}
	if body.Hosts == nil {
		body.Hosts = []HostHealth{}
	}
	if who.Owner != "" { // how many there are is not for one of many owners to know
		body.Sandboxes, body.BrokenRecords = nil, 0
	}
	return &statusOutput{Body: body}, nil
}

func (s Status) healthy() bool {
	for _, h := range s.Hosts {
		if !h.OK {
			return false
		}
	}
	return s.Store.OK && s.Leader.Node != "" && s.BrokenRecords == 0
}
