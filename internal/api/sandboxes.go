package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
)

type sandboxInput struct {
	ID string `path:"id" doc:"The sandbox's ID."`
}

type sandboxOutput struct {
	ETag string `header:"ETag" doc:"The record's revision, for If-Match. Activity does not change it."`
	Body Sandbox
}

func newSandboxOutput(sb Sandbox) *sandboxOutput {
	if sb.AwakeBecause == nil {
		sb.AwakeBecause = []string{}
	}
	if sb.Holds == nil {
		sb.Holds = []session.Hold{}
	}
	return &sandboxOutput{ETag: strconv.Quote(strconv.FormatInt(sb.Revision, 10)), Body: sb}
}

func (s *server) addSandboxes() {
	const one = "/sandboxes/{id}"
	add(s, RoleViewer, huma.Operation{
		OperationID: "list-sandboxes", Method: http.MethodGet, Path: "/sandboxes",
		Summary: "List sandboxes", Description: "In the order of their IDs.",
	}, s.list)
	add(s, RoleOperator, huma.Operation{
		OperationID: "add-sandbox", Method: http.MethodPost, Path: "/sandboxes", DefaultStatus: http.StatusCreated,
		Summary:     "Register or create a sandbox",
		Description: "With sandboxID one that a host knows is registered: 201, or 200 if it was registered already. With template a new one is made: 201.",
		Responses:   map[string]*huma.Response{"200": s.response("It was registered already", "application/json", reflect.TypeFor[Sandbox]())},
		Errors:      []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests, http.StatusBadGateway},
	}, s.addSandbox)
	add(s, RoleViewer, huma.Operation{
		OperationID: "get-sandbox", Method: http.MethodGet, Path: one,
		Summary: "Look at a sandbox", Errors: []int{http.StatusNotFound}, Metadata: badgeMay(maySee),
	}, s.get)
	add(s, RoleOperator, huma.Operation{
		OperationID: "update-sandbox", Method: http.MethodPatch, Path: one,
		Summary: "Change a sandbox's settings",
		Errors:  []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge},
	}, s.update)
	add(s, RoleAdmin, huma.Operation{
		OperationID: "kill-sandbox", Method: http.MethodDelete, Path: one,
		Summary: "End a sandbox for good", Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusBadGateway},
	}, s.kill)
	add(s, RoleOperator, huma.Operation{
		OperationID: "pause-sandbox", Method: http.MethodPost, Path: one + "/pause",
		Summary:     "Put a sandbox to sleep",
		Description: "Answers when it sleeps; 200 also if it slept already.",
		Errors:      []int{http.StatusNotFound, http.StatusConflict, http.StatusTooManyRequests, http.StatusBadGateway},
		Metadata:    badgeMay(mayPause),
	}, s.pause)
	add(s, RoleOperator, huma.Operation{
		OperationID: "resume-sandbox", Method: http.MethodPost, Path: one + "/resume",
		Summary:     "Wake a sandbox",
		Description: "Answers when it runs; 200 also if it ran already.",
		Errors:      []int{http.StatusNotFound, http.StatusConflict, http.StatusTooManyRequests, http.StatusBadGateway},
		Metadata:    badgeMay(mayResume),
	}, s.resume)
	add(s, RoleViewer, huma.Operation{
		OperationID: "sandbox-history", Method: http.MethodGet, Path: one + "/history",
		Summary: "What became of a sandbox, and why", Description: "The newest transition first.",
		Errors: []int{http.StatusNotFound},
	}, s.history)
}

// permit tells whether the bearer may know of the sandbox. What it may not
// know of looks like what does not exist.
func (s *server) permit(ctx context.Context, who Token, id string) error {
	if !e2b.ValidID(id) {
		return ErrNotFound
	}
	if who.seesAll() { // also what only a host knows yet
		return nil
	}
	_, err := s.look(ctx, who, id)
	return err
}

func (s *server) look(ctx context.Context, who Token, id string) (Sandbox, error) {
	if !e2b.ValidID(id) {
		return Sandbox{}, ErrNotFound
	}
	sb, err := s.Reader.Get(ctx, id)
	if err == nil && !who.sees(sb) {
		err = ErrNotFound
	}
	return sb, err
}

