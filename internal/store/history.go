package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
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

// HistoryQuery asks for lines of a history. Its zero fields ask for nothing.
type HistoryQuery struct {
	Limit  int             // 0: 100
	Before int64           // only lines of smaller revisions: the last line's, to read on
	To     []session.State // only transitions to these states
	Since  time.Time       // only what took place then or later
	Until  time.Time       // only what took place before
}

func (q HistoryQuery) matches(l HistoryLine) bool {
	return (q.Before <= 0 || l.Revision < q.Before) &&
		(len(q.To) == 0 || slices.Contains(q.To, l.To)) &&
		(q.Since.IsZero() || !l.At.Before(q.Since)) &&
		(q.Until.IsZero() || l.At.Before(q.Until))
}

// History gives a sandbox's transitions that match, the newest first. Lines
// that can't be read are left out.
func (s *Store) History(ctx context.Context, id string, q HistoryQuery) ([]HistoryLine, error) {
	if q.Limit <= 0 {
		q.Limit = historyLines
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	// All of it is read, which is not much. A line's key holds the revision that
	// was replaced, which is older than its own: the first one may be too new.
	from, to := s.keys.folder(kindHistory, id), s.keys.history(id, q.Before)
	if q.Before <= 0 {
		to = clientv3.GetPrefixRangeEnd(from)
	}
	resp, err := s.client.Get(ctx, from, clientv3.WithRange(to), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil {
		return nil, fmt.Errorf("reading history of sandbox %q: %w", id, explain(err))
	}
	lines := []HistoryLine{}
	for _, kv := range resp.Kvs {
		line := HistoryLine{Revision: kv.ModRevision}
		if json.Unmarshal(kv.Value, &line.Transition) != nil || !q.matches(line) {
			continue
		}
		if len(lines) == q.Limit {
			break
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
