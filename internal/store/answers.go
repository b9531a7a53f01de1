package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrTooManyAnswers is wrapped by the error of a claim for which the caller has
// too many answers already. Nothing was written.
var ErrTooManyAnswers = errors.New("the caller has as many answers as are kept")

// AnswerKey says whose answer it is, and which of theirs.
type AnswerKey struct {
	Caller, Name string
}

// ClaimAnswer puts a value under a key that has none, on a lease of its own,
// unless the caller has most of them. Of those that claim at the same time some
// may get one more.
//
//	If    there is no answers/{caller}/{name}
//	Then  put it
//	Else  get it: former
func (s *Store) ClaimAnswer(ctx context.Context, of AnswerKey, value []byte, lasts time.Duration, most int) (former []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if former, err = s.formerAnswer(ctx, of, most); former == nil && err == nil {
		former, err = s.putAnswer(ctx, of, value, lasts)
	}
	if err != nil {
		return nil, fmt.Errorf("claiming answer %q: %w", of.Name, explain(err))
	}
	return former, nil
}

// formerAnswer gives what stands under the key. Where nothing does, it counts
// what the caller has.
func (s *Store) formerAnswer(ctx context.Context, of AnswerKey, most int) ([]byte, error) {
	resp, err := s.client.Txn(ctx).Then(
		clientv3.OpGet(s.keys.answer(of)),
		clientv3.OpGet(s.keys.folder(kindAnswer, of.Caller), clientv3.WithPrefix(), clientv3.WithCountOnly()),
	).Commit()
	if err != nil {
		return nil, err
	}
	if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
		return kvs[0].Value, nil
	}
	if resp.Responses[1].GetResponseRange().GetCount() >= int64(most) {
		return nil, ErrTooManyAnswers
	}
	return nil, nil
}

// putAnswer puts the value where there is none yet, else it gives the former one.
func (s *Store) putAnswer(ctx context.Context, of AnswerKey, value []byte, lasts time.Duration) ([]byte, error) {
	l, err := s.grant(ctx, lasts)
	if err != nil {
		return nil, err
	}
	key := s.keys.answer(of)
	resp, err := s.client.Txn(ctx).If(unchanged(key, 0)).
		Then(clientv3.OpPut(key, string(value), clientv3.WithLease(clientv3.LeaseID(l.ID)))).
		Else(clientv3.OpGet(key)).Commit()
	if err != nil { // it may be there; the lease ends it
		return nil, err
	}
	if resp.Succeeded {
		return nil, nil
	}
	s.revoke(ctx, l.ID)
	for _, kv := range resp.Responses[0].GetResponseRange().GetKvs() {
		return kv.Value, nil
	}
	return nil, ErrConflict
}

// KeepAnswer replaces a value, on a new lease.
func (s *Store) KeepAnswer(ctx context.Context, of AnswerKey, value []byte, lasts time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	l, err := s.grant(ctx, lasts)
	if err != nil {
		return fmt.Errorf("keeping answer %q: %w", of.Name, err)
	}
	resp, err := s.client.Put(ctx, s.keys.answer(of), string(value), clientv3.WithLease(clientv3.LeaseID(l.ID)), clientv3.WithPrevKV())
	if err != nil {
		return fmt.Errorf("keeping answer %q: %w", of.Name, explain(err))
	}
	if was := resp.PrevKv; was != nil && was.Lease != 0 {
		s.revoke(ctx, was.Lease)
	}
	return nil
}

// DropAnswer deletes a value. One that isn't there is no error.
func (s *Store) DropAnswer(ctx context.Context, of AnswerKey) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Delete(ctx, s.keys.answer(of), clientv3.WithPrevKV())
	if err != nil {
		return fmt.Errorf("dropping answer %q: %w", of.Name, explain(err))
	}
	for _, kv := range resp.PrevKvs {
		if kv.Lease != 0 {
			s.revoke(ctx, kv.Lease)
		}
	}
	return nil
}
