package engine_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sandman-proxy/sandman/internal/api"
)

// TestClaim_isBounded fills the store with what a busy day leaves there.
func TestClaim_isBounded(t *testing.T) {
	t.Parallel()
	const most, atOnce = 20_000, 100
	w := newWorld(t)
	n := w.start(nil)
	var fill errgroup.Group
	fill.SetLimit(atOnce)
	for i := range most - 1 {
		fill.Go(func() error {
			_, err := w.etcd.Put(t.Context(), fmt.Sprintf("%sanswers/busy/%d", w.prefix, i), "{}")
			return err
		})
	}
	if err := fill.Wait(); err != nil {
		t.Fatal(err)
	}
	claim := func(caller, name string) error {
		_, err := n.Claim(t.Context(), api.AnswerKey{Caller: caller, Name: name}, []byte("{}"), time.Hour)
		return err
	}
	if err := claim("busy", "the last"); err != nil {
		t.Fatal(err)
	}
	if err := claim("busy", "one more"); !errors.Is(err, api.ErrTooManyAnswers) {
		t.Errorf("one more: %v", err)
	}
	for _, known := range []string{"the last", "7"} {
		if err := claim("busy", known); err != nil {
			t.Errorf("a known one: %v", err)
		}
	}
	if err := claim("quiet", "one more"); err != nil {
		t.Errorf("somebody else's: %v", err)
	}
}
