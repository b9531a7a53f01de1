package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sandman-proxy/sandman/internal/session"
)

// PolicyReader tells the policies.
type PolicyReader interface {
	// Policies gives all of them, by name.
	Policies(ctx context.Context) (Policies, error)
	// Policy gives one, or [ErrNoPolicy].
	Policy(ctx context.Context, scope session.Scope, name string) (session.Policy, error)
}

// ErrForeignProject: who is bound to an owner may neither bring a sandbox under
// the policy of a project in which that owner has none, and so come to know of
// it, nor take one out from under a project's policy.
var ErrForeignProject = errors.New("the project's policy is not this owner's to choose")

// PolicyActor changes policies. What it changes holds at once.
type PolicyActor interface {
	// SetPolicy stores a policy. With a Revision other than 0 it fails with
	// session.ErrConflict unless there is one of that revision, or none if that
	// is negative. An idle timeout that could not hold is a [LimitError].
	SetPolicy(ctx context.Context, scope session.Scope, name string, p session.Policy) (session.Policy, error)
	// DeletePolicy deletes one, of the revision ifMatch if that is not 0.
	DeletePolicy(ctx context.Context, scope session.Scope, name string, ifMatch int64) error
}

// ErrNoPolicy: there is no policy of this owner or project.
var ErrNoPolicy = errors.New("no such policy")

// Policies are all that decides over the settings of sandboxes that have none
// of their own.
type Policies struct {
	Owners      []NamedPolicy    `json:"owners" nullable:"false" doc:"By name."`
	Projects    []NamedPolicy    `json:"projects" nullable:"false" doc:"By name. What a project says weighs more than what an owner says."`
	IdleTimeout session.Duration `json:"idleTimeout" doc:"What holds where nobody says anything: the configuration's."`
	Limits      Limits           `json:"limits" doc:"The operator's. Whatever is set, it holds within these."`
}

// NamedPolicy is a policy and whose it is.
type NamedPolicy struct {
	Name string `json:"name" doc:"The owner or project."`
	session.Policy
}

// Limits are what an idle timeout may be.
type Limits struct {
	MinIdleTimeout session.Duration  `json:"minIdleTimeout" doc:"The shortest."`
	MaxIdleTimeout *session.Duration `json:"maxIdleTimeout" nullable:"true" doc:"The longest; null: there is none."`
}

func (l Limits) String() string {
	if l.MaxIdleTimeout == nil {
		return "at least " + l.MinIdleTimeout.String()
	}
	return l.MinIdleTimeout.String() + " to " + l.MaxIdleTimeout.String()
}

// LimitError says that an idle timeout could not hold.
type LimitError struct {
	Field  string
	Asked  session.Duration
	Limits Limits
	Whose  session.Source // FromOwner, FromProject: by their policy; else the operator's
}

func (e *LimitError) Error() string {
	whose := "the operator's limits"
	if e.Whose == session.FromOwner || e.Whose == session.FromProject {
		whose = "the limits of its " + string(e.Whose)
	}
	return fmt.Sprintf("%s is beyond %s: want %s", e.Asked, whose, e.Limits)
}

func (e *LimitError) problem() *Problem {
	p := newProblem(http.StatusUnprocessableEntity, "invalid", "body."+e.Field+": "+e.Error())
	p.Errors = []FieldError{{Location: "body." + e.Field, Message: e.Error()}}
	return p
}

func (s *server) addPolicies() {
	add(s, RoleOperator, huma.Operation{
		OperationID: "list-policies", Method: http.MethodGet, Path: "/policies",
		Summary:     "What owners and projects have set for their sandboxes",
		Description: "A sandbox goes by its own settings, else by its project's policy, else by its owner's, else by the configuration, always within the limits.",
	}, s.listPolicies)
	for scope, of := range map[session.Scope]string{session.ScopeOwner: "owner", session.ScopeProject: "project"} {
		s.addPolicy(scope, of)
	}
}

