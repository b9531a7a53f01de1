package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// listPage is how many keys are asked for at once: a large store's list is
// not one message.
const listPage = 2000

// ignored tells which kinds the view is not made of.
func (k kind) ignored() bool { return slices.Contains(aside(), k) }

// feed feeds the view until ctx is done: a list, then a watch from there, and
// again after the watch broke or fell behind a compaction.
func (s *Store) feed(ctx context.Context) {
	var pause backoff
	for ctx.Err() == nil {
		began := time.Now()
		err := s.listAndWatch(ctx)
		if ctx.Err() != nil {
			return
		}
		s.contact.watching(false, err)
		s.log.Info("listing anew", zap.Error(err))
		pause.wait(ctx, began)
	}
}

func (s *Store) listAndWatch(ctx context.Context) error {
	rev, err := s.list(ctx)
	if err != nil {
		return err
	}
	// Without a leader a cut-off member of the cluster would let us believe
	// that nothing happens.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	// Unfragmented, so that the keys of one Txn come in one response.
	watch := s.client.Watch(ctx, s.cfg.Prefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1),
		clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
	for resp := range watch {
		if err := resp.Err(); err != nil {
			return fmt.Errorf("watching %q: %w", s.cfg.Prefix, err)
		}
		if resp.Created {
			s.contact.watching(true, nil)
		}
		s.view.follow(resp.Events, time.Now())
	}
	return errors.New("the watch ended")
}

// follow takes in the events of the watch, revision by revision.
func (v *View) follow(events []*clientv3.Event, at time.Time) {
	for len(events) > 0 {
		rev, n := events[0].Kv.ModRevision, 1
		for n < len(events) && events[n].Kv.ModRevision == rev {
			n++
		}
		updates := make([]update, n)
		for i, e := range events[:n] {
			updates[i] = update{key: string(e.Kv.Key), value: e.Kv.Value, rev: rev, deleted: e.Type == clientv3.EventTypeDelete}
		}
		v.take(updates, at)
		events = events[n:]
	}
}

// list brings the view to the store's present state, and gives its revision.
func (s *Store) list(ctx context.Context) (int64, error) {
	var all []*mvccpb.KeyValue
	var rev int64
	for _, r := range s.keys.listed() {
		kvs, at, err := s.listRange(ctx, r[0], r[1], rev)
		if err != nil {
			return 0, fmt.Errorf("listing %q: %w", s.keys.prefix, err)
		}
		all, rev = append(all, kvs...), at
	}
	s.view.adopt(all, rev, time.Now())
	return rev, nil
}

// listRange reads [from, to) page by page as it stood at revision rev, or at
// the present one if rev is 0.
func (s *Store) listRange(ctx context.Context, from, to string, rev int64) ([]*mvccpb.KeyValue, int64, error) {
	var all []*mvccpb.KeyValue
	for {
		resp, err := s.page(ctx, from, to, rev)
		if err != nil {
			return nil, 0, explain(err)
		}
		all = append(all, resp.Kvs...)
		if rev == 0 {
			rev = resp.Header.Revision
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return all, rev, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

func (s *Store) page(ctx context.Context, from, to string, rev int64) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return s.client.Get(ctx, from, clientv3.WithRange(to), clientv3.WithRev(rev), clientv3.WithLimit(listPage))
}

// adopt takes in a list as the changes that lead there from what the view
// has; what is gone was deleted while nobody looked.
func (v *View) adopt(kvs []*mvccpb.KeyValue, rev int64, at time.Time) {
	v.take(v.missed(kvs, rev), at)
	v.mu.Lock()
	v.applied = max(v.applied, rev)
	if v.listed == 0 {
		v.listed = rev
	}
	v.mu.Unlock()
	if v.isFirst() {
		close(v.ready)
	}
}

func (v *View) missed(kvs []*mvccpb.KeyValue, rev int64) []update {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var updates []update
	listed := make(map[string]bool, len(kvs))
	for _, kv := range kvs {
		key := string(kv.Key)
		listed[key] = true
		if v.revs[key] != kv.ModRevision {
			updates = append(updates, update{key: key, value: kv.Value, rev: kv.ModRevision})
		}
	}
	for key := range v.revs {
		if !listed[key] {
			updates = append(updates, update{key: key, rev: rev, deleted: true})
		}
	}
	slices.SortFunc(updates, func(a, b update) int { return strings.Compare(a.key, b.key) })
	return updates
}
