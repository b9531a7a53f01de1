package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/api"
	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

// TestStoreAway_whatNeedsItIsUnavailableSoon asks for everything that is written
// to the store, all at the same time.
func TestStoreAway_whatNeedsItIsUnavailableSoon(t *testing.T) {
	t.Parallel()
	const soon = 5 * time.Second
	own, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	w := newWorldOn(t, own.Client())
	n := w.start(nil)
	running, asleep := n.create(), n.sleeping()
	timeout := int32(600)
	stranger, err := w.direct.Create(t.Context(), e2b.NewSandbox{TemplateID: "base", Timeout: &timeout})
	if err != nil {
		t.Fatal(err)
	}
	n.setPolicy(session.ScopeOwner, "alice", session.Policy{})
	if err := own.Close(); err != nil {
		t.Fatal(err)
	}
	hold := api.HoldOptions{Name: "build", For: time.Hour, By: "test", Wake: true}
	for name, act := range map[string]func(ctx context.Context) error{
		"pause": func(ctx context.Context) error { _, _, err := n.Pause(ctx, running, api.PauseOptions{}); return err },
		"pause, forced": func(ctx context.Context) error {
			_, _, err := n.Pause(ctx, running, api.PauseOptions{Force: true})
			return err
		},
		"pause, unknown": func(ctx context.Context) error {
			_, _, err := n.Pause(ctx, stranger.SandboxID, api.PauseOptions{})
			return err
		},
		"hold":              func(ctx context.Context) error { _, err := n.Hold(ctx, running, hold); return err },
		"hold, asleep":      func(ctx context.Context) error { _, err := n.Hold(ctx, asleep, hold); return err },
		"the end of a hold": func(ctx context.Context) error { return n.EndHold(ctx, running, "build") },
		"settings":          func(ctx context.Context) error { _, err := n.Update(ctx, running, api.Patch{}, 0); return err },
		"registering":       func(ctx context.Context) error { _, _, err := n.Register(ctx, stranger.SandboxID, ""); return err },
		"creating": func(ctx context.Context) error {
			_, err := n.Create(ctx, e2b.NewSandbox{TemplateID: "base"}, "")
			return err
		},
		"an answer's key": func(ctx context.Context) error {
			_, err := n.Claim(ctx, api.AnswerKey{Caller: "ops", Name: "1"}, []byte("x"), time.Minute)
			return err
		},
		"a policy": func(ctx context.Context) error {
			_, err := n.SetPolicy(ctx, session.ScopeOwner, "alice", session.Policy{})
			return err
		},
		"a policy's end": func(ctx context.Context) error { return n.DeletePolicy(ctx, session.ScopeOwner, "alice", 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			err := act(t.Context())
			var unavailable *api.UnavailableError
			if took := time.Since(began); !errors.As(err, &unavailable) || took > soon+time.Second {
				t.Errorf("%v after %s, want it to be unavailable within %s", err, took, soon)
			}
			if unavailable != nil && !strings.Contains(unavailable.Reason, "store") && !strings.Contains(unavailable.Reason, "etcd") {
				t.Errorf("the reason is %q", unavailable.Reason)
			}
		})
	}
}
