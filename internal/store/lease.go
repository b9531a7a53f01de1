package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Lease is what this node knows of its lease. Presence that was put under it
// may be believed as long as it is alive by the node's own clock.
type Lease struct {
	ID    int64     // 0: there is none
	Until time.Time // monotonic: sending of the last acknowledged keep-alive + TTL, so never later than etcd's own end
}

// Alive tells whether the lease exists and has more than margin left.
func (l Lease) Alive(now time.Time, margin time.Duration) bool {
	return l.ID != 0 && now.Add(margin).Before(l.Until)
}

// revokeTimeout bounds the farewell: whoever stops must not wait for a store
// that is away, and the lease ends by itself.
const revokeTimeout = time.Second

// keeper keeps the node's lease, and nodes/{node} under it.
type keeper struct {
	s       *Store
	current atomic.Pointer[Lease]
	lost    chan int64 // a lease that etcd says is gone
}

func newKeeper(s *Store) *keeper {
	k := &keeper{s: s, lost: make(chan int64, 1)}
	k.current.Store(&Lease{})
	return k
}

func (k *keeper) lease() Lease { return *k.current.Load() }

// gone tells the keeper that a Txn found no such lease in etcd.
func (k *keeper) gone(id int64) {
	select {
	case k.lost <- id:
	default: // one is enough
	}
}

// run is the node's life in the store: one lease after the other, each held
// until it is lost.
func (k *keeper) run(ctx context.Context) {
	var pause backoff
	for ctx.Err() == nil {
		began := time.Now()
		l, err := k.begin(ctx)
		if err != nil {
			k.s.contact.unanswered("no lease", err)
			pause.wait(ctx, began)
			continue
		}
		k.s.log.Info("has a lease", zap.String("node", k.s.cfg.Node), zap.Int64("lease", l.ID))
		err = k.hold(ctx, l)
		k.current.Store(&Lease{})
		if ctx.Err() == nil {
			k.s.contact.unanswered("lease lost", err)
		}
		// Also after a loss: a restarted etcd gives old leases a whole new
		// TTL, and with this one presence that nobody stands behind.
		k.s.revoke(ctx, l.ID)
	}
}

// begin is granted a lease, puts nodes/{node} under it and publishes it.
func (k *keeper) begin(ctx context.Context) (Lease, error) {
	l, err := k.s.grant(ctx, k.s.cfg.LeaseTTL)
	if err != nil {
		return Lease{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	value, _ := json.Marshal(nodeValue{Since: time.Now()}) // can't fail
	_, err = k.s.client.Put(ctx, k.s.keys.node(k.s.cfg.Node), string(value), clientv3.WithLease(clientv3.LeaseID(l.ID)))
	if err != nil {
		k.s.revoke(ctx, l.ID)
		return Lease{}, fmt.Errorf("putting node %q: %w", k.s.cfg.Node, explain(err))
	}
	k.publish(l)
	return l, nil
}

// publish takes its own copy: what was published never changes.
func (k *keeper) publish(l Lease) {
	k.current.Store(&l)
	k.s.contact.answered(l.Until.Add(-k.s.cfg.LeaseTTL), time.Now())
}

// nodeValue is what stands under nodes/{node}. It is for people.
type nodeValue struct {
	Since time.Time `json:"since"`
}

// hold keeps the lease alive until it is lost or ctx is done. Failed attempts
// are repeated as long as the lease can still be alive.
func (k *keeper) hold(ctx context.Context, l Lease) error {
	beat := beatOf(k.s.cfg.LeaseTTL)
	timer := time.NewTimer(beat)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case id := <-k.lost:
			if id == l.ID {
				return rpctypes.ErrLeaseNotFound
			}
			continue // an earlier one
		case <-timer.C:
		}
		renewed, err := k.beat(ctx, l)
		switch {
		case err == nil:
			l = renewed
		case errors.Is(err, rpctypes.ErrLeaseNotFound) || !l.Alive(time.Now(), 0):
			return err
		case ctx.Err() == nil:
			k.s.contact.unanswered("no answer", err)
		}
		timer.Reset(beat)
	}
}

