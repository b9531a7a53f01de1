package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// defaultQuota leaves room for some minutes of 10,000 busy sandboxes.
	defaultQuota = 2 << 30

	// compactAfter is how long old revisions are kept. The view needs none of
	// them as long as its watch keeps up, and lists anew if it doesn't.
	compactAfter = "1m"

	// startTimeout bounds a start whose context doesn't.
	startTimeout = time.Minute

	// etcdDir is etcd's own folder in ours
	etcdDir = "etcd"

	// defragment at start what would give back more than this many MB
	defragmentAbove = 64
)

// EmbeddedConfig configures an etcd server of one member in this process.
type EmbeddedConfig struct {
	Dir        string      // its data; made if it isn't there
	QuotaBytes int64       // largest size of its file, default 2 GiB; above it writes get ErrNoSpace
	Logger     *zap.Logger // default none
}

// Embedded is an etcd server in this process. It opens no socket.
type Embedded struct {
	dir    string
	server *embed.Etcd
	client *clientv3.Client
	lock   *os.File
	log    *serverLog
	room   *room
	close  sync.Once
}

// OpenEmbedded starts the server and waits until it serves. A folder that
// another process has open, that is damaged, or that a newer etcd has written
// is an error that names it.
func OpenEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Embedded, error) {
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := checkDatabase(cfg.Dir); err != nil {
		lock.Close()
		return nil, err
	}
	if err := checkSpace(cfg.Dir); err != nil {
		lock.Close()
		return nil, fmt.Errorf("starting etcd on %q: %w", cfg.Dir, err)
	}
	e := &Embedded{dir: cfg.Dir, lock: lock, log: newServerLog(cfg.Logger)}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if e.server, err = start(ctx, e.log, embedConfig(cfg, e.log)); err != nil {
		lock.Close()
		return nil, fmt.Errorf("starting etcd on %q: %w", cfg.Dir, err)
	}
	e.client = outliving(v3client.New(e.server.Server), e)
	e.room = newRoom(e)
	if err := e.room.open(ctx); err != nil {
		e.Close()
		return nil, fmt.Errorf("starting etcd on %q: %w", cfg.Dir, err)
	}
	return e, nil
}

// Client gives the client of the server, which goes with it: don't close it.
func (e *Embedded) Client() *clientv3.Client { return e.client }

// Ended is closed when the server has died, which only a restart of the
// process mends. Calls of its client then fail at once.
func (e *Embedded) Ended() <-chan struct{} { return e.log.ended }

// Err says in words for an operator what is the matter with the server and
// what can be done: that it takes no writes for want of space, or has died. It
// is nil while all is well.
func (e *Embedded) Err() error {
	if why := e.log.cause(); why != nil {
		return fmt.Errorf("the embedded etcd in %q has ended (%w): free space on its disk if that is full, then restart Sandman", e.dir, why)
	}
	return e.room.err()
}

// Close stops the server and waits for its end. Whatever still uses the
// client gets errors, so stop that first. It may be called again. A server
// that has died can't be stopped: what is left of it goes with the process.
func (e *Embedded) Close() error {
	e.close.Do(func() {
		e.log.hush()
		if e.log.cause() == nil {
			_, _ = outlive(e, e.shut) // it may die yet
		}
		_ = e.lock.Close()
	})
	return nil
}

func (e *Embedded) shut() (_ struct{}, _ error) {
	e.room.close()
	_ = e.client.Close() // "context canceled", always
	e.server.Close()
	return
}

// lockDir makes the folder ours. etcd itself would wait for its other owner.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of etcd: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the folder of etcd: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("it is in use by another process")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking the folder of etcd, %q: %w", dir, err)
	}
	return f, nil
}

// checkDatabase opens the database as etcd would: where etcd can't, it panics
// in a goroutine of its own, or waits for another etcd to let go of it.
func checkDatabase(dir string) error {
	path := filepath.Join(dir, etcdDir, "member", "snap", "db")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if errors.Is(err, berrors.ErrTimeout) {
		return fmt.Errorf("opening the database of etcd, %q: it is in use by another process", path)
	}
	if err == nil {
		err = errors.Join(checkWhole(dir, path, db), db.Close())
	}
	if err != nil {
		return fmt.Errorf("opening the database of etcd, %q: %w; restore its folder from a copy, or move it away to begin anew", path, err)
	}
	return nil
}

// checkWhole looks for what etcd would not: of a file that was cut short it
// reads beyond the end, which kills the process, and without its log it waits
// for a majority that will never come.
func checkWhole(dir, path string, db *bolt.DB) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	var used int64
	if err := db.View(func(tx *bolt.Tx) error { used = tx.Size(); return nil }); err != nil {
		return err
	}
	if info.Size() < used {
		return fmt.Errorf("it was cut short: %d of %d bytes are left", info.Size(), used)
	}
	logs, err := filepath.Glob(filepath.Join(dir, etcdDir, "member", "wal", "*.wal"))
	if err == nil && len(logs) == 0 {
		err = errors.New("the log that belongs to it (wal) is missing")
	}
	return err
}

func embedConfig(cfg EmbeddedConfig, log *serverLog) *embed.Config {
	c := embed.NewConfig()
	c.Name = "sandman"
	c.Dir = filepath.Join(cfg.Dir, etcdDir)
	c.ListenClientUrls, c.ListenPeerUrls = nil, nil
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.QuotaBackendBytes = cfg.QuotaBytes
	if cfg.QuotaBytes <= 0 {
		c.QuotaBackendBytes = defaultQuota
	}
	c.AutoCompactionMode = embed.CompactorModePeriodic
	c.AutoCompactionRetention = compactAfter
	c.BootstrapDefragThresholdMegabytes = defragmentAbove
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log.logger)
	return c
}

// start runs StartEtcd, which may panic, or end its goroutine by its logger,
// and makes an error of that. It can't be given up: half a server would hold
// on to the folder.
func start(ctx context.Context, log *serverLog, c *embed.Config) (*embed.Etcd, error) {
	var server *embed.Etcd
	err := errors.New("the folder can't be used") // unless StartEtcd returns
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("the folder is damaged, or from a newer version: %v", p)
			}
		}()
		server, err = embed.StartEtcd(c)
	}()
	<-done
	if err != nil {
		return nil, log.reason(err)
	}
	return server, awaitReady(ctx, log, server)
}

func awaitReady(ctx context.Context, log *serverLog, server *embed.Etcd) error {
	var err error
	select {
	case <-server.Server.ReadyNotify():
		log.started()
		return nil
	case err = <-server.Err():
	case <-server.Server.StopNotify():
		err = errors.New("it stopped while starting")
	case <-ctx.Done():
		err = fmt.Errorf("it does not become ready: %w", ctx.Err())
	}
	log.hush()
	server.Close()
	return log.reason(err)
}
