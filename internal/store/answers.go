package store

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ClaimAnswer puts a value under a key that has none, on a lease of its own:
//
//	If    there is no answers/{name}
//	Then  put it
//	Else  get it: former
func (s *Store) ClaimAnswer(ctx context.Context, name string, value []byte, lasts time.Duration) (former []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	l, err := s.grant(ctx, lasts)
	if err != nil {
		return nil, fmt.Errorf("claiming answer %q: %w", name, err)
	}
	key := s.keys.answer(name)
	resp, err := s.client.Txn(ctx).If(unchanged(key, 0)).
		Then(clientv3.OpPut(key, string(value), clientv3.WithLease(clientv3.LeaseID(l.ID)))).
		Else(clientv3.OpGet(key)).Commit()
	if err != nil { // it may be there; the lease ends it
		return nil, fmt.Errorf("claiming answer %q: %w", name, explain(err))
	}
	if resp.Succeeded {
		return nil, nil
	}
	s.revoke(ctx, l.ID)
	for _, kv := range resp.Responses[0].GetResponseRange().GetKvs() {
		return kv.Value, nil
	}
	return nil, fmt.Errorf("claiming answer %q: %w", name, ErrConflict)
}

// KeepAnswer replaces a value, on a new lease.
func (s *Store) KeepAnswer(ctx context.Context, name string, value []byte, lasts time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	l, err := s.grant(ctx, lasts)
	if err == nil {
		_, err = s.client.Put(ctx, s.keys.answer(name), string(value), clientv3.WithLease(clientv3.LeaseID(l.ID)))
	}
	if err != nil {
		return fmt.Errorf("keeping answer %q: %w", name, explain(err))
	}
	return nil
}

// DropAnswer deletes a value. One that isn't there is no error.
func (s *Store) DropAnswer(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err := s.client.Delete(ctx, s.keys.answer(name)); err != nil {
		return fmt.Errorf("dropping answer %q: %w", name, explain(err))
	}
	return nil
}
