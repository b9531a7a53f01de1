package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

// Term is one leadership. Sleep compares it, so that one who leads no more
// can begin nothing.
type Term struct {
	Key            string
	CreateRevision int64
}

// Lead campaigns until ctx is done, and calls fn for each term that is won.
// fn's context ends when the leadership is lost, or might be: by this
// process's own clock before the lease can have ended. When fn returns, or ctx
// ends, the leadership is given up at once; after a term that fn ended of its
// own accord there is a pause before the next campaign. It returns nil once ctx
// is done and fn has returned.
func (s *Store) Lead(ctx context.Context, fn func(ctx context.Context, t Term)) error {
	var pause backoff
	for ctx.Err() == nil {
		began := time.Now()
		if err := s.campaign(ctx, fn); ctx.Err() == nil {
			s.log.Info("term or campaign ended", zap.Error(err))
			pause.wait(ctx, began)
		}
	}
	return nil
}

// campaign is one lease's worth of leading: candidate, leader, gone.
func (s *Store) campaign(ctx context.Context, fn func(ctx context.Context, t Term)) error {
	l, err := s.grant(ctx, s.cfg.LeaseTTL)
	if err != nil {
		return err
	}
	defer s.revoke(ctx, l.ID)
	client, stop := s.farewellClient(ctx)
	defer stop()
	// One session per campaign: two elections on one session both win.
	session, err := concurrency.NewSession(client, concurrency.WithLease(clientv3.LeaseID(l.ID)), concurrency.WithContext(client.Ctx()))
	if err != nil {
		return fmt.Errorf("beginning to campaign: %w", explain(err))
	}
	defer session.Orphan()

	term, cancel := context.WithCancelCause(ctx)
	guard := newGuard(s, l, term, cancel)
	defer guard.stop()
	election := concurrency.NewElection(session, s.keys.leader())
	if err := election.Campaign(term, s.cfg.Node); err != nil {
		return fmt.Errorf("campaigning: %w", errors.Join(explain(err), context.Cause(term)))
	}
	defer s.resign(ctx, election)
	t := Term{Key: election.Key(), CreateRevision: election.Rev()}
	// A campaign also ends well when its own key has gone.
	if err := s.checkTerm(term, t); err != nil {
		return err
	}
	guard.watch(t)
	s.log.Info("leads", zap.String("node", s.cfg.Node), zap.Int64("term", t.CreateRevision))
	fn(term, t)
	return context.Cause(term)
}

// farewellClient gives a client whose own context ends a little after ctx:
// the election resigns with it, and must neither fail because ctx is done nor
// wait for a store that is away.
func (s *Store) farewellClient(ctx context.Context) (*clientv3.Client, func()) {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := clientv3.NewCtxClient(base, clientv3.WithZapLogger(s.client.GetLogger()))
	c.KV, c.Lease, c.Watcher = s.client.KV, s.client.Lease, s.client.Watcher
	unhook := context.AfterFunc(ctx, func() { time.AfterFunc(2*revokeTimeout, cancel) })
	return c, func() { unhook(); cancel() }
}

func (s *Store) resign(ctx context.Context, e *concurrency.Election) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	if err := e.Resign(ctx); err != nil {
		s.log.Debug("leadership is left to end by itself", zap.Error(err))
	}
}

var errDeposed = errors.New("the leader key is gone")

func (s *Store) checkTerm(ctx context.Context, t Term) error {
	ctx, cancel := context.WithTimeout(ctx, tryOf(s.cfg.LeaseTTL))
	defer cancel()
	resp, err := s.client.Get(ctx, t.Key, clientv3.WithKeysOnly())
	if err != nil {
		return fmt.Errorf("checking the leader key: %w", explain(err))
	}
	if len(resp.Kvs) == 0 || resp.Kvs[0].CreateRevision != t.CreateRevision {
		return errDeposed
	}
	return nil
}

// guard ends a term when its lease might end. The session keeps the lease
// alive too, but says so only after etcd may have given the lead to another.
type guard struct {
	s      *Store
	end    context.CancelCauseFunc
	expire *time.Timer
	term   chan Term
	done   chan struct{}
}

func newGuard(s *Store, l Lease, ctx context.Context, end context.CancelCauseFunc) *guard {
	g := &guard{s: s, end: end, term: make(chan Term, 1), done: make(chan struct{})}
	g.expire = time.AfterFunc(g.left(l), func() { end(errors.New("the leader's lease may have ended")) })
	go g.run(ctx, l)
	return g
}

// left is how long a lease may be counted on: what was begun at the end of it
// must have time to end.
func (g *guard) left(l Lease) time.Duration {
	return time.Until(l.Until) - g.s.cfg.LeaseTTL/5
}

// watch begins to look whether the leader key still stands, too.
func (g *guard) watch(t Term) { g.term <- t }

func (g *guard) stop() {
	g.end(context.Canceled)
	<-g.done
	g.expire.Stop()
}

func (g *guard) run(ctx context.Context, l Lease) {
	defer close(g.done)
	ticker := time.NewTicker(beatOf(g.s.cfg.LeaseTTL))
	defer ticker.Stop()
	var t Term
	for {
		select {
		case <-ctx.Done():
			return
		case t = <-g.term:
		case <-ticker.C:
		}
		var err error
		if l, err = g.renew(ctx, l); err == nil && t.Key != "" {
			err = g.s.checkTerm(ctx, t)
		}
		if gone(err) {
			g.end(err)
		}
	}
}

func (g *guard) renew(ctx context.Context, l Lease) (Lease, error) {
	if !g.s.dueForRenewal(l) {
		return l, nil
	}
	renewed, err := g.s.keepAlive(ctx, l)
	if err == nil {
		g.expire.Reset(g.left(renewed))
	}
	return renewed, err
}

// gone tells that there is no more to hope for; all other errors may pass
// before the lease ends.
func gone(err error) bool {
	return errors.Is(err, errDeposed) || errors.Is(err, rpctypes.ErrLeaseNotFound)
}

// Leader asks who leads now, "" if nobody does.
func (s *Store) Leader(ctx context.Context) (node string, err error) {
	resp, err := s.client.Get(ctx, s.keys.leader()+"/", clientv3.WithFirstCreate()...)
	if err != nil {
		return "", fmt.Errorf("asking for the leader: %w", explain(err))
	}
	if len(resp.Kvs) == 0 {
		return "", nil
	}
	return string(resp.Kvs[0].Value), nil
}
