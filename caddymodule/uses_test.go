package caddymodule

import (
	"sync"
	"testing"
)

func TestUses_closeWaitsForTheLast(t *testing.T) {
	t.Parallel()
	u := newUses()
	for range 2 {
		if !u.begin() {
			t.Fatal("nobody was let in")
		}
	}
	closed := make(chan struct{})
	for range 2 { // a reload and the end of the process
		go func() { u.close(); closed <- struct{}{} }()
	}
	u.end()
	if !u.begin() {
		t.Fatal("closed under somebody")
	}
	u.end()
	u.end()
	<-closed
	<-closed
	if u.begin() {
		t.Error("somebody was let in after the end")
	}
}

func TestUses_closeBesideManyMissesNone(t *testing.T) {
	t.Parallel()
	for range 200 {
		u := newUses()
		var all sync.WaitGroup
		var open sync.Map
		for n := range 8 {
			all.Go(func() {
				for range 50 {
					if !u.begin() {
						return
					}
					open.Store(n, true)
					open.Delete(n)
					u.end()
				}
			})
		}
		u.close()
		open.Range(func(n, _ any) bool {
			t.Errorf("closed under %v", n)
			return true
		})
		all.Wait()
	}
}
