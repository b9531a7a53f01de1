package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sandman-proxy/sandman/internal/session"
)

// NodeTraffic is what one proxy tells of a sandbox.
type NodeTraffic struct {
	Node string
	session.Traffic
}

// Why is all that is known of why a sandbox is awake or asleep, each thing in
// words and as values. Words tells it all, in sentences, in the order in which
// a person would ask.
type Why struct {
	SandboxID string        `json:"sandboxID" doc:"The host's ID of the sandbox."`
	Words     []string      `json:"words" nullable:"false" doc:"All of it in sentences."`
	State     session.State `json:"state" doc:"Where the sandbox stands."`
	Since     time.Time     `json:"since" doc:"When the last transition took place."`
	Reason    string        `json:"reason" doc:"Why it took place."`
	StoreAway bool          `json:"storeAway,omitempty" doc:"The session store is out of reach: nothing is paused, and this is how it stood when it was last heard of."`

	KeptAwakeBy []Keeper   `json:"keptAwakeBy" nullable:"false" doc:"What keeps it awake now. Empty where nothing does, or where it does not run."`
	PauseAt     *time.Time `json:"pauseAt" doc:"When it will be paused if nobody uses it; null while something keeps it awake, and while it does not run."`
	Settings    []Setting  `json:"settings" nullable:"false" doc:"The settings that decide over it."`

	LastPause *session.Transition `json:"lastPause,omitempty" doc:"The last time that it was put to sleep. Absent where the history knows of none."`
	LastWake  *session.Transition `json:"lastWake,omitempty" doc:"The last time that it was woken, likewise."`
	LastError *session.OpError    `json:"lastError,omitempty" doc:"How the last pause or resume failed, until one succeeds."`

	Streams StreamCounts `json:"streams" doc:"The long connections that are open through all proxies."`
	Parked  int          `json:"parked" doc:"How many were open at the last pause: their pages reconnect by themselves."`
	// ReconnectWakes is of today, in UTC.
	ReconnectWakes int `json:"reconnectWakes" doc:"How often such pages have woken it today (UTC)."`

	Refused []Refused `json:"refused" nullable:"false" doc:"The last requests that did not wake it, the newest first, of each proxy."`
	Repeats []Repeat  `json:"repeats" nullable:"false" doc:"What counts as use and comes like clockwork, as no person sends it."`
}

// The kinds of keepers.
const (
	KeptByRequest = "request" // is being served
	KeptByStream  = "stream"  // has carried something that counts within the idle timeout
	KeptByProxy   = "proxy"   // another one that does not tell what it serves, or one that vanished
	KeptByHold    = "hold"
	KeptByStore   = "store" // is out of reach: nothing is paused
)

// Keeper is something that keeps a sandbox awake.
type Keeper struct {
	Kind   string     `json:"kind" enum:"request,stream,proxy,hold,store" doc:"What it is. store: the session store is out of reach, and nothing is paused until it is back."`
	Words  string     `json:"words" doc:"The same in words."`
	Node   string     `json:"node,omitempty" doc:"The proxy that it goes through."`
	Count  int        `json:"count" doc:"How many of them there are."`
	What   string     `json:"what,omitempty" doc:"What the last use was, or a hold's name."`
	Reason string     `json:"reason,omitempty" doc:"Of a hold: what it is for."`
	By     string     `json:"by,omitempty" doc:"Of a hold: who put it."`
	Until  *time.Time `json:"until,omitempty" doc:"Of a hold: when it ends."`
}

// The sources of a setting.
const (
	SetHere      = string(session.FromSandbox) // the sandbox's own
	SetByProject = string(session.FromProject) // its project's policy
	SetByOwner   = string(session.FromOwner)   // its owner's policy
	SetByDefault = string(session.FromDefault) // of the configuration
	SetBySite    = string(session.FromSite)    // of the site that the request comes to
)

// Setting is one that decides over a sandbox's sleep.
type Setting struct {
	Name   string `json:"name" doc:"As PATCH calls it."`
	Value  string `json:"value" doc:"What holds. Empty where each site decides."`
	Source string `json:"source" enum:"sandbox,project,owner,default,site" doc:"Whether the sandbox has its own, or goes by its project's or owner's policy, the configuration's default or the site's."`
	Words  string `json:"words" doc:"What it means."`

	By *string    `json:"by,omitempty" doc:"Who set it. Absent where nobody has, or nobody knows."`
	At *time.Time `json:"at,omitempty" doc:"When it was set."`
	// Asked differs from Value where a limit is in the way.
	Asked string `json:"asked,omitempty" doc:"What the source says, where a limit makes it another."`
	Limit string `json:"limit,omitempty" enum:"project,owner,default" doc:"Whose limit that is: the project's or owner's policy, or the operator's (default)."`
}

