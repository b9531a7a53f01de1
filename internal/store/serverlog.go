package store

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// serverLog is what the embedded server logs to: warnings and worse, as long
// as it runs. While it closes, it calls errors what are none.
type serverLog struct {
	logger *zap.Logger
	own    *zap.Logger   // for what Sandman says of the server
	ended  chan struct{} // closed when the server has died

	mu      sync.Mutex // guards the following fields
	running bool
	hushed  bool
	worst   string // the last error logged before it ran: better than "exit"
	why     error  // what it died of
}

func newServerLog(log *zap.Logger) *serverLog {
	if log == nil {
		log = zap.NewNop()
	}
	l := &serverLog{own: log, ended: make(chan struct{})}
	l.logger = log.Named("etcd").WithOptions(
		zap.WrapCore(func(c zapcore.Core) zapcore.Core { return filter{c, l} }),
		// Where etcd would exit the process only the goroutine ends. The store
		// is then as good as away, which Sandman survives; an exit would cut
		// off every visitor.
		zap.WithFatalHook(death{l}),
		zap.WithPanicHook(death{l}),
	)
	return l
}

// death ends the goroutine of the server that can't go on, and with it the
// server: the locks that it held are never let go.
type death struct{ log *serverLog }

// OnWrite implements zapcore.CheckWriteHook.
func (d death) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	if d.log.died(withErrors(e.Message, fields)) || e.Level == zapcore.FatalLevel {
		runtime.Goexit()
	}
	panic(e.Message) // while it starts, see start
}

// died notes what the server died of; false if it has not run yet.
func (l *serverLog) died(of string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.running {
		return false
	}
	if l.why == nil {
		l.why = errors.New(of)
		close(l.ended)
	}
	return true
}

// cause is what the server died of, nil if it has not.
func (l *serverLog) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

func (l *serverLog) started() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = true
}

func (l *serverLog) hush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hushed = true
}

// passes notes errors, and tells whether to write the entry.
func (l *serverLog) passes(e zapcore.Entry, fields []zapcore.Field) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.running && e.Level >= zapcore.ErrorLevel {
		l.worst = withErrors(e.Message, fields)
	}
	return !l.hushed
}

func withErrors(message string, fields []zapcore.Field) string {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			message += ": " + err.Error()
		}
	}
	return message
}

// reason adds to a failed start what was logged about it.
func (l *serverLog) reason(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.worst == "" || strings.Contains(l.worst, err.Error()) {
		return err
	}
	return fmt.Errorf("%w (%s)", err, l.worst)
}

// filter passes on warnings and worse.
type filter struct {
	zapcore.Core
	log *serverLog
}

func (f filter) Enabled(level zapcore.Level) bool {
	return level >= zapcore.WarnLevel
}

func (f filter) With(fields []zapcore.Field) zapcore.Core {
	return filter{f.Core.With(fields), f.log}
}

func (f filter) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if f.Enabled(e.Level) {
		return ce.AddCore(e, f)
	}
	return ce
}

func (f filter) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if !f.log.passes(e, fields) || !f.Core.Enabled(e.Level) {
		return nil
	}
	return f.Core.Write(e, fields)
}
