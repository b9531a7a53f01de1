package store

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// EndFormer ends at once what processes that died have left under the prefix
// ("": the default): their nodes, presence and leadership, which would stand
// until their leases end. Records, open visits and holds stay.
//
// It is for a store that no other process can use, and must be called before
// anything in this one does: presence of the living would go, too.
func EndFormer(ctx context.Context, client *clientv3.Client, prefix string) error {
	k := keys{Config{Prefix: prefix}.withDefaults().Prefix}
	ended := make(map[int64]bool)
	for _, of := range []kind{kindNode, kindPresence, kindLeader} {
		resp, err := client.Get(ctx, k.prefix+string(of)+"/", clientv3.WithPrefix()) // keys alone tell no lease
		if err != nil {
			return fmt.Errorf("listing what former processes left: %w", explain(err))
		}
		for _, kv := range resp.Kvs {
			if kv.Lease == 0 || ended[kv.Lease] {
				continue
			}
			ended[kv.Lease] = true
			_, err := client.Revoke(ctx, clientv3.LeaseID(kv.Lease))
			if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
				return fmt.Errorf("ending the lease of a former process: %w", explain(err))
			}
		}
	}
	return nil
}
