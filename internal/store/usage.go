package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

// Usage is appended: the Txn that ends a time puts what it adds to each day
// under the revision of the record that it replaces, as
// usage/{day}/{id}/{revision}. Whole days of a month that were the same have one
// key together, usage/{month}/{id}/{revision}-{first day}: a sleep of a year is
// a dozen keys. FoldUsage merges what one day has of one sandbox.

// storedUsage is the value of such a key: what each of the days had, for each
// owner and project.
type storedUsage struct {
	First session.Day     `json:"first"`
	Last  session.Day     `json:"last"`
	Parts []session.Usage `json:"parts"`
}

// opsUsage puts what the step from one record to the next adds to the usage.
func (s *Store) opsUsage(from, next session.Record) []clientv3.Op {
	days := session.UsageBetween(from, next, s.cfg.HostTimeout)
	ops := make([]clientv3.Op, 0, len(days)+2) // the record and its history follow
	for _, d := range days {
		key := s.keys.usage(string(d.First), next.SandboxID, next.Revision)
		if d.First != d.Last {
			key = s.keys.usage(d.First.Month(), next.SandboxID, next.Revision) + "-" + string(d.First)
		}
		ops = append(ops, clientv3.OpPut(key, encode(storedUsage{d.First, d.Last, []session.Usage{d.Usage}})))
	}
	return ops
}

// UsedDays is what a sandbox used on each of some days, under one owner and
// project.
type UsedDays struct {
	SandboxID string
	session.Days
}

// Usage gives what all sandboxes have used from one day to another, both
// included, also those that are gone, and up to now those that are not: the
// stored usage and the records are of the same moment. There may be several
// UsedDays of one sandbox and day; they are to be added.
func (s *Store) Usage(ctx context.Context, from, to session.Day, now time.Time) ([]UsedDays, error) {
	if err := s.view.Ready(ctx); err != nil {
		return nil, err
	}
	records, rev := s.view.standing()
	used, err := s.usageAt(ctx, from, to, rev)
	if errors.Is(err, rpctypes.ErrCompacted) { // others have written since, and nothing of ours
		if records, rev, err = s.recordsNow(ctx); err == nil {
			used, err = s.usageAt(ctx, from, to, rev)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading usage from %s to %s: %w", from, to, err)
	}
	for _, r := range records {
		for _, d := range session.DaysUsed(r, now, s.cfg.HostTimeout) {
			used = appendWithin(used, UsedDays{r.SandboxID, d}, from, to)
		}
	}
	return used, nil
}

// appendWithin adds the part of d that is between the two days.
func appendWithin(used []UsedDays, d UsedDays, from, to session.Day) []UsedDays {
	d.First, d.Last = max(d.First, from), min(d.Last, to)
	if d.First > d.Last {
		return used
	}
	return append(used, d)
}

// standing gives all records, and the revision of the store that they are of.
func (v *View) standing() ([]session.Record, int64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	records := make([]session.Record, 0, len(v.all))
	for _, sb := range v.all {
		if sb.exists() {
			records = append(records, sb.Record)
		}
	}
	return records, v.applied
}

// recordsNow reads the records from the store.
func (s *Store) recordsNow(ctx context.Context) ([]session.Record, int64, error) {
	folder := s.keys.prefix + string(kindRecord) + "/"
	kvs, rev, err := s.listRange(ctx, folder, clientv3.GetPrefixRangeEnd(folder), 0)
	if err != nil {
		return nil, 0, err
	}
	records := make([]session.Record, 0, len(kvs))
	for _, kv := range kvs {
		p, err := s.keys.parse(string(kv.Key))
		if err != nil {
			continue // as in the view
		}
		if r, err := decodeRecord(p.id, kv.Value); err == nil {
			records = append(records, r)
		}
	}
	return records, rev, nil
}

// usageAt reads the stored usage as it stood at a revision: the keys of the
// days, which stand together, and those of the months that they are of.
func (s *Store) usageAt(ctx context.Context, from, to session.Day, rev int64) ([]UsedDays, error) {
	first, last := s.keys.usageOf(string(from)), s.keys.usageOf(string(to))
	kvs, rev, err := s.listRange(ctx, first, clientv3.GetPrefixRangeEnd(last), rev)
	if err != nil {
		return nil, err
	}
	var used []UsedDays
	for _, kv := range kvs {
		// a month's keys stand behind those of its days
		if k, ok := s.keys.parseUsage(string(kv.Key)); ok && k.isDay() {
			used = s.appendStored(used, k.id, kv, from, to)
		}
	}
	for month := from.Month(); month <= to.Month(); month = nextMonth(month) {
		folder := s.keys.usageOf(month)
		kvs, _, err := s.listRange(ctx, folder, clientv3.GetPrefixRangeEnd(folder), rev)
		if err != nil {
			return nil, err
		}
		for _, kv := range kvs {
			if k, ok := s.keys.parseUsage(string(kv.Key)); ok {
				used = s.appendStored(used, k.id, kv, from, to)
			}
		}
	}
	return used, nil
}

func nextMonth(month string) string {
	t, err := time.Parse("2006-01", month)
	if err != nil {
		return "~" // behind all months
	}
	return t.AddDate(0, 1, 0).Format("2006-01")
}

// appendStored adds what a key says. One that can't be read is left out, and
// said in the log.
func (s *Store) appendStored(used []UsedDays, id string, kv *mvccpb.KeyValue, from, to session.Day) []UsedDays {
	stored, err := decodeUsage(kv.Value)
	if err != nil {
		s.log.Warn("usage can't be read, and is not counted", zap.ByteString("key", kv.Key), zap.Error(err))
		return used
	}
	for _, part := range stored.Parts {
		used = appendWithin(used, UsedDays{id, session.Days{First: stored.First, Last: stored.Last, Usage: part}}, from, to)
	}
	return used
}

func decodeUsage(value []byte) (storedUsage, error) {
	var stored storedUsage
	if err := json.Unmarshal(value, &stored); err != nil {
		return stored, fmt.Errorf("decoding usage: %w", err)
	}
	if stored.First.Start().IsZero() || stored.Last.Start().IsZero() || stored.First > stored.Last {
		return stored, fmt.Errorf("the usage is from %q to %q", stored.First, stored.Last)
	}
	return stored, nil
}

// usageKey is a key of usage taken apart.
type usageKey struct {
	span string // a day or a month
	id   string
}

func (k usageKey) isDay() bool { return len(k.span) == len(time.DateOnly) }

func (k keys) parseUsage(key string) (usageKey, bool) {
	segments := strings.Split(strings.TrimPrefix(key, k.usageRoot()), "/")
	if len(segments) != 3 {
		return usageKey{}, false
	}
	id, err := unescape(segments[1])
	return usageKey{segments[0], id}, err == nil
}