func (s *server) addPolicy(scope session.Scope, of string) {
	path := "/policies/" + string(scope) + "/{name}"
	add(s, RoleOperator, huma.Operation{
		OperationID: "get-" + of + "-policy", Method: http.MethodGet, Path: path,
		Summary: "What holds for the sandboxes of one " + of, Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, who Token, in *PolicyName) (*policyOutput, error) {
		return s.policy(ctx, who, scope, in.Name)
	})
	add(s, RoleAdmin, huma.Operation{
		OperationID: "set-" + of + "-policy", Method: http.MethodPut, Path: path,
		Summary:     "Set what holds for the sandboxes of one " + of,
		Description: "In the place of the whole policy. It holds at once, for what runs already, too.",
		Errors: []int{
			http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge,
		},
	}, func(ctx context.Context, who Token, in *policyPutInput) (*policyOutput, error) {
		return s.setPolicy(ctx, who, scope, in)
	})
	add(s, RoleAdmin, huma.Operation{
		OperationID: "delete-" + of + "-policy", Method: http.MethodDelete, Path: path,
		Summary: "Go back to the defaults for the sandboxes of one " + of,
		Errors:  []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed},
	}, func(ctx context.Context, who Token, in *PolicyCondition) (*struct{}, error) {
		return nil, s.deletePolicy(ctx, who, scope, in)
	})
}

// PolicyName is the part of a request that says whose policy it is for.
type PolicyName struct {
	Name string `path:"name" maxLength:"256" doc:"The owner or project."`
}

// PolicyCondition is that with a condition.
type PolicyCondition struct {
	PolicyName
	IfMatch string `header:"If-Match" doc:"An ETag of this policy: change it only if nobody else has."`
}

type policyPutInput struct {
	PolicyCondition
	Body policyBody
}

// policyBody is what a policy may say.
type policyBody struct {
	IdleTimeout    Optional[session.Duration] `json:"idleTimeout,omitzero"`
	MaxIdleTimeout Optional[session.Duration] `json:"maxIdleTimeout,omitzero"`
	WakePolicy     Optional[string]           `json:"wakePolicy,omitzero"`
}

// TransformSchema describes what can't be read from the fields' types.
func (policyBody) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Description = "What is absent or null is not said: then the next one's word holds."
	s.Properties["idleTimeout"] = durationOrNull("How long the sandboxes stay awake after their last use, where they don't say otherwise", "30m")
	s.Properties["maxIdleTimeout"] = durationOrNull("The longest idle timeout that one of them may have, whoever sets it (which no token may that is bound to an owner)", "2h")
	s.Properties["wakePolicy"] = wakePolicyOrNull("What may wake them, where they don't say otherwise.")
	return s
}

// Resolve checks what the schema can't say.
func (b *policyBody) Resolve(huma.Context) []error {
	errs := append(checkIdle("idleTimeout", b.IdleTimeout), checkIdle("maxIdleTimeout", b.MaxIdleTimeout)...)
	if most := b.MaxIdleTimeout.Value; most > 0 && b.IdleTimeout.Value > most {
		errs = append(errs, invalid("body.idleTimeout", fmt.Sprintf("%s is longer than the maxIdleTimeout of %s", b.IdleTimeout.Value, most)))
	}
	return append(errs, checkWake(b.WakePolicy)...)
}

type policyOutput struct {
	ETag string `header:"ETag" doc:"The policy's revision, for If-Match."`
	Body NamedPolicy
}

func newPolicyOutput(name string, p session.Policy) *policyOutput {
	return &policyOutput{ETag: strconv.Quote(strconv.FormatInt(p.Revision, 10)), Body: NamedPolicy{name, p}}
}

// TransformSchema adds the descriptions.
func (NamedPolicy) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return describe(s, map[string]string{
		"idleTimeout":    "How long its sandboxes stay awake after their last use. Absent: not said.",
		"maxIdleTimeout": "The longest idle timeout that one of them may have. Absent: the operator's limit alone.",
		"wakePolicy":     "What may wake them. Absent: not said.",
		"updatedAt":      "When it was set.",
		"updatedBy":      "Who set it.",
	})
}

// hidesPolicy tells whether the bearer may not know of a policy: one that is
// bound to an owner sees that owner's alone.
func (t Token) hidesPolicy(scope session.Scope, name string) bool {
	return t.Owner != "" && (scope != session.ScopeOwner || name != t.Owner)
}

func (s *server) listPolicies(ctx context.Context, who Token, _ *struct{}) (*policiesOutput, error) {
	all, err := s.Reader.Policies(ctx)
	if err != nil {
		return nil, err
	}
	hidden := func(scope session.Scope) func(NamedPolicy) bool {
		return func(p NamedPolicy) bool { return who.hidesPolicy(scope, p.Name) }
	}
	all.Owners = slices.DeleteFunc(all.Owners, hidden(session.ScopeOwner))
	all.Projects = slices.DeleteFunc(all.Projects, hidden(session.ScopeProject))
	return &policiesOutput{Body: all}, nil
}

