package store

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
)

const (
	// foldPage is how many keys one step of folding looks at.
	foldPage = 2000
	// foldMost is how many keys are merged in one Txn: etcd takes 128
	// operations.
	foldMost = 100
	// dropMost is how many days that are too old one step drops.
	dropMost = 7
)

// Folder keeps the usage small: it merges what each day that is over has of one
// sandbox into one key, and drops what is older than session.KeepUsage. It goes
// through all of it in steps that are bounded, again and again: a long sleep adds
// to days long gone when it ends. It is for one goroutine, of the leader; two
// at work do no harm, since each merge compares all that it merges.
type Folder struct {
	s     *Store
	today session.Day
	after string // the key that the last step ended with
}

// NewFolder gives a Folder that begins with yesterday.
func (s *Store) NewFolder() *Folder { return &Folder{s: s} }

// Step does a bounded part of the work, and tells how many keys it has merged
// away.
func (f *Folder) Step(ctx context.Context, now time.Time) (merged int, err error) {
	if today := session.DayOf(now); today != f.today { // what has just ended first
		f.today = today
		f.after = f.s.keys.usageOf(string(session.DayOf(now.Add(-24 * time.Hour))))
	}
	if err := f.s.dropUsage(ctx, session.DayOf(now.Add(-session.KeepUsage))); err != nil {
		return 0, err
	}
	kvs, more, err := f.page(ctx)
	if err != nil {
		return 0, fmt.Errorf("folding usage: %w", explain(err))
	}
	if len(kvs) > 0 {
		f.after = string(kvs[len(kvs)-1].Key) + "\x00"
	}
	if !more {
		f.after = f.s.keys.usageRoot()
	}
	for len(kvs) > 0 {
		n := f.s.keys.sameDay(kvs)
		if n > 1 {
			gone, err := f.s.merge(ctx, kvs[:n])
			if err != nil {
				return merged, fmt.Errorf("folding usage: %w", explain(err))
			}
			merged += gone
		}
		kvs = kvs[n:]
	}
	return merged, nil
}

func (f *Folder) page(ctx context.Context) (kvs []*mvccpb.KeyValue, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	to := f.s.keys.usageOf(string(f.today))
	if f.after >= to {
		return nil, false, nil
	}
	resp, err := f.s.client.Get(ctx, f.after, clientv3.WithRange(to), clientv3.WithLimit(foldPage))
	if err != nil {
		return nil, false, err
	}
	return resp.Kvs, resp.More, nil
}

// sameDay is how many of the first keys are of one day and sandbox, at least 1
// and at most what one Txn takes. A month's keys are few, and stay.
func (k keys) sameDay(kvs []*mvccpb.KeyValue) int {
	first, ok := k.parseUsage(string(kvs[0].Key))
	n := 1
	for ok && first.isDay() && n < min(len(kvs), foldMost) {
		if next, _ := k.parseUsage(string(kvs[n].Key)); next != first {
			break
		}
		n++
	}
	return n
}

// merge puts the sums of the keys in the place of the first. Where one of them
// has changed meanwhile, another leader was quicker.
//
//	If    mod(each key) = as read
//	Then  put the first; delete the others
func (s *Store) merge(ctx context.Context, kvs []*mvccpb.KeyValue) (gone int, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var sum storedUsage
	when := make([]clientv3.Cmp, 0, len(kvs))
	do := make([]clientv3.Op, 1, len(kvs))
	for i, kv := range kvs {
		stored, err := decodeUsage(kv.Value)
		if err != nil || stored.First != stored.Last {
			return 0, nil // it stays as it is, for whoever can read it
		}
		sum = sum.add(stored)
		when = append(when, unchanged(string(kv.Key), kv.ModRevision))
		if i > 0 {
			do = append(do, clientv3.OpDelete(string(kv.Key)))
		}
	}
	do[0] = clientv3.OpPut(string(kvs[0].Key), encode(sum))
	resp, err := s.client.Txn(ctx).If(when...).Then(do...).Commit()
	if err != nil || !resp.Succeeded {
		return 0, err
	}
	return len(kvs) - 1, nil
}

// add sums up usage of the same day, each owner and project for itself.
func (u storedUsage) add(o storedUsage) storedUsage {
	u.First, u.Last = o.First, o.Last
next:
	for _, part := range o.Parts {
		for i, have := range u.Parts {
			if have.Owner == part.Owner && have.Project == part.Project {
				u.Parts[i] = have.Add(part)
				continue next
			}
		}
		u.Parts = append(u.Parts, part)
	}
	return u
}

// dropUsage deletes the usage of days and months that ended before the given
// day, some of them.
func (s *Store) dropUsage(ctx context.Context, before session.Day) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for range dropMost {
		root := s.keys.usageRoot()
		resp, err := s.client.Get(ctx, root, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly())
		if err != nil {
			return fmt.Errorf("looking for old usage: %w", explain(err))
		}
		if len(resp.Kvs) == 0 {
			return nil
		}
		k, ok := s.keys.parseUsage(string(resp.Kvs[0].Key))
		if !ok || k.span >= string(before)[:min(len(k.span), len(before))] {
			return nil
		}
		if _, err := s.client.Delete(ctx, s.keys.usageOf(k.span), clientv3.WithPrefix()); err != nil {
			return fmt.Errorf("dropping usage of %s: %w", k.span, explain(err))
		}
	}
	return nil
}
