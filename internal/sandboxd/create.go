package sandboxd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envd"
)

// generation is what differs between the API's two creates.
type generation struct {
	timeout int32 // the default lifetime in seconds
	secure  bool  // whether every sandbox has an access token
}

var (
	generation1 = generation{timeout: 15}
	generation2 = generation{timeout: 300, secure: true}
)

// templateName is a template's ID or alias, with namespace and tag. All names
// mean the same here.
var templateName = regexp.MustCompile(`^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)?(:[A-Za-z0-9_.-]+)?$`)

// create answers POST /sandboxes and POST /v2/sandboxes.
func (a *api) create(g generation) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var n e2b.NewSandbox
		if err := readJSON(r, &n); err != nil {
			invalid(w, err)
			return
		}
		rec, err := g.record(n, a.host.currentFaults().MaxRun)
		if err != nil {
			e2b.WriteError(w, http.StatusBadRequest, err.Error())
			return
		}
		// not the caller's context: a caller who leaves gets a sandbox that ends
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), opTimeout)
		defer cancel()
		s, err := a.host.create(ctx, rec)
		if err != nil {
			a.host.log.Error("creating a sandbox", zap.Error(err))
			e2b.WriteError(w, http.StatusInternalServerError, "Failed to place sandbox")
			return
		}
		writeJSON(w, http.StatusCreated, s.wire())
	}
}

// record checks a create and turns it into a sandbox's record. The error is for
// the caller.
func (g generation) record(n e2b.NewSandbox, maxRun time.Duration) (record, error) {
	timeout := g.timeout
	if n.Timeout != nil {
		timeout = *n.Timeout
	}
	rec := record{
		TemplateID: n.TemplateID, Metadata: n.Metadata, EnvVars: n.EnvVars,
		AutoPause: isTrue(n.AutoPause), AutoPauseMemory: n.AutoPauseMemory == nil || *n.AutoPauseMemory,
		AutoResume: n.AutoResume != nil && n.AutoResume.Enabled, AllowInternet: n.AllowInternetAccess, Network: n.Network,
	}
	private, err := isPrivate(n.Network)
	secure := g.secure || isTrue(n.Secure)
	switch {
	case err != nil:
		return record{}, err
	case !templateName.MatchString(n.TemplateID):
		return record{}, fmt.Errorf("Invalid template ID: %q", n.TemplateID) //nolint:staticcheck // the API's words
	case timeout <= 0:
		return record{}, errTimeoutTooShort
	case maxRun > 0 && seconds(timeout) > maxRun:
		return record{}, errTimeoutTooLong(maxRun)
	case !rec.AutoPauseMemory && (!rec.AutoPause || rec.AutoResume):
		return record{}, fmt.Errorf("autoPauseMemory false needs autoPause, and can't be combined with autoResume")
	case private && !secure:
		return record{}, fmt.Errorf("a sandbox without public traffic must be secure")
	}
	if secure {
		rec.AccessToken = newToken()
	}
	if private {
		rec.TrafficToken = newToken()
	}
	rec.ID = newID()
	rec.CreatedAt = time.Now()
	rec.StartedAt = rec.CreatedAt
	rec.EndAt = rec.StartedAt.Add(seconds(timeout))
	rec.State = StateRunning
	return rec, nil
}

func isTrue(b *bool) bool { return b != nil && *b }

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

// isPrivate reports whether the sandbox's ports want a token.
func isPrivate(network json.RawMessage) (bool, error) {
	if len(network) == 0 {
		return false, nil
	}
	var n struct {
		AllowPublicTraffic *bool `json:"allowPublicTraffic"`
	}
	if err := json.Unmarshal(network, &n); err != nil {
		return false, fmt.Errorf("validation error: network: %w", err)
	}
	return n.AllowPublicTraffic != nil && !*n.AllowPublicTraffic, nil
}

// newID is "i" and twenty random letters and digits, as E2B's are.
func newID() string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	id := []byte("i")
	for len(id) < 21 {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil {
			panic(err) // crypto/rand promises never to fail
		}
		id = append(id, letters[n.Int64()])
	}
	return string(id)
}

// newToken is a secret of 256 bits.
func newToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// create starts a sandbox from its record.
func (h *Host) create(ctx context.Context, rec record) (*sandbox, error) {
	s := &sandbox{host: h, id: rec.ID, dir: h.dir(rec.ID), rec: rec}
	err := os.MkdirAll(filepath.Join(s.dir, homeFolder), 0o700)
	if err == nil {
		_, err = s.launch(ctx, func(p *process) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.rec.Process = p
			return s.rec.save(s.dir)
		})
	}
	if err == nil {
		err = s.publish()
	}
	if err != nil {
		_, _ = s.killed(ctx, nil)
		return nil, err
	}
	return s, nil
}

// publish makes a new sandbox known. Its envd may have died already.
func (s *sandbox) publish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.State != StateRunning {
		return errLost
	}
	if err := s.host.put(s); err != nil {
		return err
	}
	s.schedule()
	s.host.changes.send(s.id, StateRunning)
	return nil
}

// wire is the sandbox in create's and connect's answer.
func (s *sandbox) wire() e2b.Sandbox {
	r := s.snapshot()
	sb := e2b.Sandbox{
		TemplateID: r.TemplateID, SandboxID: r.ID, ClientID: clientID,
		EnvdVersion: envd.Version, EnvdAccessToken: r.AccessToken,
	}
	if r.TrafficToken != "" {
		sb.TrafficAccessToken = &r.TrafficToken
	}
	return sb
}

// clientID is what E2B has become to say: it once named the machine.
const clientID = "local"
