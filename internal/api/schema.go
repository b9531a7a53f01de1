package api

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sandman-proxy/sandman/internal/session"
)

// Optional is a field of a patch: absent, null, or a value.
type Optional[T any] struct {
	Set   bool // it is there
	Null  bool // it is there and null; Value is zero then
	Value T
}

// UnmarshalJSON is called for a field that is there, be it null.
func (o *Optional[T]) UnmarshalJSON(b []byte) error {
	*o = Optional[T]{}
	if !bytes.Equal(b, []byte("null")) {
		if err := json.Unmarshal(b, &o.Value); err != nil {
			return err
		}
		o.Set = true
		return nil
	}
	o.Set, o.Null = true, true
	return nil
}

// Schema is T's, or null.
func (o Optional[T]) Schema(r huma.Registry) *huma.Schema {
	s := *r.Schema(reflect.TypeFor[T](), true, "")
	s.Nullable = true
	return &s
}

// TransformSchema describes what can't be read from the field's types. The
// schema of a value that may be null has a branch of type null, which the
// validator takes for "anything": [Patch.Resolve] tells good from bad.
func (Patch) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	length := maxName
	s.Description = "Settings to change. What is absent stays; null takes a setting back to its default."
	s.Properties["idleTimeout"] = durationOrNull("How long the sandbox stays awake after its last use", "10m")
	s.Properties["wakePolicy"] = wakePolicyOrNull("What may wake the sandbox: any request, requests that show intent, or nothing but a person's resume.")
	for _, name := range []string{"owner", "project"} {
		s.Properties[name].MaxLength = &length
	}
	s.Properties["owner"].Description = "Whose sandbox it is."
	s.Properties["project"].Description = "What it belongs to. A token that is bound to an owner may not choose one with a policy unless that owner has a sandbox there, nor leave one with a policy."
	return s
}

func durationOrNull(doc, example string) *huma.Schema {
	return &huma.Schema{
		Description: doc + ": a duration such as 90s, 10m or 1d12h, or a number of seconds.",
		AnyOf:       []*huma.Schema{{Type: huma.TypeString}, {Type: huma.TypeNumber}, {Type: "null"}},
		Examples:    []any{example},
	}
}

func wakePolicyOrNull(doc string) *huma.Schema {
	return &huma.Schema{Description: doc, AnyOf: []*huma.Schema{{Type: huma.TypeString, Enum: wakePolicies()}, {Type: "null"}}}
}

func wakePolicies() []any { return []any{"any", "intent", "manual"} }

// sandboxDocs describes the fields of a sandbox for the OpenAPI file.
func sandboxDocs() map[string]string {
	return map[string]string{
		"sandboxID":      "The host's ID of the sandbox.",
		"host":           "Name of the configured host that runs it.",
		"owner":          "Whose sandbox it is, from its metadata or set by PATCH.",
		"project":        "What it belongs to, likewise.",
		"template":       "What it was made from.",
		"metadata":       "The host's metadata.",
		"state":          "Where the sandbox stands. PAUSING and RESUMING are the two in between.",
		"reason":         "Why the last transition took place, in words.",
		"since":          "When the last transition took place.",
		"idleTimeout":    "How long it stays awake after its last use, in effect.",
		"wakePolicy":     "What may wake it, in effect: any, intent or manual. Absent: the site's default.",
		"setBy":          "Who set the sandbox's own settings, and when, by their names.",
		"countedTo":      "Up to when its time is in totals and usage. Absent: up to since. Another than that after a change of owner or project, or where a clock was set.",
		"createdAt":      "When Sandman came to know it.",
		"startedAt":      "Start of the current or last run.",
		"pausedAt":       "When it was last paused.",
		"op":             "The work that is under way in PAUSING and RESUMING.",
		"lastError":      "How the last pause or resume failed, until one succeeds.",
		"killing":        "The last kill that its host was asked for. If it is gone within a minute of that, this is why.",
		"parked":         "Streams that were open at the last pause.",
		"reconnectWakes": "How often pages' own reconnects have woken it on one day.",
		"totals":         "Sums over its life, up to countedTo, or else since.",
		"lastActivity":   "The last sign of use; null where none is known.",
		"activityKind":   "What the last sign of use was, such as request or websocket.",
		"pauseAt":        "When it will be paused if nobody uses it; null while something keeps it awake, and while it does not run.",
		"awakeBecause":   "What keeps it awake, in words.",
		"storeAway":      "true while the session store is out of reach: nothing is paused then, and this is how it stood when it was last heard of. Absent otherwise.",
		"holds":          "The holds that keep it awake.",
		"openStreams":    "How many long connections are open, through all proxies.",
	}
}

// TransformSchema adds the descriptions, since the record's own package knows
// nothing of OpenAPI.
func (Sandbox) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Description = "A sandbox, its session's record and what is known around it."
	for name, doc := range sandboxDocs() {
		if p := s.Properties[name]; p != nil {
			p.Description = doc
		}
	}
	s.Properties["awakeBecause"].Nullable = false
	s.Properties["holds"].Nullable = false
	s.Required = append(s.Required, "idleTimeout") // always shown, if not always stored
	return s
}

// stateSchema and durationSchema stand in for types whose JSON can't be read
// from their kind.
type stateSchema struct{}

func (stateSchema) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, state := range session.States() {
		s.Enum = append(s.Enum, string(state))
	}
	return s
}

type streamStateSchema struct{}

func (streamStateSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: []any{string(session.StreamActive), string(session.StreamDormant), string(session.StreamParked)}}
}

type durationSchema struct{}

func (durationSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Examples: []any{"10m0s"}}
}

// newRegistry returns where the schemas are collected, with the stand-ins.
func newRegistry() huma.Registry {
	r := huma.NewMapRegistry("#/components/schemas/", schemaName)
	r.RegisterTypeAlias(reflect.TypeFor[session.State](), reflect.TypeFor[stateSchema]())
	r.RegisterTypeAlias(reflect.TypeFor[session.StreamState](), reflect.TypeFor[streamStateSchema]())
	r.RegisterTypeAlias(reflect.TypeFor[session.Duration](), reflect.TypeFor[durationSchema]())
	r.RegisterTypeAlias(reflect.TypeFor[huma.ErrorModel](), reflect.TypeFor[Problem]())
	return r
}

// schemaName makes unexported types' names public ones.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	if name == "" {
		return name
	}
	return strings.ToUpper(name[:1]) + name[1:]
}
