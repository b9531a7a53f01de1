package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// etcd dies of the first write that does not fit on its disk. So it is told to
// take none, by the alarm that it raises over its quota, before it comes to
// that; and either alarm ends when there is room again.
const (
	lookEvery = time.Second
	tryEvery  = 10 * time.Second // making room stops all other work

	// leastFree is a file of etcd's log, which is allocated ahead as a whole
	leastFree = 64 << 20
	// reserve is allocated ahead of the database: for what is written before
	// a disk that fills within a second is noticed, and while it is full
	reserve = 16 << 20
)

// checkSpace looks whether etcd can start: it allocates two files of its log,
// where they are not there from before, and dies if it can't.
func checkSpace(dir string) error {
	logs := filepath.Join(dir, etcdDir, "member", "wal")
	var needs int64
	if there, _ := filepath.Glob(filepath.Join(logs, "*.wal")); len(there) == 0 {
		needs += leastFree + reserve
	}
	first, second := filepath.Join(logs, "0.tmp"), filepath.Join(logs, "1.tmp")
	if !isLogFile(first) && isLogFile(second) {
		_ = os.Rename(second, first) // which it begins with
	}
	if !isLogFile(first) {
		needs += leastFree
	}
	free, err := freeBytes(dir)
	if err == nil && free < needs {
		return fmt.Errorf("its disk has %d MB left, and it needs %d to start: free some", free>>20, needs>>20)
	}
	return nil
}

// isLogFile tells whether a file was allocated as a whole: only then has it its size.
func isLogFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() >= wal.SegmentSizeBytes
}

// room sees to the space that an embedded server has.
type room struct {
	e    *Embedded
	db   string
	stop context.CancelFunc
	done chan struct{}

	// of the goroutine that looks
	reserved int64 // how far the database has its space on the disk
	nextTry  time.Time
	short    error // what came of the last try

	mu      sync.Mutex // guards the following field
	trouble error
}

func newRoom(e *Embedded) *room {
	return &room{
		e: e, db: filepath.Join(e.dir, etcdDir, "member", "snap", "db"),
		stop: func() {}, done: make(chan struct{}),
	}
}

// open looks for the first time, and goes on until close. A restart with a
// larger quota, or more space, should be all that an operator has to do.
func (r *room) open(ctx context.Context) error {
	err := r.look(ctx)
	if err != nil {
		close(r.done)
		return err
	}
	// not the caller's: that is for the start
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	go r.run(ctx)
	return nil
}

func (r *room) close() {
	r.stop()
	<-r.done
}

func (r *room) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trouble
}

func (r *room) run(ctx context.Context) {
	defer close(r.done)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.e.Ended():
			r.e.log.own.Error("no sandbox is paused any more, and running ones are served without the store", zap.Error(r.e.Err()))
			return
		case <-ticker.C:
		}
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			r.e.log.own.Warn("looking after etcd's space", zap.Error(err))
		}
	}
}

// look raises the alarm where the disk is short of space, and ends it where
// nothing is short any more.
func (r *room) look(ctx context.Context) error {
	short := r.disk()
	var err error
	switch full := r.e.full(); {
	case short != nil && !full:
		err = r.raise(ctx)
	case short == nil && full:
		short, err = r.end(ctx)
	}
	r.note(short)
	return err
}

// note keeps what is the matter, and says it once.
func (r *room) note(short error) {
	trouble := short
	if short == nil && r.e.full() {
		trouble = r.overQuota()
	}
	r.mu.Lock()
	before := r.trouble
	r.trouble = trouble
	r.mu.Unlock()
	switch {
	case trouble != nil && before == nil:
		r.e.log.own.Error("etcd is short of space", zap.Error(trouble))
	case trouble == nil && before != nil:
		r.e.log.own.Info("etcd has space again")
	}
}

func (r *room) overQuota() error {
	return fmt.Errorf("the embedded etcd in %q takes no writes: what it keeps does not fit into its quota of %d MB; "+
		"it tries to make room every %s, and an etcd of its own can have a larger quota", r.e.dir, r.quota()>>20, tryEvery)
}

