package store

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// A server that can't write ends the goroutine that should, which holds the
// locks of the database: what is called then, or was before, must return all
// the same. (White box: the lock is taken and the end brought about by hand.)
func TestEmbedded_hasDied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	core, logs := observer.New(zapcore.ErrorLevel)
	e, err := OpenEmbedded(t.Context(), EmbeddedConfig{Dir: dir, Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := New(e.Client(), Config{})
	ran := make(chan error)
	go func() { ran <- s.Run(ctx) }()
	if err := s.View().Ready(ctx); err != nil {
		t.Fatal(err)
	}

	tx := e.server.Server.Backend().BatchTx()
	tx.LockOutsideApply()
	under := make(chan error)
	go func() { _, err := e.Client().Compact(ctx, 1); under <- err }()
	go func() { _, err := e.Client().Put(ctx, "a", "b"); under <- err }()
	died := make(chan struct{})
	go func() {
		defer close(died)
		e.log.logger.Fatal("failed to commit tx", zap.Error(syscall.ENOSPC))
	}()
	<-died
	for range cap(died) + 2 {
		if err := <-under; err == nil || !strings.Contains(err.Error(), "restart Sandman") {
			t.Errorf("a call that was under way: %v", err)
		}
	}
	if _, err := e.Client().Txn(ctx).Then(clientv3.OpGet("a")).Commit(); err == nil || !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		t.Errorf("a call that came later: %v", err)
	}
	if err := e.Err(); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("it says %v", err)
	}
	<-e.room.done
	if n := logs.FilterMessageSnippet("no sandbox is paused any more").Len(); n != 1 {
		t.Errorf("it was logged %d times: %v", n, logs.All())
	}

	began := time.Now()
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*revokeTimeout {
		t.Errorf("the end took %s", took)
	}
	tx.Unlock() // so that nothing is left in this process
	_ = e.client.Close()
	e.server.Close()
}
