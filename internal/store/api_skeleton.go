package store

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/sandman-proxy/sandman/internal/session"
)

const (
	DefaultPrefix   = "/sandman/v1/"
	DefaultLeaseTTL = 10 * time.Second
)

var (
	ErrConflict = errors.New("changed meanwhile")
	ErrNoLease  = errors.New("this node has no lease")
	ErrBroken   = errors.New("stored value can't be read")
	ErrNoSpace  = errors.New("the store's quota is used up")
	errNotYet   = errors.New("not yet implemented")
)

type Config struct {
	Prefix   string
	Node     string
	LeaseTTL time.Duration
	Logger   *zap.Logger
}

type Store struct{ view *View }

func New(client *clientv3.Client, cfg Config) *Store { return &Store{view: &View{}} }
func (s *Store) Run(ctx context.Context) error       { return errNotYet }
func (s *Store) Node() string                        { return "" }
func (s *Store) View() *View                         { return s.view }
func (s *Store) Lease() Lease                        { return Lease{} }

// Lease is the node's lease. Until is the (monotonic) time of sending of the last acknowledged keep-alive + TTL.
type Lease struct {
	ID    int64
	Until time.Time
}

func (l Lease) Alive(now time.Time, margin time.Duration) bool {
	return l.ID != 0 && now.Add(margin).Before(l.Until)
}

type Presence struct {
	Node     string
	Revision int64
}

type Sandbox struct {
	session.Record
	Activity         session.Activity
	ActivityRevision int64
	LastActive       time.Time
	Presence         []Presence
	Holds            []session.Hold
}

type Query struct {
	State   session.State
	Owner   string
	Project string
	Host    string
	After   string
	Limit   int
}

type BrokenRecord struct {
	Key      string
	Revision int64
	Err      string
}

type View struct{}

func (v *View) Get(id string) (*Sandbox, bool) { return nil, false }

func (v *View) Wait(ctx context.Context, id string, past int64) (*Sandbox, error) {
	return nil, errNotYet
}

func (v *View) List(q Query) (items []*Sandbox, next string) { return nil, "" }

func (v *View) Subscribe(fn func(id string, old, new *Sandbox)) (cancel func()) { return func() {} }

func (v *View) NodeAlive(node string) bool { return false }
func (v *View) Nodes() []string            { return nil }
func (v *View) Ready(ctx context.Context) error { return errNotYet }

func (v *View) Contact() (epoch uint64, ok bool) { return 0, false }
func (v *View) Broken() []BrokenRecord           { return nil }

type Entered struct {
	Lease            Lease
	PresenceRevision int64
}

type Bump struct {
	ID    string
	Quiet time.Duration
	Kind  string
}

type Term struct {
	Key            string
	CreateRevision int64
}

type HistoryLine struct {
	Revision int64
	session.Transition
}

func (s *Store) Enter(ctx context.Context, id string, rev int64, kind string) (Entered, error) {
	return Entered{}, errNotYet
}

func (s *Store) Leave(ctx context.Context, id string, presenceRev int64, quiet time.Duration, kind string) error {
	return errNotYet
}
func (s *Store) Lapsed(ctx context.Context, id string, activityRev int64) error { return errNotYet }
func (s *Store) Sleep(ctx context.Context, next session.Record, activityRev int64, term Term) (session.Record, error) {
	return next, errNotYet
}

func (s *Store) Call(ctx context.Context, next session.Record, activityRev int64) (session.Record, error) {
	return next, errNotYet
}

func (s *Store) Transition(ctx context.Context, next session.Record) (session.Record, error) {
	return next, errNotYet
}

func (s *Store) Woken(ctx context.Context, next session.Record, kind string) (session.Record, Entered, error) {
	return next, Entered{}, errNotYet
}

func (s *Store) Settle(ctx context.Context, next session.Record) (session.Record, error) {
	return next, errNotYet
}

func (s *Store) Adopt(ctx context.Context, rec session.Record) (session.Record, error) {
	return rec, errNotYet
}

func (s *Store) Configure(ctx context.Context, next session.Record) (session.Record, error) {
	return next, errNotYet
}
func (s *Store) Flush(ctx context.Context, bumps []Bump) error { return errNotYet }
func (s *Store) PutHold(ctx context.Context, rec session.Record, h session.Hold) error {
	return errNotYet
}
func (s *Store) DeleteHold(ctx context.Context, id, name string) error { return errNotYet }
func (s *Store) History(ctx context.Context, id string, before int64, limit int) ([]HistoryLine, error) {
	return nil, errNotYet
}
func (s *Store) Remove(ctx context.Context, id string, rev int64) error { return errNotYet }
func (s *Store) TrimHistory(ctx context.Context, id string, now time.Time) (removed int64, err error) {
	return 0, errNotYet
}

func (s *Store) Lead(ctx context.Context, fn func(ctx context.Context, t Term)) error {
	return errNotYet
}

type EmbeddedConfig struct {
	Dir        string
	QuotaBytes int64
	Logger     *zap.Logger
}

type Embedded struct{}

func OpenEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Embedded, error) { return nil, errNotYet }
func (e *Embedded) Client() *clientv3.Client                                  { return nil }
func (e *Embedded) Close() error                                              { return nil }

type DialConfig struct {
	Endpoints          []string
	Username, Password string
	TLS                *tls.Config
	Logger             *zap.Logger
}

func Dial(cfg DialConfig) (*clientv3.Client, error) { return nil, errNotYet }
