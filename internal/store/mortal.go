package store

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// mortal is a server in this process that may die without a word: the
// goroutine that could not write is gone, with the locks that it held. Calls
// into it that are under way would never return, whatever their context says.
type mortal interface {
	Ended() <-chan struct{}
	Err() error
}

// outlive makes a call into a server, and returns when that has died, too.
func outlive[T any](m mortal, call func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := call()
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-m.Ended():
		var none T
		return none, m.Err()
	}
}

// outliving gives the client calls that outlive the server, of those that
// Sandman makes.
func outliving(c *clientv3.Client, m mortal) *clientv3.Client {
	c.KV, c.Lease, c.Maintenance = mortalKV{c.KV, m}, mortalLease{c.Lease, m}, mortalMaintenance{c.Maintenance, m}
	return c
}

type mortalKV struct {
	clientv3.KV
	m mortal
}

func (kv mortalKV) Put(ctx context.Context, key, value string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	return outlive(kv.m, func() (*clientv3.PutResponse, error) { return kv.KV.Put(ctx, key, value, opts...) })
}

func (kv mortalKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return outlive(kv.m, func() (*clientv3.GetResponse, error) { return kv.KV.Get(ctx, key, opts...) })
}

func (kv mortalKV) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	return outlive(kv.m, func() (*clientv3.DeleteResponse, error) { return kv.KV.Delete(ctx, key, opts...) })
}

func (kv mortalKV) Compact(ctx context.Context, rev int64, opts ...clientv3.CompactOption) (*clientv3.CompactResponse, error) {
	return outlive(kv.m, func() (*clientv3.CompactResponse, error) { return kv.KV.Compact(ctx, rev, opts...) })
}

func (kv mortalKV) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	return outlive(kv.m, func() (clientv3.OpResponse, error) { return kv.KV.Do(ctx, op) })
}

func (kv mortalKV) Txn(ctx context.Context) clientv3.Txn { return mortalTxn{kv.KV.Txn(ctx), kv.m} }

type mortalTxn struct {
	clientv3.Txn
	m mortal
}

func (t mortalTxn) If(cs ...clientv3.Cmp) clientv3.Txn   { return mortalTxn{t.Txn.If(cs...), t.m} }
func (t mortalTxn) Then(ops ...clientv3.Op) clientv3.Txn { return mortalTxn{t.Txn.Then(ops...), t.m} }

func (t mortalTxn) Else(ops ...clientv3.Op) clientv3.Txn { return mortalTxn{t.Txn.Else(ops...), t.m} }

func (t mortalTxn) Commit() (*clientv3.TxnResponse, error) {
	return outlive(t.m, t.Txn.Commit)
}

type mortalLease struct {
	clientv3.Lease
	m mortal
}

func (l mortalLease) Grant(ctx context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error) {
	return outlive(l.m, func() (*clientv3.LeaseGrantResponse, error) { return l.Lease.Grant(ctx, ttl) })
}

func (l mortalLease) Revoke(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseRevokeResponse, error) {
	return outlive(l.m, func() (*clientv3.LeaseRevokeResponse, error) { return l.Lease.Revoke(ctx, id) })
}

func (l mortalLease) KeepAliveOnce(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseKeepAliveResponse, error) {
	return outlive(l.m, func() (*clientv3.LeaseKeepAliveResponse, error) { return l.Lease.KeepAliveOnce(ctx, id) })
}

type mortalMaintenance struct {
	clientv3.Maintenance
	m mortal
}

func (mt mortalMaintenance) Status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error) {
	return outlive(mt.m, func() (*clientv3.StatusResponse, error) { return mt.Maintenance.Status(ctx, endpoint) })
}

func (mt mortalMaintenance) AlarmDisarm(ctx context.Context, a *clientv3.AlarmMember) (*clientv3.AlarmResponse, error) {
	return outlive(mt.m, func() (*clientv3.AlarmResponse, error) { return mt.Maintenance.AlarmDisarm(ctx, a) })
}
