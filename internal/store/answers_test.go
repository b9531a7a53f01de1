package store_test

import (
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestAnswers_belongToWhoClaimedThemFirst(t *testing.T) {
	t.Parallel()
	prefix := fmt.Sprintf("/%s-%d/", t.Name(), time.Now().UnixNano()) // -count comes to the same etcd
	a, b := newNode(t, server.Client(), prefix, "node-a"), newNode(t, server.Client(), prefix, "node-b")
	claim := func(r *rig, value string) string {
		t.Helper()
		former, err := r.ClaimAnswer(r.ctx, "k", []byte(value), time.Minute)
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
	if err := a.KeepAnswer(a.ctx, "k", []byte("done"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if former := claim(b, "b's"); former != "done" {
		t.Errorf("it was %q", former)
	}
	kv, err := server.Client().Get(t.Context(), prefix+"answers/k")
	if err != nil || len(kv.Kvs) != 1 {
		t.Fatalf("%+v, %v", kv, err)
	}
	ttl, err := server.Client().TimeToLive(t.Context(), clientv3.LeaseID(kv.Kvs[0].Lease))
	if err != nil || ttl.GrantedTTL != 3600 {
		t.Errorf("it lasts for %+v, %v", ttl, err)
	}
	for range 2 {
		if err := b.DropAnswer(b.ctx, "k"); err != nil {
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
