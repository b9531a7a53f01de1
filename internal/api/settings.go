package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
)

// maxIdleTimeout keeps a slip of the keyboard from meaning "for ever".
const maxIdleTimeout = 365 * 24 * time.Hour

type addInput struct {
	Key  string `header:"Idempotency-Key" maxLength:"255" doc:"The same key with the same body gets the same answer for 24 h, at any proxy: a request that may have been carried out can be repeated. An error is not kept. Of one token 20,000 are known at a time: above that a new one is answered 429 too-many-keys."`
	Body newSandbox
}

type newSandbox struct {
	SandboxID string            `json:"sandboxID,omitempty" pattern:"^[a-z0-9]{1,64}$" patternDescription:"an ID of 1 to 64 of a to z and 0 to 9" doc:"Register the sandbox that a host knows by this ID."`
	Template  string            `json:"template,omitempty" maxLength:"256" doc:"Create one from this template."`
	Metadata  map[string]string `json:"metadata,omitempty" dependentRequired:"template" doc:"With template: the new sandbox's metadata. Its owner and project are read from it."`
	EnvVars   map[string]string `json:"envVars,omitempty" dependentRequired:"template" doc:"With template: environment variables of the new sandbox."`
}

// Resolve checks what the schema can't say.
func (n *newSandbox) Resolve(huma.Context) []error {
	if (n.SandboxID == "") == (n.Template == "") {
		return []error{invalid("body", "give either sandboxID, to register a sandbox, or template, to create one")}
	}
	return nil
}

func invalid(location, message string) error {
	return &huma.ErrorDetail{Location: location, Message: message}
}

type addOutput struct {
	Status   int
	Location string `header:"Location" doc:"Where the sandbox is from now on."`
	ETag     string `header:"ETag"`
	Body     Sandbox
}

func (s *server) addSandbox(ctx context.Context, who Token, in *addInput) (*addOutput, error) {
	if in.Key == "" {
		return s.addOne(ctx, who, in.Body)
	}
	return s.once(ctx, who, in.Key, in.Body, func(ctx context.Context) (*addOutput, error) {
		return s.addOne(ctx, who, in.Body)
	})
}

func (s *server) addOne(ctx context.Context, who Token, n newSandbox) (*addOutput, error) {
	status := http.StatusCreated
	var sb Sandbox
	var err error
	if n.Template != "" {
		sb, err = s.Actor.Create(ctx, e2b.NewSandbox{TemplateID: n.Template, Metadata: n.Metadata, EnvVars: n.EnvVars}, who.Owner)
	} else {
		var created bool
		sb, created, err = s.Actor.Register(ctx, n.SandboxID, who.Owner)
		if !created {
			status = http.StatusOK
		}
	}
	if err != nil {
		return nil, err
	}
	return newAddOutput(status, sb), nil
}

func newAddOutput(status int, sb Sandbox) *addOutput {
	out := newSandboxOutput(sb)
	return &addOutput{Status: status, Location: prefix + "/sandboxes/" + sb.SandboxID, ETag: out.ETag, Body: out.Body}
}

type updateInput struct {
	ID      string `path:"id" doc:"The sandbox's ID."`
	IfMatch string `header:"If-Match" doc:"An ETag of this sandbox: change it only if nobody else has."`
	Body    Patch
}

// Resolve checks the settings.
func (p *Patch) Resolve(huma.Context) []error {
	return append(checkIdle("idleTimeout", p.IdleTimeout), checkWake(p.WakePolicy)...)
}

func (s *server) update(ctx context.Context, who Token, in *updateInput) (*sandboxOutput, error) {
	if err := s.permit(ctx, who, in.ID); err != nil {
		return nil, err
	}
	if o := in.Body.Owner; o.Set && who.Owner != "" && o.Value != who.Owner {
		return nil, newProblem(http.StatusForbidden, "forbidden", fmt.Sprintf("The token %q is bound to one owner, and can't give a sandbox to another.", who.Name))
	}
	revision, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	in.Body.By, in.Body.Bound = by(who), who.Owner
	sb, err := s.Actor.Update(ctx, in.ID, in.Body, revision)
	if revision != 0 && errors.Is(err, session.ErrConflict) {
		return nil, changed("The sandbox has changed since.")
	}
	if err != nil {
		return nil, err
	}
	return newSandboxOutput(sb), nil
}
