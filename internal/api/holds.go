package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sandman-proxy/sandman/internal/session"
)

const (
	// longestHold keeps a forgotten hold from costing more than a week.
	longestHold = 7 * 24 * time.Hour
	// shortestHold is what a lease can tell.
	shortestHold = time.Second
	// activityHold is the hold that an activity with a span becomes.
	activityHold = "activity"
)

var (
	// ErrNotRunning: the sandbox does not run, and is not to be woken for this.
	ErrNotRunning = errors.New("sandbox not running")
	// ErrTooManyHolds: the sandbox has as many as it may have.
	ErrTooManyHolds = errors.New("too many holds")
)

// HoldOptions are those of a hold.
type HoldOptions struct {
	Name   string
	For    time.Duration
	Reason string
	By     string // who asked, such as "token ops"
	// Wake has a sandbox woken that does not run; without it that is
	// [ErrNotRunning].
	Wake bool
}

type activityInput struct {
	ID   string `path:"id" doc:"The sandbox's ID."`
	Body activityBody
}

type activityBody struct {
	Kind string           `json:"kind" pattern:"^[a-z0-9-]{1,32}$" patternDescription:"1 to 32 of a to z, 0 to 9 and -" doc:"What is going on, such as build."`
	For  session.Duration `json:"for,omitempty" doc:"How long it goes on, such as 5m: a hold called activity (with a badge token: badge), at most 168h."`
}

// Resolve checks what the schema can't say.
func (a *activityBody) Resolve(huma.Context) []error {
	if a.For == 0 {
		return nil
	}
	return checkSpan(a.For)
}

func checkSpan(d session.Duration) []error {
	if span := time.Duration(d); span < shortestHold || span > longestHold {
		return []error{invalid("body.for", fmt.Sprintf("%s is out of range: want %s to %s", d, shortestHold, longestHold))}
	}
	return nil
}

type holdsOutput struct {
	Body holdsBody
}

type holdsBody struct {
	Holds []session.Hold `json:"holds" nullable:"false"`
}

type holdInput struct {
	ID   string `path:"id" doc:"The sandbox's ID."`
	Name string `path:"name" maxLength:"64" pattern:"^[A-Za-z0-9._-]+$" patternDescription:"letters, digits, dots, - and _" doc:"The hold's name."`
}

type putHoldInput struct {
	ID   string `path:"id" doc:"The sandbox's ID."`
	Name string `path:"name" maxLength:"64" pattern:"^[A-Za-z0-9._-]+$" patternDescription:"letters, digits, dots, - and _" doc:"The hold's name."`
	Body putHold
}

type putHold struct {
	For    session.Duration `json:"for" doc:"How long it holds from now on, such as 1h: at most 168h."`
	Reason string           `json:"reason,omitempty" maxLength:"256" doc:"What it is for."`
}

// Resolve checks what the schema can't say.
func (p *putHold) Resolve(huma.Context) []error { return checkSpan(p.For) }

type holdOutput struct {
	Body session.Hold
}

func (s *server) addHolds() {
	const one = "/sandboxes/{id}"
	add(s, RoleOperator, huma.Operation{
		OperationID: "sandbox-activity", Method: http.MethodPost, Path: one + "/activity", DefaultStatus: http.StatusNoContent,
		Summary:     "Tell that a sandbox is in use",
		Description: "For work that no traffic shows. It counts as a use now; with for it is a hold called activity (with a badge token: badge). It wakes nothing: 409 not-running.",
		Errors:      []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests, http.StatusBadGateway},
		Metadata:    badgeMay(mayHold),
	}, s.activity)
	add(s, RoleViewer, huma.Operation{
		OperationID: "list-holds", Method: http.MethodGet, Path: one + "/holds",
		Summary: "What keeps a sandbox awake by name", Errors: []int{http.StatusNotFound}, Metadata: badgeMay(maySee),
	}, s.holds)
	add(s, RoleViewer, huma.Operation{
		OperationID: "get-hold", Method: http.MethodGet, Path: one + "/holds/{name}",
		Summary: "Look at a hold", Errors: []int{http.StatusNotFound}, Metadata: badgeMay(maySee),
	}, s.hold)
	add(s, RoleOperator, huma.Operation{
		OperationID: "put-hold", Method: http.MethodPut, Path: one + "/holds/{name}",
		Summary: "Keep a sandbox awake",
		Description: "Until the hold expires or is ended. One of the same name is replaced. A sandbox that does not run is woken first; " +
			"with a badge token only if that may resume, else 409 not-running. A pause by hand is not held up.",
		Errors:   []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests, http.StatusBadGateway},
		Metadata: badgeMay(mayHold),
	}, s.putHold)
	add(s, RoleOperator, huma.Operation{
		OperationID: "end-hold", Method: http.MethodDelete, Path: one + "/holds/{name}",
		Summary: "End a hold", Description: "204 also if there was none of that name.",
		Errors: []int{http.StatusNotFound}, Metadata: badgeMay(mayHold),
	}, s.endHold)
}

func (s *server) activity(ctx context.Context, who Token, in *activityInput) (*struct{}, error) {
	if err := s.permit(ctx, who, in.ID); err != nil {
		return nil, err
	}
	if in.Body.For == 0 {
		return nil, s.Actor.Used(ctx, in.ID, in.Body.Kind)
	}
	name := activityHold
	if who.badge != nil { // its bearer has no hands on the holds of others
		name = badgeHold
	}
	_, err := s.Actor.Hold(ctx, in.ID, HoldOptions{Name: name, For: time.Duration(in.Body.For), Reason: in.Body.Kind, By: by(who)})
	return nil, err
}

func (s *server) holds(ctx context.Context, who Token, in *sandboxInput) (*holdsOutput, error) {
	sb, err := s.look(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	return &holdsOutput{Body: holdsBody{Holds: newSandboxOutput(sb).Body.Holds}}, nil
}

func (s *server) hold(ctx context.Context, who Token, in *holdInput) (*holdOutput, error) {
	sb, err := s.look(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	for _, h := range sb.Holds {
		if h.Name == in.Name {
			return &holdOutput{Body: h}, nil
		}
	}
	return nil, newProblem(http.StatusNotFound, "no-such-hold", fmt.Sprintf("The sandbox has no hold called %q.", in.Name))
}

func (s *server) putHold(ctx context.Context, who Token, in *putHoldInput) (*holdOutput, error) {
	if err := s.permitHold(ctx, who, in.ID, in.Name); err != nil {
		return nil, err
	}
	h, err := s.Actor.Hold(ctx, in.ID, HoldOptions{
		Name: in.Name, For: time.Duration(in.Body.For), Reason: in.Body.Reason, By: by(who),
		Wake: who.badge == nil || who.badge.may(mayResume),
	})
	if err != nil {
		return nil, err
	}
	return &holdOutput{Body: h}, nil
}

func (s *server) endHold(ctx context.Context, who Token, in *holdInput) (*struct{}, error) {
	if err := s.permitHold(ctx, who, in.ID, in.Name); err != nil {
		return nil, err
	}
	return nil, s.Actor.EndHold(ctx, in.ID, in.Name)
}

// permitHold is permit, and that a badge's bearer has no hands on the holds of
// others. Which there are is told to nobody who may not know of the sandbox.
func (s *server) permitHold(ctx context.Context, who Token, id, name string) error {
	if err := s.permit(ctx, who, id); err != nil {
		return err
	}
	if who.badge != nil && name != badgeHold {
		return newProblem(http.StatusForbidden, "forbidden", fmt.Sprintf("A badge token's own hold is called %q.", badgeHold))
	}
	return nil
}
