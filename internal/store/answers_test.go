package store_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/store"
)

func TestAnswers_belongToWhoClaimedThemFirst(t *testing.T) {
	t.Parallel()
	prefix := fmt.Sprintf("/%s-%d/", t.Name(), time.Now().UnixNano()) // -count comes to the same etcd
	a, b := newNode(t, server.Client(), prefix, "node-a"), newNode(t, server.Client(), prefix, "node-b")
	k := store.AnswerKey{Caller: "c", Name: "k"}
	claim := func(r *rig, value string) string {
		t.Helper()
		former, err := r.ClaimAnswer(r.ctx, k, []byte(value), time.Minute, 1)
		if err != nil {
			t.Fatal(err)
		}
		return string(former)
	}
	if former := claim(a, "a's"); former != "" {
		t.Errorf("it was %q", former)
	}
	if former := claim(b, "b's"); former != "a's" {
		t.Errorf("it was %q", former)
	}
	if err := a.KeepAnswer(a.ctx, k, []byte("done"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if former := claim(b, "b's"); former != "done" {
		t.Errorf("it was %q", former)
	}
	kv, err := server.Client().Get(t.Context(), prefix+"answers/c/k")
	if err != nil || len(kv.Kvs) != 1 {
		t.Fatalf("%+v, %v", kv, err)
	}
	ttl, err := server.Client().TimeToLive(t.Context(), clientv3.LeaseID(kv.Kvs[0].Lease))
	if err != nil || ttl.GrantedTTL != 3600 {
		t.Errorf("it lasts for %+v, %v", ttl, err)
	}
	for range 2 {
		if err := b.DropAnswer(b.ctx, k); err != nil {
			t.Error(err)
		}
	}
	if former := claim(b, "b's"); former != "" {
		t.Errorf("it was %q", former)
	}
	if broken := a.View().Broken(); len(broken) > 0 {
		t.Errorf("the view takes them for a session's: %v", broken)
	}
}

func TestAnswers_areSoManyOfACaller(t *testing.T) {
	t.Parallel()
	const most = 3
	a := newRig(t)
	b := a.beside("node-b")
	claim := func(r *rig, caller, name string, lasts time.Duration) error {
		_, err := r.ClaimAnswer(r.ctx, store.AnswerKey{Caller: caller, Name: name}, []byte(name), lasts, most)
		return err
	}
	for i, r := range []*rig{a, b, a} {
		if err := claim(r, "c", fmt.Sprint(i), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := claim(b, "c", "3", time.Hour); !errors.Is(err, store.ErrTooManyAnswers) {
		t.Errorf("one more: %v", err)
	}
	former, err := b.ClaimAnswer(b.ctx, store.AnswerKey{Caller: "c", Name: "1"}, nil, time.Hour, most)
	if err != nil || string(former) != "1" {
		t.Errorf("a known one: %q, %v", former, err)
	}
	for _, other := range []string{"c/", "c0", "", "b"} { // none of which is in the range of c
		if err := claim(b, other, "3", time.Hour); err != nil {
			t.Errorf("another caller, %q: %v", other, err)
		}
	}
	if err := b.DropAnswer(b.ctx, store.AnswerKey{Caller: "c", Name: "1"}); err != nil {
		t.Fatal(err)
	}
	if err := claim(b, "c", "3", time.Second); err != nil {
		t.Errorf("after one was dropped: %v", err)
	}
	if err := claim(b, "c", "4", time.Hour); !errors.Is(err, store.ErrTooManyAnswers) {
		t.Errorf("one more again: %v", err)
	}
	a.eventually("one ends by itself, and there is room", func() bool { return claim(a, "c", "4", time.Hour) == nil })
}

// TestAnswers_leaveNoLeases has each end of a claim take its lease with it.
func TestAnswers_leaveNoLeases(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	leaseOf := func(k store.AnswerKey) clientv3.LeaseID {
		t.Helper()
		resp, err := r.etcd.Get(r.ctx, r.key("answers", k.Caller, k.Name))
		if err != nil || len(resp.Kvs) != 1 {
			t.Fatalf("%+v, %v", resp, err)
		}
		return clientv3.LeaseID(resp.Kvs[0].Lease)
	}
	for name, end := range map[string]func(store.AnswerKey) error{
		"kept":    func(k store.AnswerKey) error { return r.KeepAnswer(r.ctx, k, []byte("done"), time.Hour) },
		"dropped": func(k store.AnswerKey) error { return r.DropAnswer(r.ctx, k) },
	} {
		k := store.AnswerKey{Caller: "c", Name: name}
		if _, err := r.ClaimAnswer(r.ctx, k, []byte("claimed"), time.Hour, 10); err != nil {
			t.Fatal(err)
		}
		lease := leaseOf(k)
		if err := end(k); err != nil {
			t.Fatal(err)
		}
		r.eventually("the claim's lease is gone once it is "+name, func() bool {
			ttl, err := r.etcd.TimeToLive(r.ctx, lease)
			return err == nil && ttl.TTL == -1
		})
	}
	kept, err := r.ClaimAnswer(r.ctx, store.AnswerKey{Caller: "c", Name: "kept"}, nil, time.Hour, 10)
	if err != nil || string(kept) != "done" {
		t.Errorf("%q, %v", kept, err)
	}
}
