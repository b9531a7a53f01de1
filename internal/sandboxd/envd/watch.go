package envd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/fsnotify/fsnotify"

	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/filesystem"
)

// maxKept bounds the events that wait for a client that asks for them.
const maxKept = 10_000

// watcher collects events for a client that asks for them from time to time.
type watcher struct {
	fs *fsnotify.Watcher

	mu     sync.Mutex // guards events
	events []*filesystem.FilesystemEvent
}

// watch starts watching a folder.
func (s *server) watch(path string, recursive bool) (*fsnotify.Watcher, string, error) {
	dir := s.resolve(path)
	info, err := os.Stat(dir)
	if err != nil {
		return nil, "", fileError(err)
	}
	if !info.IsDir() {
		return nil, "", connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("path is not a directory: %s", s.display(dir)))
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, "", connect.NewError(connect.CodeResourceExhausted, err)
	}
	if err := addWatch(w, dir, recursive); err != nil {
		w.Close()
		return nil, "", fileError(err)
	}
	return w, dir, nil
}

func addWatch(w *fsnotify.Watcher, dir string, recursive bool) error {
	if !recursive {
		return w.Add(dir)
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || (err == nil && !d.IsDir()) {
			return nil
		}
		if err != nil {
			return err
		}
		return w.Add(path)
	})
}

// watchEvents turns one event of the library into those of the wire. A new folder is
// watched from now on.
func watchEvents(w *fsnotify.Watcher, dir string, recursive bool, ev fsnotify.Event) []*filesystem.FilesystemEvent {
	name, err := filepath.Rel(dir, ev.Name)
	if err != nil {
		return nil
	}
	if recursive && ev.Has(fsnotify.Create) {
		if info, err := os.Lstat(ev.Name); err == nil && info.IsDir() {
			_ = addWatch(w, ev.Name, true) // it may be gone again
		}
	}
	var list []*filesystem.FilesystemEvent
	for _, t := range []struct {
		op  fsnotify.Op
		typ filesystem.EventType
	}{
		{fsnotify.Create, filesystem.EventType_EVENT_TYPE_CREATE},
		{fsnotify.Write, filesystem.EventType_EVENT_TYPE_WRITE},
		{fsnotify.Remove, filesystem.EventType_EVENT_TYPE_REMOVE},
		{fsnotify.Rename, filesystem.EventType_EVENT_TYPE_RENAME},
		{fsnotify.Chmod, filesystem.EventType_EVENT_TYPE_CHMOD},
	} {
		if ev.Has(t.op) {
			list = append(list, &filesystem.FilesystemEvent{Name: name, Type: t.typ})
		}
	}
	return list
}

// WatchDir streams what happens in a folder.
func (s *filesystemService) WatchDir(ctx context.Context, req *connect.Request[filesystem.WatchDirRequest], stream *connect.ServerStream[filesystem.WatchDirResponse]) error {
	w, dir, err := s.watch(req.Msg.GetPath(), req.Msg.GetRecursive())
	if err != nil {
		return err
	}
	defer w.Close()
	start := &filesystem.WatchDirResponse_Start{Start: &filesystem.WatchDirResponse_StartEvent{}}
	if err := stream.Send(&filesystem.WatchDirResponse{Event: start}); err != nil {
		return err
	}
	timeout, err := awakeTimeoutOf(req.Header())
	if err != nil {
		return err
	}
	expired := expiry(ctx, timeout)
	interval := keepalive(req.Header())
	alive := time.NewTimer(interval)
	defer alive.Stop()
	for {
		var out []*filesystem.WatchDirResponse
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-expired:
			return errTimedOut
		case err := <-w.Errors:
			return connect.NewError(connect.CodeInternal, err)
		case <-alive.C:
			keep := &filesystem.WatchDirResponse_Keepalive{Keepalive: &filesystem.WatchDirResponse_KeepAlive{}}
			out = append(out, &filesystem.WatchDirResponse{Event: keep})
		case ev := <-w.Events:
			for _, e := range watchEvents(w, dir, req.Msg.GetRecursive(), ev) {
				out = append(out, &filesystem.WatchDirResponse{Event: &filesystem.WatchDirResponse_Filesystem{Filesystem: e}})
			}
		}
		for _, m := range out {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		alive.Reset(interval)
	}
}

// CreateWatcher starts collecting what happens in a folder.
func (s *filesystemService) CreateWatcher(_ context.Context, req *connect.Request[filesystem.CreateWatcherRequest]) (*connect.Response[filesystem.CreateWatcherResponse], error) {
	w, dir, err := s.watch(req.Msg.GetPath(), req.Msg.GetRecursive())
	if err != nil {
		return nil, err
	}
	id, kept := rand.Text(), &watcher{fs: w}
	s.mu.Lock()
	s.watchers[id] = kept
	s.mu.Unlock()
	go kept.collect(dir, req.Msg.GetRecursive())
	return connect.NewResponse(&filesystem.CreateWatcherResponse{WatcherId: id}), nil
}

// collect ends when the watcher is closed. A client that never asks loses the
// oldest events, not the sandbox its memory.
func (k *watcher) collect(dir string, recursive bool) {
	go func() {
		for range k.fs.Errors { // an overflow loses events, which the client can't be told
		}
	}()
	for ev := range k.fs.Events {
		list := watchEvents(k.fs, dir, recursive, ev)
		k.mu.Lock()
		k.events = append(k.events, list...)
		if over := len(k.events) - maxKept; over > 0 {
			k.events = k.events[over:]
		}
		k.mu.Unlock()
	}
}

// GetWatcherEvents returns what was collected since it was asked before.
func (s *filesystemService) GetWatcherEvents(_ context.Context, req *connect.Request[filesystem.GetWatcherEventsRequest]) (*connect.Response[filesystem.GetWatcherEventsResponse], error) {
	k, err := s.watcher(req.Msg.GetWatcherId(), false)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	res := &filesystem.GetWatcherEventsResponse{Events: k.events}
	k.events = nil
	return connect.NewResponse(res), nil
}

// RemoveWatcher ends collecting.
func (s *filesystemService) RemoveWatcher(_ context.Context, req *connect.Request[filesystem.RemoveWatcherRequest]) (*connect.Response[filesystem.RemoveWatcherResponse], error) {
	k, err := s.watcher(req.Msg.GetWatcherId(), true)
	if err != nil {
		return nil, err
	}
	if err := k.fs.Close(); err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&filesystem.RemoveWatcherResponse{}), nil
}

func (s *server) watcher(id string, remove bool) (*watcher, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.watchers[id]
	if !ok {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("watcher %q not found", id))
	}
	if remove {
		delete(s.watchers, id)
	}
	return k, nil
}
