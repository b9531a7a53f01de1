package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/sandman-proxy/sandman/internal/session"
)

// TrafficOf is what this node tells of one sandbox.
type TrafficOf struct {
	ID string
	session.Traffic
}

const (
	trafficPerTxn = 128     // etcd's limit
	bytesPerTxn   = 1 << 19 // a third of the largest request that etcd takes
)

// PutTraffic writes what this node tells of each sandbox, on the node's lease,
// and deletes what has become empty. After an error some may be written; the
// caller writes all of them again. A sandbox must be named but once, and only
// one call be under way at a time.
//
//	for each:  put streams/{id}/{node} on the node's lease, or delete it
func (s *Store) PutTraffic(ctx context.Context, all []TrafficOf) error {
	l := s.Lease()
	if !l.Alive(time.Now(), 0) {
		return fmt.Errorf("writing the traffic of %d sandboxes: %w", len(all), ErrNoLease)
	}
	var g errgroup.Group
	g.SetLimit(parallelFlushes)
	var batch []clientv3.Op
	size := 0
	send := func() {
		ops := batch
		batch, size = nil, 0
		g.Go(func() error { return s.putTraffic(ctx, l, ops) })
	}
	for _, t := range all {
		op, n, err := s.opTraffic(t, l)
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		if len(batch) == trafficPerTxn || len(batch) > 0 && size+n > bytesPerTxn {
			send()
		}
		batch, size = append(batch, op), size+n
	}
	if len(batch) > 0 {
		send()
	}
	return g.Wait()
}

func (s *Store) opTraffic(t TrafficOf, l Lease) (op clientv3.Op, size int, err error) {
	key := s.keys.streams(t.ID, s.cfg.Node)
	if t.Empty() {
		return clientv3.OpDelete(key), len(key), nil
	}
	value, err := json.Marshal(t.Traffic)
	if err != nil {
		return op, 0, fmt.Errorf("encoding the traffic of sandbox %q: %w", t.ID, err)
	}
	return clientv3.OpPut(key, string(value), clientv3.WithLease(clientv3.LeaseID(l.ID))), len(key) + len(value), nil
}

func (s *Store) putTraffic(ctx context.Context, l Lease, ops []clientv3.Op) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := s.client.Txn(ctx).Then(ops...).Commit()
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		s.keeper.gone(l.ID)
		return fmt.Errorf("%w (%w)", ErrNoLease, err)
	}
	if err != nil {
		return fmt.Errorf("writing the traffic of %d sandboxes: %w", len(ops), explain(err))
	}
	return nil
}
