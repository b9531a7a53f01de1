package stream_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/sandman-proxy/sandman/internal/stream"
)

func TestMeter_tellsOfEachReadAndOfTheEnd(t *testing.T) {
	t.Parallel()
	boom := errors.New("connection reset by peer")
	tests := []struct {
		name        string
		body        io.Reader
		bumps, ends int
		err         error
	}{
		{"empty", strings.NewReader(""), 0, 1, nil},
		{"byte by byte", iotest.OneByteReader(strings.NewReader("abc")), 3, 1, nil},
		{"the end with the last bytes", iotest.DataErrReader(strings.NewReader("abc")), 1, 1, nil},
		{"an error", io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(boom)), 1, 1, boom},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bumps, ends := 0, 0
			m := stream.NewMeter(io.NopCloser(tt.body), func() { bumps++ }, func() { ends++ })
			if _, err := io.ReadAll(m); !errors.Is(err, tt.err) {
				t.Errorf("ReadAll: %v", err)
			}
			if bumps != tt.bumps || ends != tt.ends {
				t.Errorf("%d bumps and %d ends, want %d and %d", bumps, ends, tt.bumps, tt.ends)
			}
			if _, err := m.Read(make([]byte, 1)); err == nil {
				t.Error("a Read after the end gives no error")
			}
			if err := m.Close(); err != nil || ends != 1 {
				t.Errorf("Close = %v; %d ends", err, ends)
			}
		})
	}
}

func TestMeter_endsAtCloseBeforeTheEnd(t *testing.T) {
	t.Parallel()
	boom := errors.New("can't be closed")
	bumps, ends := 0, 0
	m := stream.NewMeter(struct {
		io.Reader
		closeFunc
	}{strings.NewReader("abc"), func() error { return boom }}, func() { bumps++ }, func() { ends++ })
	for range 2 {
		if err := m.Close(); !errors.Is(err, boom) {
			t.Errorf("Close = %v", err)
		}
	}
	if n, _ := m.Read(make([]byte, 3)); n != 3 || bumps != 0 || ends != 1 {
		t.Errorf("a late Read = %d; %d bumps, %d ends", n, bumps, ends)
	}
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

// A real answer, read by its client while another goroutine closes it.
func TestMeter_endsOnceWhateverEndsFirst(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 100 {
			if _, err := io.WriteString(w, strings.Repeat("x", 1000)); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	}))
	t.Cleanup(server.Close)
	for range 20 {
		res, err := server.Client().Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		var bumps, ends atomic.Int64
		m := stream.NewMeter(res.Body, func() { bumps.Add(1) }, func() { ends.Add(1) })
		first := make([]byte, 1)
		if _, err := io.ReadFull(m, first); err != nil || bumps.Load() == 0 {
			t.Fatalf("the first byte: %v, %d bumps", err, bumps.Load())
		}
		var both sync.WaitGroup
		both.Go(func() { _, _ = io.Copy(io.Discard, m) })
		both.Go(func() { _ = m.Close() })
		both.Wait()
		if ends.Load() != 1 {
			t.Fatalf("%d ends", ends.Load())
		}
	}
}
