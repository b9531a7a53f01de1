package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
)

// longestHold is what a hold may last: etcd's lease times and JSON's dates
// both have an end.
const longestHold = 10 * 365 * 24 * time.Hour

// PutHold keeps a sandbox awake until h.ExpiresAt, on a lease of its own; a
// hold of the same name is replaced. rec is its RUNNING record: a hold on
// anything else would protect nothing, so wake it first.
//
//	If    mod(record) = rec.Revision, lease(hold) = as read
//	Then  put holds/{id}/{name} on a new lease
func (s *Store) PutHold(ctx context.Context, rec session.Record, h session.Hold) error {
	st, err := s.stepOn("holding", rec.SandboxID, rec.Revision)
	if err != nil {
		return err
	}
	ttl := time.Until(h.ExpiresAt)
	switch {
	case rec.State != session.Running:
		return st.failed(fmt.Errorf("it is %s, not %s: %w", rec.State, session.Running, ErrConflict))
	case ttl <= 0:
		return st.failed(errors.New("the hold has expired already"))
	case ttl > longestHold:
		return st.failed(fmt.Errorf("a hold can't last longer than %s", longestHold))
	}
	earlier, err := s.holdLease(ctx, st.id, h.Name)
	if err != nil {
		return err
	}
	l, err := s.grant(ctx, ttl)
	if err != nil {
		return st.failed(err)
	}
	// of two that replace the same one, the second looks again: else nobody knew the first one's lease
	st.when = append(st.when, clientv3.Compare(clientv3.LeaseValue(s.keys.hold(st.id, h.Name)), "=", earlier))
	st.do = []clientv3.Op{clientv3.OpPut(s.keys.hold(st.id, h.Name), encode(h), clientv3.WithLease(clientv3.LeaseID(l.ID)))}
	_, err = s.commit(ctx, st)
	switch {
	case err == nil && earlier != 0:
		s.revoke(ctx, earlier) // the key is not on it any more
	case errors.Is(err, ErrConflict):
		s.revoke(ctx, l.ID)
	}
	return err
}

// holdLease gives the lease that a hold is on, 0 if there is no such hold.
func (s *Store) holdLease(ctx context.Context, id, name string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	// not WithKeysOnly: that leaves out the lease
	resp, err := s.client.Get(ctx, s.keys.hold(id, name))
	if err != nil {
		return 0, fmt.Errorf("reading hold %q of sandbox %q: %w", name, id, explain(err))
	}
	if len(resp.Kvs) == 0 {
		return 0, nil
	}
	return resp.Kvs[0].Lease, nil
}

// DeleteHold ends a hold. One that isn't there is no error.
func (s *Store) DeleteHold(ctx context.Context, id, name string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Delete(ctx, s.keys.hold(id, name), clientv3.WithPrevKV())
	if err != nil {
		return fmt.Errorf("deleting hold %q of sandbox %q: %w", name, id, explain(err))
	}
	for _, kv := range resp.PrevKvs {
		if kv.Lease != 0 {
			s.revoke(ctx, kv.Lease)
		}
	}
	return nil
}
