package store

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

// What is kept of a sandbox's history.
const (
	historyLines = 100
	historyAge   = 30 * 24 * time.Hour
)

// HistoryLine is one transition.
type HistoryLine struct {
	Revision int64 // of the record that the transition made
	session.Transition
}

// History gives a sandbox's transitions before that of the given revision (0:
// all), the newest first, at most limit (100 if that is 0). To read on, pass
// the last line's Revision. Lines that can't be read are left out.
func (s *Store) History(ctx context.Context, id string, before int64, limit int) ([]HistoryLine, error) {
	if limit <= 0 {
		limit = historyLines
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	// A line's key holds the revision that was replaced, which is older than
	// its own: the first one may be too new, so one more is asked for.
	from, to := s.keys.folder(kindHistory, id), s.keys.history(id, before)
	if before <= 0 {
		to = clientv3.GetPrefixRangeEnd(from)
	}
	resp, err := s.client.Get(ctx, from, clientv3.WithRange(to), clientv3.WithLimit(int64(limit)+1),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil {
		return nil, fmt.Errorf("reading history of sandbox %q: %w", id, explain(err))
	}
	lines := make([]HistoryLine, 0, limit)
	for _, kv := range resp.Kvs {
		line := HistoryLine{Revision: kv.ModRevision}
		tooNew := before > 0 && kv.ModRevision >= before
		if tooNew || len(lines) == limit || json.Unmarshal(kv.Value, &line.Transition) != nil {
			continue
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// TrimHistory deletes the lines of a sandbox beyond the newest 100, and those
// that are older than 30 days. The lines that this process adds are trimmed
// by Run now and then; this method is for what grows old without new ones.
func (s *Store) TrimHistory(ctx context.Context, id string, now time.Time) (removed int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	folder := s.keys.folder(kindHistory, id)
	resp, err := s.client.Get(ctx, folder, clientv3.WithPrefix(), clientv3.WithLimit(historyLines+1),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil {
		return 0, fmt.Errorf("trimming history of sandbox %q: %w", id, explain(err))
	}
	for i, kv := range resp.Kvs {
		var line session.Transition
		old := json.Unmarshal(kv.Value, &line) == nil && now.Sub(line.At) > historyAge
		if i < historyLines && !old {
			continue
		}
		gone, err := s.client.Delete(ctx, folder, clientv3.WithRange(string(kv.Key)+"\x00"))
		if err != nil {
			return 0, fmt.Errorf("trimming history of sandbox %q: %w", id, explain(err))
		}
		return gone.Deleted, nil
	}
	return 0, nil
}

// trimEvery is how many lines this process adds to a history before it looks
// whether there are too many.
const trimEvery = 20

// trimmer counts the lines of history that this process adds.
type trimmer struct {
	due chan string

	mu    sync.Mutex // guards added
	added map[string]int
}

func newTrimmer() *trimmer {
	return &trimmer{due: make(chan string, 256), added: map[string]int{}}
}

func (t *trimmer) grown(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.added[id]++
	if t.added[id] < trimEvery {
		return
	}
	select {
	case t.due <- id:
		delete(t.added, id)
	default: // busy: with the next line
	}
}

// trimAsTold is the goroutine of Run that trims.
func (s *Store) trimAsTold(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-s.trimmer.due:
			if _, err := s.TrimHistory(ctx, id, time.Now()); err != nil && ctx.Err() == nil {
				s.log.Warn("history is left too long", zap.Error(err))
			}
		}
	}
}