// disk says what is short on the disk; nil if nothing is, or can be told.
func (r *room) disk() error {
	free, err := freeBytes(r.e.dir)
	if err != nil {
		return nil //nolint:nilerr // what can't be told is no reason to stop
	}
	least := int64(leastFree)
	if r.e.full() {
		least += reserve // not to and fro
	}
	if free >= least {
		err = r.reserve()
	}
	if free < least || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("the embedded etcd takes no writes: the disk of %q has %d MB left, and it needs %d; free some, and it goes on by itself",
			r.e.dir, free>>20, least>>20)
	}
	return nil
}

// reserve has the disk keep the space that the database is going to use. Where
// a file system can't, the free space must do.
func (r *room) reserve() error {
	info, err := os.Stat(r.db)
	if err != nil || info.Size() < r.reserved-reserve/2 {
		return err
	}
	want := info.Size() + reserve
	if err := allocate(r.db, want); err != nil {
		return err
	}
	r.reserved = want
	return nil
}

func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:unconvert // another type on macOS
}

// full tells whether the alarm is raised, whoever did it.
func (e *Embedded) full() bool {
	return slices.ContainsFunc(e.server.Server.Alarms(), func(a *pb.AlarmMember) bool { return a.GetAlarm() == pb.AlarmType_NOSPACE })
}

func (r *room) raise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	server := r.e.server.Server
	_, err := outlive(r.e, func() (*pb.AlarmResponse, error) {
		return server.Alarm(ctx, &pb.AlarmRequest{
			MemberID: uint64(server.MemberID()), Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE,
		})
	})
	if err != nil {
		return fmt.Errorf("raising the alarm: %w", err)
	}
	return nil
}

func (r *room) quota() int64 { return r.e.server.Config().QuotaBackendBytes }

// end ends the alarm, if the database is not near its quota or can be made to
// be no more; short says why it could not.
func (r *room) end(ctx context.Context) (short, err error) {
	backend := r.e.server.Server.Backend()
	near := r.quota() * 9 / 10 // or the next writes would raise it again
	if backend.Size() >= near {
		if time.Now().Before(r.nextTry) {
			return r.short, nil
		}
		r.nextTry = time.Now().Add(tryEvery)
		if r.short, err = r.make(ctx, near); r.short != nil || err != nil {
			return r.short, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err = r.e.client.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: uint64(r.e.server.Server.MemberID()), Alarm: pb.AlarmType_NOSPACE})
	if err != nil {
		return nil, fmt.Errorf("ending the alarm: %w", err)
	}
	return nil, nil
}

// make makes the database smaller than near, by what nobody needs.
func (r *room) make(ctx context.Context, near int64) (short, err error) {
	if err := r.compact(ctx); err != nil {
		return nil, err
	}
	backend := r.e.server.Server.Backend()
	used := backend.SizeInUse()
	if used >= near {
		return r.overQuota(), nil
	}
	if free, err := freeBytes(r.e.dir); err == nil && free < used+leastFree {
		return fmt.Errorf("the embedded etcd takes no writes: to make room in its quota it needs %d MB on the disk of %q for a while, and %d are left",
			(used+leastFree)>>20, r.e.dir, free>>20), nil
	}
	r.reserved = 0 // it becomes another file
	if err := backend.Defrag(); err != nil {
		return nil, fmt.Errorf("defragmenting: %w", err)
	}
	return nil, nil
}

// compact gives up old revisions. The view that falls behind lists anew.
func (r *room) compact(ctx context.Context) error {
	got, err := r.e.client.Get(ctx, "\x00", clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("reading the revision: %w", err)
	}
	if _, err := r.e.client.Compact(ctx, got.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		r.e.log.logger.Debug("nothing to compact", zap.Error(err))
	}
	backend := r.e.server.Server.Backend()
	backend.ForceCommit() // what was freed in one is known to be with the next
	backend.ForceCommit()
	return nil
}
