package store

import (
	"context"
	"crypto/rand"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// secretBytes is the length of a secret.
const secretBytes = 32

// Secret gives the secret of that name, the same to every process on the store.
// Whoever asks first makes it:
//
//	If    there is no secrets/{name}
//	Then  put it, of 32 random bytes
//	Else  get it
func (s *Store) Secret(ctx context.Context, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	secret := make([]byte, secretBytes)
	_, _ = rand.Read(secret) // never fails
	key := s.keys.secret(name)
	resp, err := s.client.Txn(ctx).If(unchanged(key, 0)).
		Then(clientv3.OpPut(key, string(secret))).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return nil, fmt.Errorf("reading secret %q: %w", name, explain(err))
	}
	if resp.Succeeded {
		return secret, nil
	}
	kvs := resp.Responses[0].GetResponseRange().GetKvs()
	if len(kvs) != 1 || len(kvs[0].Value) < secretBytes {
		return nil, fmt.Errorf("reading secret %q: %w", name, ErrBroken)
	}
	return kvs[0].Value, nil
}