type policiesOutput struct {
	Body Policies
}

func (s *server) policy(ctx context.Context, who Token, scope session.Scope, name string) (*policyOutput, error) {
	if who.hidesPolicy(scope, name) {
		return nil, ErrNoPolicy
	}
	p, err := s.Reader.Policy(ctx, scope, name)
	if err != nil {
		return nil, err
	}
	return newPolicyOutput(name, p), nil
}

func (s *server) setPolicy(ctx context.Context, who Token, scope session.Scope, in *policyPutInput) (*policyOutput, error) {
	if who.hidesPolicy(scope, in.Name) {
		return nil, ErrNoPolicy
	}
	revision, err := policyMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	p := session.Policy{
		IdleTimeout: in.Body.IdleTimeout.Value, MaxIdleTimeout: in.Body.MaxIdleTimeout.Value, WakePolicy: in.Body.WakePolicy.Value,
		UpdatedBy: by(who), Revision: revision,
	}
	if who.Owner != "" {
		if err := s.keepMost(ctx, who, scope, in.Name, &p); err != nil {
			return nil, err
		}
	}
	stored, err := s.Actor.SetPolicy(ctx, scope, in.Name, p)
	if err != nil {
		return nil, policyChanged(err)
	}
	return newPolicyOutput(in.Name, stored), nil
}

// keepMost keeps the owner's own token from its maxIdleTimeout, which is set for
// the owner and not by it. The policy that it was read from must still be there.
func (s *server) keepMost(ctx context.Context, who Token, scope session.Scope, name string, p *session.Policy) error {
	old, err := s.Reader.Policy(ctx, scope, name)
	if err != nil && !errors.Is(err, ErrNoPolicy) {
		return err
	}
	if p.Revision > 0 && p.Revision != old.Revision { // what was read here is not what the Txn compares
		return policyChanged(session.ErrConflict)
	}
	if p.MaxIdleTimeout != 0 && p.MaxIdleTimeout != old.MaxIdleTimeout {
		return newProblem(http.StatusForbidden, "forbidden", fmt.Sprintf("The token %q is bound to one owner, and can't set its maxIdleTimeout.", who.Name))
	}
	p.MaxIdleTimeout = old.MaxIdleTimeout
	p.Revision = cmp.Or(p.Revision, old.Revision, -1)
	return nil
}

func (s *server) deletePolicy(ctx context.Context, who Token, scope session.Scope, in *PolicyCondition) error {
	if who.hidesPolicy(scope, in.Name) {
		return ErrNoPolicy
	}
	revision, err := policyMatch(in.IfMatch)
	if err != nil {
		return err
	}
	if who.Owner != "" {
		p, err := s.Reader.Policy(ctx, scope, in.Name)
		if err != nil {
			return err
		}
		if p.MaxIdleTimeout != 0 {
			return newProblem(http.StatusForbidden, "forbidden", fmt.Sprintf("The token %q is bound to one owner, and can't take its maxIdleTimeout away. PUT a policy that says nothing.", who.Name))
		}
		if revision > 0 && revision != p.Revision {
			return policyChanged(session.ErrConflict)
		}
		revision = cmp.Or(revision, p.Revision)
	}
	return policyChanged(s.Actor.DeletePolicy(ctx, scope, in.Name, revision))
}

func policyMatch(header string) (int64, error) {
	revision, err := ifMatch(header)
	if err != nil {
		return 0, policyChanged(session.ErrConflict)
	}
	return revision, nil
}

// policyChanged makes a conflict the answer to If-Match.
func policyChanged(err error) error {
	if !errors.Is(err, session.ErrConflict) {
		return err
	}
	return newProblem(http.StatusPreconditionFailed, "changed", "The policy has changed since. GET it, and send the ETag of that answer.")
}

// checkIdle refuses an idle timeout that can't be meant.
func checkIdle(field string, d Optional[session.Duration]) []error {
	if !d.Set || d.Null || time.Duration(d.Value) >= session.MinIdleTimeout && time.Duration(d.Value) <= maxIdleTimeout {
		return nil
	}
	return []error{invalid("body."+field, fmt.Sprintf("%s is out of range: want %s to %s, or null for the default", d.Value, session.MinIdleTimeout, maxIdleTimeout))}
}

func checkWake(w Optional[string]) []error {
	if !w.Set || w.Null || slices.Contains(wakePolicies(), any(w.Value)) {
		return nil
	}
	return []error{invalid("body.wakePolicy", "want any, intent or manual, or null for the default")}
}