func (s *server) get(ctx context.Context, who Token, in *sandboxInput) (*sandboxOutput, error) {
	sb, err := s.look(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	return newSandboxOutput(sb), nil
}

type pauseInput struct {
	ID    string `path:"id" doc:"The sandbox's ID."`
	Force bool   `query:"force" doc:"End what is in flight instead of answering 409 when it takes too long."`
}

func (s *server) pause(ctx context.Context, who Token, in *pauseInput) (*sandboxOutput, error) {
	if err := s.permit(ctx, who, in.ID); err != nil {
		return nil, err
	}
	sb, _, err := s.Actor.Pause(ctx, in.ID, PauseOptions{Force: in.Force, By: by(who)})
	if err != nil {
		return nil, err
	}
	return newSandboxOutput(sb), nil
}

func by(who Token) string { return "token " + who.Name }

func (s *server) resume(ctx context.Context, who Token, in *sandboxInput) (*sandboxOutput, error) {
	if err := s.permit(ctx, who, in.ID); err != nil {
		return nil, err
	}
	sb, _, err := s.Actor.Resume(ctx, in.ID, by(who))
	if err != nil {
		return nil, err
	}
	return newSandboxOutput(sb), nil
}

func (s *server) kill(ctx context.Context, who Token, in *sandboxInput) (*struct{}, error) {
	if err := s.permit(ctx, who, in.ID); err != nil {
		return nil, err
	}
	return nil, s.Actor.Kill(ctx, in.ID, by(who))
}

type historyInput struct {
	ID     string `path:"id" doc:"The sandbox's ID."`
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"At most so many lines."`
	Before int64  `query:"before" minimum:"1" doc:"Only lines of smaller revisions: the last one's, for the next page."`

	State []string `query:"state" nullable:"false" enum:"RUNNING,PAUSING,PAUSED,RESUMING,KILLED" doc:"Only transitions to these states, separated by commas."`
	From  string   `query:"from" doc:"Only what took place then or later: a date such as 2026-11-24, in UTC, or a time."`
	To    string   `query:"to" doc:"Only what took place on this day or before, or before this time."`
}

type historyOutput struct {
	Body historyBody
}

type historyBody struct {
	History []HistoryLine `json:"history" nullable:"false"`
}

func (s *server) history(ctx context.Context, who Token, in *historyInput) (*historyOutput, error) {
	if _, err := s.look(ctx, who, in.ID); err != nil {
		return nil, err
	}
	asked, err := spanOf(in.From, in.To)
	if err != nil {
		return nil, err
	}
	q := HistoryQuery{Limit: in.Limit, Before: in.Before, To: statesOf(in.State), Since: asked.from, Until: asked.until}
	lines, err := s.Reader.History(ctx, in.ID, q)
	if err != nil {
		return nil, err
	}
	if lines == nil {
		lines = []HistoryLine{}
	}
	return &historyOutput{Body: historyBody{History: lines}}, nil
}

type listInput struct {
	State   []string `query:"state" nullable:"false" enum:"RUNNING,PAUSING,PAUSED,RESUMING,KILLED" doc:"Only these states, separated by commas."`
	Owner   string   `query:"owner" doc:"Only this owner's."`
	Project string   `query:"project" doc:"Only those of this project."`
	Host    string   `query:"host" doc:"Only those of this host."`
	Query   string   `query:"q" maxLength:"256" doc:"Only those that have this in their ID, owner, project, template or metadata."`
	Limit   int      `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"At most so many."`
	After   string   `query:"after" maxLength:"64" doc:"Only those behind this ID: next of the page before."`
}

type listOutput struct {
	Body listBody
}

type listBody struct {
	Sandboxes []Sandbox `json:"sandboxes" nullable:"false"`
	Next      string    `json:"next,omitempty" doc:"Where the next page begins, for after. Absent on the last page."`
}

func (s *server) list(ctx context.Context, who Token, in *listInput) (*listOutput, error) {
	f := Filter{Owner: in.Owner, Project: in.Project, Host: in.Host, Query: in.Query, Limit: in.Limit, After: in.After, Claimed: !who.seesAll()}
	f.States = statesOf(in.State)
	if who.Owner != "" {
		if in.Owner != "" && in.Owner != who.Owner {
			return &listOutput{Body: listBody{Sandboxes: []Sandbox{}}}, nil
		}
		f.Owner = who.Owner
	}
	page, err := s.Reader.List(ctx, f)
	if err != nil {
		return nil, err
	}
	body := listBody{Sandboxes: make([]Sandbox, 0, len(page.Sandboxes)), Next: page.Next}
	for _, sb := range page.Sandboxes {
		body.Sandboxes = append(body.Sandboxes, newSandboxOutput(sb).Body)
	}
	return &listOutput{Body: body}, nil
}

func statesOf(names []string) []session.State {
	if len(names) == 0 {
		return nil
	}
	states := make([]session.State, 0, len(names))
	for _, name := range names {
		states = append(states, session.State(name))
	}
	return states
}

// ifMatch reads the one revision that an If-Match header may name. An ETag
// that is none of ours matches nothing.
func ifMatch(header string) (revision int64, err error) {
	tag := strings.TrimSpace(header)
	if tag == "" || tag == "*" {
		return 0, nil
	}
	unquoted, err := strconv.Unquote(tag)
	if err == nil {
		revision, err = strconv.ParseInt(unquoted, 10, 64)
	}
	if err != nil || revision <= 0 {
		return 0, changed(fmt.Sprintf("If-Match: %s is no ETag of this API.", shorten(tag)))
	}
	return revision, nil
}

func changed(why string) *Problem {
	return newProblem(http.StatusPreconditionFailed, "changed", why+" GET the sandbox, and send the ETag of that answer.")
}
