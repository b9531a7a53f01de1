package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
)

func TestRuns_theNewest500AreKept(t *testing.T) {
	t.Parallel()
	r := newNode(t, server.Client(), "/"+t.Name()+"/", "node-a")
	began := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for i := range 503 {
		run := session.Run{Kind: session.RunPass, Node: "n/1", StartedAt: began.Add(time.Duration(i) * time.Minute), Looked: i, Errors: []string{}}
		if err := r.AddRun(r.ctx, run.Named()); err != nil {
			t.Fatal(err)
		}
	}
	all, err := r.Runs(r.ctx)
	if err != nil || len(all) != 500 || all[0].Looked != 502 || all[499].Looked != 3 {
		t.Errorf("%d runs, %v", len(all), err)
	}
	if broken := r.View().Broken(); len(broken) > 0 {
		t.Errorf("the view takes them for a session's: %v", broken)
	}
}

func TestSecret_isMadeOnce(t *testing.T) {
	t.Parallel()
	a := newNode(t, server.Client(), "/"+t.Name()+"/", "node-a")
	b := newNode(t, server.Client(), "/"+t.Name()+"/", "node-b")
	made := map[string]bool{}
	for _, r := range []*rig{a, b, a} {
		secret, err := r.Secret(r.ctx, "badge")
		if err != nil || len(secret) < 32 {
			t.Fatalf("%x, %v", secret, err)
		}
		made[fmt.Sprintf("%x", secret)] = true
	}
	other, err := a.Secret(a.ctx, "other")
	if len(made) != 1 || err != nil || made[fmt.Sprintf("%x", other)] {
		t.Errorf("%v, %x, %v", made, other, err)
	}
}
