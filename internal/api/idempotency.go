package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"
)

const (
	// answersKept is how long a request may be repeated without harm.
	answersKept = 24 * time.Hour
	// answerWithin bounds the work under a key: what has no answer by then was
	// the work of a process that has died.
	answerWithin = 3 * time.Minute
)

// ErrTooManyAnswers: as many answers are kept for the caller as may be.
var ErrTooManyAnswers = errors.New("too many answers are kept for this caller")

// AnswerKey says whose answer it is, and which of theirs. Both are hashes.
type AnswerKey struct {
	Caller, Name string
}

// Answers keeps answers by key, the same for all proxies. Values are opaque.
type Answers interface {
	// Claim puts a value under a key that has none, for a time. Where it has one,
	// that is returned, and nothing is written. It may fail with
	// [ErrTooManyAnswers].
	Claim(ctx context.Context, key AnswerKey, value []byte, lasts time.Duration) (former []byte, err error)
	// Keep replaces the value of a key that was claimed.
	Keep(ctx context.Context, key AnswerKey, value []byte, lasts time.Duration) error
	// Release makes a key one that has no value.
	Release(ctx context.Context, key AnswerKey) error
}

// answered is what is kept under an Idempotency-Key: enough to answer again.
type answered struct {
	Asked     string `json:"asked"` // the hash of the request's body
	Status    int    `json:"status,omitempty"`
	SandboxID string `json:"sandboxID,omitempty"`
}

// once does the work of a request that may be repeated, once. It goes on if the
// client leaves, which is when clients repeat requests. What fails is not kept.
func (s *server) once(ctx context.Context, who Token, key string, body newSandbox, work func(context.Context) (*addOutput, error)) (*addOutput, error) {
	asked, err := hashOf(body)
	if err != nil {
		return nil, err
	}
	name := AnswerKey{Caller: sum(who.Name + "\x00" + who.Owner), Name: sum(key)} // others may have chosen the same one
	claim, err := json.Marshal(answered{Asked: asked})
	if err != nil {
		return nil, fmt.Errorf("claiming an idempotency key: %w", err)
	}
	former, err := s.Actor.Claim(ctx, name, claim, answerWithin)
	if err != nil {
		return nil, err
	}
	if former != nil {
		return s.repeated(ctx, who, former, asked)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWithin)
	defer cancel()
	out, err := work(ctx)
	if err != nil {
		s.noteAnswer(s.Actor.Release(context.WithoutCancel(ctx), name))
		return nil, err
	}
	done, err := json.Marshal(answered{Asked: asked, Status: out.Status, SandboxID: out.Body.SandboxID})
	if err == nil {
		err = s.Actor.Keep(ctx, name, done, answersKept)
	}
	s.noteAnswer(err) // the work is done all the same
	return out, nil
}

func (s *server) noteAnswer(err error) {
	if err != nil {
		s.Log.Warn("the answer to a request with an Idempotency-Key is not kept as it should be", zap.Error(err))
	}
}

func hashOf(body newSandbox) (string, error) {
	b, err := json.Marshal(body) // in one form, however it came
	if err != nil {
		return "", fmt.Errorf("reading a request under an idempotency key: %w", err)
	}
	return sum(string(b)), nil
}

func sum(s string) string {
	hash := sha256.Sum256([]byte(s))
	return hex.EncodeToString(hash[:])
}

// repeated is the answer to a request whose key is known: the same sandbox, as it
// is now.
func (s *server) repeated(ctx context.Context, who Token, former []byte, asked string) (*addOutput, error) {
	var a answered
	if err := json.Unmarshal(former, &a); err != nil {
		return nil, fmt.Errorf("reading the answer to an idempotency key: %w", err)
	}
	switch {
	case a.Asked != asked:
		return nil, newProblem(http.StatusUnprocessableEntity, "key-reused", "This Idempotency-Key came with another request before. Use a new one for each request.")
	case a.SandboxID == "":
		return nil, newProblem(http.StatusConflict, "in-progress", "The request with this Idempotency-Key is being worked on. Ask again for its answer.").retryAfter(time.Second)
	}
	sb, err := s.look(ctx, who, a.SandboxID)
	if err != nil {
		return nil, err
	}
	return newAddOutput(a.Status, sb), nil
}
