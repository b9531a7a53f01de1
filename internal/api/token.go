package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Role is what the bearer of a token may do. Each role may do what the one
// before it may.
type Role string

// The three roles.
const (
	RoleViewer   Role = "viewer"   // look
	RoleOperator Role = "operator" // also create, pause, resume, change settings
	RoleAdmin    Role = "admin"    // also kill
)

func (r Role) rank() int {
	switch r {
	case RoleViewer:
		return 1
	case RoleOperator:
		return 2
	case RoleAdmin:
		return 3
	default:
		return 0
	}
}

// Token lets its bearer use the API. Only the secret's hash is kept.
type Token struct {
	Name string // who this is, in reasons and logs
	Role Role
	// Owner binds the token: its bearer sees only this owner's sandboxes, and
	// those that it makes belong to this owner. "" sees all.
	Owner string
	Hash  [sha256.Size]byte

	badge *badge // of a badge token: what it says
}

// hashPrefix marks a hash where a secret may stand.
const hashPrefix = "sha256:"

// HashSecret returns the hash of a token's secret as the configuration gives
// it: the secret itself, or "sha256:" and its hash in hex.
func HashSecret(s string) ([sha256.Size]byte, error) {
	digits, isHash := strings.CutPrefix(s, hashPrefix)
	if !isHash {
		if s == "" {
			return [sha256.Size]byte{}, errors.New("reading a token's secret: it is empty")
		}
		return sha256.Sum256([]byte(s)), nil
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != sha256.Size {
		return [sha256.Size]byte{}, fmt.Errorf("reading a token's hash: want %s and %d hex digits", hashPrefix, 2*sha256.Size)
	}
	return [sha256.Size]byte(b), nil
}

// CheckTokens refuses what would make a token mean two things or nothing, as
// [New] does.
func CheckTokens(tokens []Token) error {
	names, hashes := map[string]bool{}, map[[sha256.Size]byte]string{}
	for _, t := range tokens {
		switch other, same := hashes[t.Hash]; {
		case t.Name == "":
			return errors.New("a token has no name")
		case t.Role.rank() == 0:
			return fmt.Errorf("token %q: unknown role %q, want viewer, operator or admin", t.Name, t.Role)
		case t.Hash == [sha256.Size]byte{}:
			return fmt.Errorf("token %q has no secret", t.Name)
		case names[t.Name]:
			return fmt.Errorf("two tokens are called %q", t.Name)
		case same:
			return fmt.Errorf("tokens %q and %q have the same secret", other, t.Name)
		}
		names[t.Name], hashes[t.Hash] = true, t.Name
	}
	return nil
}

// bearer returns the secret that a request brings. Only the Authorization
// header counts: an address with a token in it ends up in logs and histories.
func bearer(h http.Header) (secret string, ok bool) {
	values := h.Values("Authorization")
	if len(values) != 1 { // of two, two readers may each take another
		return "", false
	}
	scheme, secret, _ := strings.Cut(values[0], " ")
	secret = strings.TrimSpace(secret)
	return secret, strings.EqualFold(scheme, "Bearer") && secret != ""
}

// find returns the token with this secret. Every token is compared, so that
// the time tells nothing about how near a guess is.
func find(tokens []Token, secret string) (Token, bool) {
	hash := sha256.Sum256([]byte(secret))
	var found Token
	ok := false
	for _, t := range tokens {
		if subtle.ConstantTimeCompare(hash[:], t.Hash[:]) == 1 {
			found, ok = t, true
		}
	}
	return found, ok
}

// sees tells whether the bearer may know of a sandbox. What has neither owner
// nor project is for operators and admins.
func (t Token) sees(sb Sandbox) bool {
	if t.badge != nil && t.badge.Sandbox != sb.SandboxID {
		return false
	}
	if t.Owner != "" {
		return sb.Owner == t.Owner
	}
	return t.badge != nil || t.Role != RoleViewer || sb.Owner != "" || sb.Project != ""
}

// seesAll tells whether no sandbox is hidden from the bearer.
func (t Token) seesAll() bool { return t.Owner == "" && t.Role != RoleViewer }