// beat makes sure that the store is in reach: by a keep-alive when it is time
// for one, otherwise by looking at the node's key, which costs etcd less (a
// keep-alive is a stream, and logs in anew where there is a password).
func (k *keeper) beat(ctx context.Context, l Lease) (Lease, error) {
	if k.s.dueForRenewal(l) {
		renewed, err := k.s.keepAlive(ctx, l)
		if err == nil {
			k.publish(renewed)
		}
		return renewed, err
	}
	ctx, cancel := context.WithTimeout(ctx, tryOf(k.s.cfg.LeaseTTL))
	defer cancel()
	sent := time.Now()
	resp, err := k.s.client.Get(ctx, k.s.keys.node(k.s.cfg.Node), clientv3.WithKeysOnly())
	switch {
	case err != nil:
		return l, fmt.Errorf("looking at node %q: %w", k.s.cfg.Node, explain(err))
	case len(resp.Kvs) == 0:
		return l, fmt.Errorf("node %q is gone: %w", k.s.cfg.Node, rpctypes.ErrLeaseNotFound)
	}
	k.s.contact.answered(sent, time.Now())
	k.s.contact.full(k.s.isFull(ctx))
	return l, nil
}

// isFull asks for the alarm that etcd raises over its quota: keep-alives and
// reads go on, so that nothing else would tell a process that writes nothing
// just now. No answer is no alarm.
func (s *Store) isFull(ctx context.Context) bool {
	var resp *pb.StatusResponse
	var err error
	if conn := s.client.ActiveConnection(); conn != nil {
		resp, err = pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{}) // the client's own Status would dial anew
	} else { // embedded
		var status *clientv3.StatusResponse
		status, err = s.client.Status(ctx, "")
		resp = (*pb.StatusResponse)(status)
	}
	return err == nil && slices.ContainsFunc(resp.Errors, func(alarm string) bool {
		return strings.Contains(alarm, pb.AlarmType_NOSPACE.String())
	})
}

// dueForRenewal leaves time for several attempts.
func (s *Store) dueForRenewal(l Lease) bool {
	return time.Until(l.Until) < s.cfg.LeaseTTL*3/4
}

// grant asks for a new lease.
func (s *Store) grant(ctx context.Context, ttl time.Duration) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	sent := time.Now()
	resp, err := s.client.Grant(ctx, seconds(ttl))
	if err != nil {
		return Lease{}, fmt.Errorf("granting a lease: %w", explain(err))
	}
	return Lease{ID: int64(resp.ID), Until: sent.Add(ttl)}, nil
}

var errOutlived = errors.New("answered after the lease had ended by our own clock")

// keepAlive makes one attempt to renew a lease. The client may send more than
// once in it; Until counts from before the first. (The client's own KeepAlive
// doesn't tell when it has sent what was acknowledged.)
func (s *Store) keepAlive(ctx context.Context, l Lease) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, tryOf(s.cfg.LeaseTTL))
	defer cancel()
	sent := time.Now()
	_, err := s.client.KeepAliveOnce(ctx, clientv3.LeaseID(l.ID))
	if err == nil && !l.Alive(time.Now(), 0) {
		// etcd still has it, but this node has told everybody that it is over,
		// and what was begun under it must not come back to life
		err = errOutlived
	}
	if err != nil {
		return l, fmt.Errorf("renewing lease %x: %w", l.ID, err)
	}
	l.Until = sent.Add(s.cfg.LeaseTTL)
	return l, nil
}

// revoke ends a lease, and deletes the keys under it, if the store can be
// reached at once. ctx may be done.
func (s *Store) revoke(ctx context.Context, id int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	_, err := s.client.Revoke(ctx, clientv3.LeaseID(id))
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		s.log.Debug("lease is left to end by itself", zap.Int64("lease", id), zap.Error(err))
	}
}

// seconds rounds up: a lease that lasts longer than asked for is harmless,
// one that ends early is not.
func seconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}

// backoff paces attempts while the store is away: 100 ms, doubling to 2 s,
// and from the beginning after one that had lasted.
type backoff struct{ next time.Duration }

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 2 * time.Second
)

// wait pauses after an attempt that began at the given time, or until ctx is
// done.
func (b *backoff) wait(ctx context.Context, began time.Time) {
	if b.next == 0 || time.Since(began) > longestPause {
		b.next = firstPause
	}
	timer := time.NewTimer(b.next)
	defer timer.Stop()
	b.next = min(2*b.next, longestPause)
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
