package store_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/store"
)

func TestEndFormer_leavesNothingOfTheDeadButWhatOutlivesThem(t *testing.T) {
	t.Parallel()
	prefix := "/" + url.PathEscape(t.Name()) + "/"
	etcd := client()
	put := func(key string, ttl int64) {
		t.Helper()
		var opts []clientv3.OpOption
		if ttl > 0 {
			lease, err := etcd.Grant(t.Context(), ttl)
			if err != nil {
				t.Fatal(err)
			}
			opts = append(opts, clientv3.WithLease(lease.ID))
		}
		if _, err := etcd.Put(t.Context(), key, "{}", opts...); err != nil {
			t.Fatal(err)
		}
	}
	const longer = 600 // seconds; none ends by itself while the test runs
	for _, key := range []string{"nodes/dead", "presence/s/dead", "leader/1f"} {
		put(prefix+key, longer)
	}
	kept := []string{"activity/s", "holds/s/h", "sandboxes/s"}
	put(prefix+"activity/s", 0)
	put(prefix+"sandboxes/s", 0)
	put(prefix+"holds/s/h", longer)
	other := strings.TrimSuffix(prefix, "/") + "-other/presence/s/living"
	put(other, longer)

	for range 2 { // the second time there is nothing to do
		if err := store.EndFormer(t.Context(), etcd, strings.TrimSuffix(prefix, "/")); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := etcd.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, kv := range resp.Kvs {
		left = append(left, strings.TrimPrefix(string(kv.Key), prefix))
	}
	if !slices.Equal(left, kept) {
		t.Errorf("left of a process that died: %q, wanted %q", left, kept)
	}
	if resp, err := etcd.Get(t.Context(), other); err != nil || resp.Count != 1 {
		t.Errorf("presence under another prefix: %v, %v", resp, err)
	}
}
