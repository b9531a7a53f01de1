package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/sandman-proxy/sandman/internal/e2b"
)

func TestHealth(t *testing.T) {
	broken := errors.New("connection refused")
	for name, test := range map[string]struct {
		do   func(h *health)
		want string
	}{
		"nothing was asked":      {func(*health) {}, ""},
		"a failure":              {func(h *health) { h.call("h")(broken) }, "connection refused"},
		"another host's failure": {func(h *health) { h.call("other")(broken) }, ""},
		"well again": {func(h *health) {
			h.call("h")(broken)
			h.call("h")(nil)
		}, ""},
		"a call that hung fails after a younger one was answered": {func(h *health) {
			hung := h.call("h")
			time.Sleep(time.Second)
			h.call("h")(nil)
			time.Sleep(time.Second)
			hung(broken)
		}, ""},
		"a call fails that began after the last answer": {func(h *health) {
			h.call("h")(nil)
			time.Sleep(time.Second)
			h.call("h")(broken)
		}, "connection refused"},
		"a call that hung is answered after a younger one has failed": {func(h *health) {
			hung := h.call("h")
			time.Sleep(time.Second)
			h.call("h")(broken)
			hung(nil)
		}, ""},
		"a call that was given up": {func(h *health) { h.call("h")(context.Canceled) }, ""},
		"no such sandbox":          {func(h *health) { h.call("h")(&e2b.Error{Code: 404}) }, ""},
		"a wrong key":              {func(h *health) { h.call("h")(&e2b.Error{Code: 401, Message: "invalid API key"}) }, (&e2b.Error{Code: 401, Message: "invalid API key"}).Error()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHealth(zaptest.NewLogger(t))
				test.do(h)
				if got := h.last("h").failure; got != test.want {
					t.Errorf("the host's failure is %q, want %q", got, test.want)
				}
			})
		})
	}
}
