package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/store"
)

func TestView_skipsWhatItCantRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := r.adopt("good", session.Running)
	broken := map[string]string{
		"sandboxes/garbage":       "{",
		"sandboxes/number":        "7",
		"sandboxes/misnamed":      `{"sandboxID":"other","state":"PAUSED"}`,
		"sandboxes/stateless":     `{"sandboxID":"stateless","state":"ASLEEP"}`,
		"sandboxes/opless":        `{"sandboxID":"opless","state":"PAUSING"}`,
		"sandboxes/%":             `{"sandboxID":"","state":"PAUSED"}`,
		"sandboxes/%67ood":        encode(good), // another spelling of "good"
		"sandboxes/too/deep":      "{}",
		"sandboxes/a%zz":          "{}",
		"activity/good":           "[]",
		"holds/good/h":            "nonsense",
		"toys/ball":               "{}",
		"presence/only-one-level": "",
		"streams/good/node-x":     "[",
		"streams/only-one-level":  "{}",
	}
	for key, value := range broken {
		r.put(key, value)
	}
	for _, key := range []string{"history/x/y", "leader/1"} {
		r.put(key, "[") // not the view's
	}
	last := r.adopt("last", session.Running)
	for _, v := range []*store.View{r.View(), r.beside("node-b").View()} { // by watch, and by list
		got := v.Broken()
		if len(got) != len(broken) {
			t.Errorf("%d broken, want %d: %+v", len(got), len(broken), got)
		}
		for _, b := range got {
			if _, ok := broken[b.Key[len(r.prefix):]]; !ok || b.Err == "" || b.Revision == 0 {
				t.Errorf("%+v should not be there", b)
			}
		}
		if items, _ := v.List(store.Query{}); len(items) != 2 {
			t.Errorf("%d sandboxes are shown, want 2", len(items))
		}
		sb, _ := v.Get("good")
		if len(sb.Traffic) != 0 {
			t.Errorf("unreadable traffic is shown: %+v", sb.Traffic)
		}
		if !sb.Activity.Open || sb.ActivityRevision == 0 || len(sb.Holds) != 1 {
			t.Errorf("unreadable activity and holds must keep it awake: %+v", sb)
		}
	}
	_ = last

	t.Run("a step that meets it says so", func(t *testing.T) {
		_, err := r.Adopt(r.ctx, session.New("garbage", "local", session.Paused, "", time.Now()))
		if !errors.Is(err, store.ErrBroken) || errors.Is(err, store.ErrConflict) {
			t.Errorf("got %v, want ErrBroken", err)
		}
	})
	t.Run("mended, it is shown", func(t *testing.T) {
		r.put("sandboxes/garbage", encode(session.New("garbage", "local", session.Paused, "", time.Now())))
		r.see("garbage", "the mended record", func(*store.Sandbox) bool { return true })
		r.delete("toys/ball")
		r.eventually("two less", func() bool { return len(r.View().Broken()) == len(broken)-2 })
	})
	t.Run("broken anew, it is gone", func(t *testing.T) {
		sb, _ := r.View().Get("garbage")
		r.put("sandboxes/garbage", "{")
		if got, err := r.View().Wait(r.ctx, "garbage", sb.Revision); err != nil || got != nil {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// A list of several pages, with a history between the ranges that are read.
