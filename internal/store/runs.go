package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
)

// maxRuns is how many of the leader's runs are kept.
const maxRuns = 500

// AddRun keeps a run, and lets the oldest go beyond the newest 500.
func (s *Store) AddRun(ctx context.Context, r session.Run) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err := s.client.Put(ctx, s.keys.join(kindRun, r.ID), encode(r)); err != nil {
		return fmt.Errorf("storing run %q: %w", r.ID, explain(err))
	}
	return s.trimRuns(ctx)
}

func (s *Store) trimRuns(ctx context.Context) error {
	folder := s.keys.join(kindRun) + "/"
	kept, err := s.client.Get(ctx, folder, clientv3.WithPrefix(), clientv3.WithLimit(maxRuns+1),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithKeysOnly())
	if err != nil {
		return fmt.Errorf("trimming runs: %w", explain(err))
	}
	if len(kept.Kvs) <= maxRuns {
		return nil
	}
	oldest := string(kept.Kvs[maxRuns].Key)
	if _, err := s.client.Delete(ctx, folder, clientv3.WithRange(oldest+"\x00")); err != nil {
		return fmt.Errorf("trimming runs: %w", explain(err))
	}
	return nil
}

// Runs gives the leader's runs that are kept, the newest first. What can't be
// read is left out.
func (s *Store) Runs(ctx context.Context) ([]session.Run, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Get(ctx, s.keys.join(kindRun)+"/", clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("reading runs: %w", explain(err))
	}
	all := make([]session.Run, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		var r session.Run
		if json.Unmarshal(kv.Value, &r) == nil && r.ID != "" {
			all = append(all, r)
		}
	}
	slices.Reverse(all)
	return all, nil
}
