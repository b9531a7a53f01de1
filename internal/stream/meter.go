package stream

import (
	"io"
	"sync/atomic"
)

// Meter tells of each movement of an ordinary body, a request's or a response's.
type Meter struct {
	body  io.ReadCloser
	says  func(p []byte) bool // nil: all that moves is told of
	bump  func()
	done  func()
	ended atomic.Bool
}

// NewMeter returns a body that reads from body and closes it. After each Read
// that gave bytes it calls bump; at its end (io.EOF, an error, or Close) it calls
// done, once. A Read that is under way during Close is the only one whose bump can
// follow done. Neither function may block.
func NewMeter(body io.ReadCloser, bump, done func()) *Meter {
	return &Meter{body: body, bump: bump, done: done}
}

// NewMeterOf is NewMeter for a body of which not all that moves means something:
// bump is called only after a Read of bytes that mean something by says.
func NewMeterOf(body io.ReadCloser, says func(p []byte) bool, bump, done func()) *Meter {
	return &Meter{body: body, says: says, bump: bump, done: done}
}

func (m *Meter) Read(p []byte) (int, error) {
	n, err := m.body.Read(p)
	if n > 0 && (m.says == nil || m.says(p[:n])) && !m.ended.Load() {
		m.bump()
	}
	if err != nil {
		m.end()
	}
	return n, err
}

// Close closes the body beneath, which also ends a Read that is under way where
// the body allows it.
func (m *Meter) Close() error {
	err := m.body.Close()
	m.end()
	return err
}

func (m *Meter) end() {
	if !m.ended.Swap(true) {
		m.done()
	}
}
