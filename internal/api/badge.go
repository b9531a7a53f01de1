package api

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sandman-proxy/sandman/internal/session"
)

// A badge token lets a page show one sandbox, and do to it what the token says.
// It is stateless, so that any proxy can check it:
//
//	sbt_<base64url(badge as JSON)>.<base64url(HMAC-SHA256 of all before the point)>
//
// The key is the same in all processes. A badge token can't be taken back: it
// ends by itself, soon.
const (
	badgePrefix     = "sbt_"
	badgeLongest    = 24 * time.Hour
	badgeDefault    = time.Hour
	badgeExtension  = "x-badge-token" // names in the OpenAPI file what a badge token needs for an operation
	badgeMetadata   = "badge"
	badgeHold       = "badge" // the one hold that it may put and end
	badgeNameSuffix = " (badge)"
)

// What a badge token may do. To see its sandbox is part of every one.
const (
	maySee    = "see"
	mayHold   = "hold"
	mayPause  = "pause"
	mayResume = "resume"
)

// badge is what a badge token says.
type badge struct {
	Sandbox string   `json:"s"`
	Owner   string   `json:"o,omitempty"` // whom the token was bound to that it was made with
	May     []string `json:"m"`
	Expires int64    `json:"e"` // Unix time
	By      string   `json:"b"` // the name of the token that it was made with
}

func (b *badge) expires() time.Time { return time.Unix(b.Expires, 0) }

func (b *badge) may(what string) bool { return what == maySee || slices.Contains(b.May, what) }

// badgeMay marks an operation as one that badge tokens may use, if they may do
// what is named.
func badgeMay(what string) map[string]any { return map[string]any{badgeMetadata: what} }

// badgeNeeds is what a badge token must be made for to use an operation. "": none
// may.
func badgeNeeds(op *huma.Operation) string {
	what, _ := op.Metadata[badgeMetadata].(string)
	return what
}

// sign gives the token.
func (b *badge) sign(key []byte) (string, error) {
	payload, err := json.Marshal(b)
	if err != nil {
		return "", fmt.Errorf("making a badge token: %w", err)
	}
	signed := badgePrefix + base64.RawURLEncoding.EncodeToString(payload)
	return signed + "." + base64.RawURLEncoding.EncodeToString(macOf(key, signed)), nil
}

func macOf(key []byte, signed string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(signed))
	return mac.Sum(nil)
}

var (
	errNoBadge      = errors.New("this badge token is none of Sandman's, or was changed")
	errBadgeExpired = errors.New("this badge token has expired")
)

// readBadge checks a token and gives what it says.
func readBadge(token string, key []byte, now time.Time) (*badge, error) {
	signed, sum, _ := strings.Cut(token, ".")
	mac, err := base64.RawURLEncoding.Strict().DecodeString(sum)
	if err != nil || !hmac.Equal(mac, macOf(key, signed)) {
		return nil, errNoBadge
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(signed, badgePrefix))
	if err != nil {
		return nil, errNoBadge
	}
	b := new(badge)
	if err := json.Unmarshal(payload, b); err != nil || b.Sandbox == "" {
		return nil, errNoBadge
	}
	if !now.Before(b.expires()) {
		return nil, errBadgeExpired
	}
	return b, nil
}

// badgeToken is the bearer that a badge token stands for.
func (s *server) badgeToken(ctx context.Context, secret string) (Token, error) {
	key, err := s.Reader.BadgeKey(ctx)
	if err != nil {
		return Token{}, problemOf(err)
	}
	b, err := readBadge(secret, key, time.Now())
	if err != nil {
		return Token{}, err
	}
	return Token{Name: b.By + badgeNameSuffix, Role: RoleViewer, Owner: b.Owner, badge: b}, nil
}

type tokenInput struct {
	ID   string `path:"id" doc:"The sandbox's ID."`
	Body newToken
}

type newToken struct {
	For session.Duration `json:"for,omitempty" doc:"How long it is good for, such as 1h: at most 24h. Default: 1h."`
	May []string         `json:"may,omitempty" nullable:"false" enum:"see,hold,pause,resume" doc:"What its bearer may do. To see the sandbox is part of each."`
}

// Resolve checks what the schema can't say.
func (n *newToken) Resolve(huma.Context) []error {
	if d := time.Duration(n.For); d != 0 && (d < time.Second || d > badgeLongest) {
		return []error{invalid("body.for", fmt.Sprintf("%s is out of range: want 1s to %s", d, badgeLongest))}
	}
	return nil
}

type tokenOutput struct {
	Body madeToken
}

type madeToken struct {
	Token     string    `json:"token" doc:"To be sent as any other, as a bearer token."`
	ExpiresAt time.Time `json:"expiresAt"`
}

func (s *server) addBadge() {
	add(s, RoleOperator, huma.Operation{
		OperationID: "make-badge-token", Method: http.MethodPost, Path: "/sandboxes/{id}/tokens", DefaultStatus: http.StatusCreated,
		Summary: "Make a token for a sandbox's badge",
		Description: "A short-lived token for one sandbox, to be given to a page. It may GET the sandbox, its why, its holds and its events; " +
			"with hold it may tell of activity and put and end the hold called badge; with pause and resume it may do these. It can't be taken back.",
		Errors: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge},
	}, s.makeToken)
}

func (s *server) makeToken(ctx context.Context, who Token, in *tokenInput) (*tokenOutput, error) {
	sb, err := s.look(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	if sb.State == session.Killed {
		return nil, ErrKilled
	}
	key, err := s.Reader.BadgeKey(ctx)
	if err != nil {
		return nil, err
	}
	span := time.Duration(in.Body.For)
	if span == 0 {
		span = badgeDefault
	}
	b := badge{Sandbox: in.ID, Owner: who.Owner, May: []string{maySee}, Expires: time.Now().Add(span).Unix(), By: who.Name}
	for _, what := range []string{mayHold, mayPause, mayResume} {
		if slices.Contains(in.Body.May, what) {
			b.May = append(b.May, what)
		}
	}
	token, err := b.sign(key)
	if err != nil {
		return nil, err
	}
	return &tokenOutput{Body: madeToken{Token: token, ExpiresAt: b.expires().UTC()}}, nil
}
