package pauser

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/sandman-proxy/sandman/internal/session"
)

// Sweep is what one comparison of all records with the hosts' lists did.
type Sweep struct {
	At        time.Time     `json:"at"`
	Took      time.Duration `json:"took"`
	Looked    int           `json:"looked"`    // records compared
	Corrected int           `json:"corrected"` // records that the host contradicted
	Adopted   int           `json:"adopted"`   // sandboxes that only the host knew
	Failed    int           `json:"failed"`
	// Errors says, by host, why it could not be compared.
	Errors map[string]string `json:"errors,omitempty"`

	paused, resumed, killed int // what the host's word made of records
	failed                  failures
}

// LastSweep gives the last sweep of this process; its time is zero if there
// was none.
func (p *Pauser) LastSweep() Sweep {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sweep
}

// listWithin bounds the hosts' lists, which may have thousands of pages.
const listWithin = 10 * time.Minute

// Sweep compares every record with its host's list: read the record, then ask,
// then write if the record is still that. Missing data is neither idleness nor
// death: what is absent from the list is asked for by ID, and where too much
// is absent nothing is marked.
func (p *Pauser) Sweep(ctx context.Context) Sweep {
	result := Sweep{At: time.Now(), Errors: make(map[string]string)}
	before := make(map[string][]*session.Snapshot) // read before the hosts are asked
	for _, s := range p.store.All() {
		before[s.Host] = append(before[s.Host], s)
	}
	ask, cancel := context.WithTimeout(ctx, listWithin)
	lists := p.host.Lists(ask)
	cancel()
	for host, list := range lists {
		if list.Err != nil {
			result.Errors[host] = "listing its sandboxes: " + list.Err.Error()
			continue
		}
		p.sweepHost(ctx, host, before[host], list.Sandboxes, &result)
	}
	result.Took = time.Since(result.At)
	for host, e := range result.Errors {
		p.cfg.Logger.Error("a host could not be compared with the records", zap.String("host", host), zap.String("error", e))
	}
	p.mu.Lock()
	p.sweep = result
	p.mu.Unlock()
	if ctx.Err() == nil { // another one goes on with it
		p.tellRun(result.asRun())
	}
	return result
}

func (p *Pauser) sweepHost(ctx context.Context, host string, records []*session.Snapshot, listed map[string]session.Record, result *Sweep) {
	missing, alive, known := compare(records, listed)
	result.Looked += len(records)
	if limit := max(10, alive/20); len(missing) > limit {
		result.Errors[host] = fmt.Sprintf("it lists %d of %d sandboxes: too many are missing, so none is marked (is the API key right?)",
			alive-len(missing), alive)
		missing = nil
	}
	var writing errgroup.Group
	writing.SetLimit(sweepWriters)
	var mu sync.Mutex // guards result
	for _, s := range records {
		writing.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			changed, told, err := p.sweepOne(ctx, s, listed, slices.Contains(missing, s))
			mu.Lock()
			defer mu.Unlock()
			result.count(s.SandboxID, &result.Corrected, changed, err)
			if err == nil {
				result.tell(told)
			} else {
				p.report("correcting a record", s.SandboxID, err)
			}
			return nil
		})
	}
	for id, rec := range listed {
		if _, ok := known[id]; ok {
			continue
		}
		writing.Go(func() error {
			if ctx.Err() != nil || p.store.Get(id) != nil {
				return nil
			}
			err := p.store.Adopt(ctx, rec)
			mu.Lock()
			defer mu.Unlock()
			result.count(id, &result.Adopted, true, err)
			return nil
		})
	}
	_ = writing.Wait() // what failed is counted
}

// sweepWriters is how many records a sweep writes at the same time: a store
// syncs its log once for all that come together.
const sweepWriters = 16

func (r *Sweep) count(id string, n *int, changed bool, err error) {
	switch {
	case isConflict(err): // somebody was quicker, and knows better
	case err != nil:
		r.Failed++
		r.failed.add(id, err)
	case changed:
		*n++
	}
}

// tell notes the state that a record was given; "": none.
func (r *Sweep) tell(told session.State) {
	switch told {
	case session.Paused:
		r.paused++
	case session.Running:
		r.resumed++
	case session.Killed:
		r.killed++
	case session.Pausing, session.Resuming:
	}
}

// compare finds the records that the list lacks, among those that are alive as
// far as we know, and all IDs that have a record.
func compare(records []*session.Snapshot, listed map[string]session.Record) (missing []*session.Snapshot, alive int, known map[string]struct{}) {
	known = make(map[string]struct{}, len(records))
	for _, s := range records {
		known[s.SandboxID] = struct{}{}
		if s.State == session.Killed {
			continue
		}
		alive++
		if _, ok := listed[s.SandboxID]; !ok {
			missing = append(missing, s)
		}
	}
	return missing, alive, known
}

func (p *Pauser) sweepOne(ctx context.Context, s *session.Snapshot, listed map[string]session.Record, missing bool) (changed bool, told session.State, err error) {
	rec, ok := listed[s.SandboxID]
	switch {
	case s.State.Busy():
		return false, "", nil // its owner, or settling, will say
	case s.State == session.Killed && !ok:
		if time.Since(s.Since) > p.cfg.KeepKilled {
			return true, "", p.store.Remove(ctx, s)
		}
		return false, "", nil
	case ok && rec.State != s.State:
		return true, rec.State, p.settleTo(ctx, s, rec.State, "the host says so")
	case missing:
		return p.confirm(ctx, s)
	}
	return false, "", nil
}

// confirm asks for one sandbox that was absent from the list.
func (p *Pauser) confirm(ctx context.Context, s *session.Snapshot) (changed bool, told session.State, err error) {
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	told, err = p.host.State(ask, s.Record)
	if errors.Is(err, ErrGone) {
		told, err = session.Killed, nil
	}
	if err != nil || told == s.State {
		return false, "", err
	}
	return true, told, p.settleTo(ctx, s, told, "the host says so")
}