// StreamCounts counts streams by what they are to their sandbox.
type StreamCounts struct {
	Active  int `json:"active" doc:"They have carried something that counts within the idle timeout."`
	Dormant int `json:"dormant" doc:"They have not, and don't keep the sandbox awake."`
	Parked  int `json:"parked" doc:"They wait for the sandbox, which sleeps."`
	Unnamed int `json:"unnamed" doc:"Open through another proxy, which tells no more of so many."`
}

// Refused is a request that did not wake a sandbox, and what would have let it.
type Refused struct {
	Node string `json:"node" doc:"The proxy that it came to."`
	session.Refusal
	Words  string `json:"words" doc:"The same in words."`
	Change string `json:"change" doc:"What would change that."`
}

// Repeat is something that no person sends, with a rule that would say so.
type Repeat struct {
	Node string `json:"node" doc:"The proxy that it goes through."`
	session.Repeat
	Words string `json:"words" doc:"The same in words, with the rule to add."`
}

func (s *server) addWhy() {
	const one = "/sandboxes/{id}"
	add(s, RoleViewer, huma.Operation{
		OperationID: "sandbox-streams", Method: http.MethodGet, Path: one + "/streams",
		Summary:     "Which long connections a sandbox has open",
		Description: "Through all proxies, each with what it is to the sandbox. Of other proxies it is at most a second old.",
		Errors:      []int{http.StatusNotFound},
	}, s.streams)
	add(s, RoleViewer, huma.Operation{
		OperationID: "sandbox-why", Method: http.MethodGet, Path: one + "/why",
		Summary:     "Why a sandbox is awake or asleep",
		Description: "What keeps it awake, when it will sleep, why it was paused and woken last, what was refused and what would change that.",
		Errors:      []int{http.StatusNotFound},
		Metadata:    badgeMay(maySee),
	}, s.why)
}

type streamsOutput struct {
	Body streamsBody
}

type streamsBody struct {
	Open    int          `json:"open" doc:"How many are open. A proxy names at most 50 of a sandbox, those first that keep it awake."`
	Streams []openStream `json:"streams" nullable:"false"`
}

type openStream struct {
	Node string `json:"node" doc:"The proxy that it goes through."`
	session.Stream
}

func (s *server) streams(ctx context.Context, who Token, in *sandboxInput) (*streamsOutput, error) {
	if _, err := s.look(ctx, who, in.ID); err != nil {
		return nil, err
	}
	told, err := s.Reader.OpenStreams(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	body := streamsBody{Streams: []openStream{}}
	for _, t := range told {
		body.Open += t.Open()
		for _, stream := range t.Streams {
			body.Streams = append(body.Streams, openStream{t.Node, stream})
		}
	}
	return &streamsOutput{Body: body}, nil
}

type whyOutput struct {
	Body Why
}

func (s *server) why(ctx context.Context, who Token, in *sandboxInput) (*whyOutput, error) {
	if _, err := s.look(ctx, who, in.ID); err != nil {
		return nil, err
	}
	why, err := s.Reader.Why(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &whyOutput{Body: why}, nil
}

// describe adds descriptions where the session's own types know nothing of
// OpenAPI.
func describe(s *huma.Schema, docs map[string]string) *huma.Schema {
	for name, doc := range docs {
		if p := s.Properties[name]; p != nil {
			p.Description = doc
		}
	}
	return s
}

// TransformSchema adds the descriptions.
func (openStream) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return describe(s, map[string]string{
		"kind":        "What it is, such as websocket.",
		"path":        "Of its request, without the query.",
		"preset":      "The preset that tells a person's messages from noise. Absent where none fits.",
		"state":       "active: it keeps the sandbox awake. dormant: it has carried nothing that counts for the idle timeout. parked: it waits for the sandbox, which sleeps.",
		"since":       "When it was opened.",
		"lastCounted": "When something last came through it that counts. Through another proxy it may have been later, while the stream is active. Absent: nothing has.",
	})
}

// TransformSchema adds the descriptions.
func (Refused) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return describe(s, map[string]string{
		"at":     "When it was refused last.",
		"asker":  "What kind of request it was taken for.",
		"what":   "The request.",
		"reason": "A word that names the rule.",
		"count":  "How often it was refused.",
	})
}

// TransformSchema adds the descriptions.
func (Repeat) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return describe(s, map[string]string{
		"at":    "When it came last.",
		"kind":  "message or request.",
		"path":  "Of the stream or request, without the query.",
		"what":  "The message's payload, or the request.",
		"every": "Its period.",
		"count": "How often it came so far.",
		"rule":  "What to add to the configuration, if no person sends it.",
	})
}
