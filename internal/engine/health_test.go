package engine

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/sandman-proxy/sandman/internal/api"
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

// What is made and ended by hand goes by the host, too: whoever meets it away
// says so, and the status from then on.
func TestHost_thatIsAwayIsToldOf(t *testing.T) {
	t.Parallel()
	nobody := httptest.NewServer(nil)
	nobody.Close()
	host := away{api: e2b.NewClient(nobody.URL, "key", nil)}
	for name, ask := range map[string]func(hosts) error{
		"create": func(h hosts) error {
			_, err := h.create(t.Context(), host, e2b.NewSandbox{TemplateID: "base"})
			return err
		},
		"kill": func(h hosts) error { return h.kill(t.Context(), host, "ia") },
	} {
		h := hosts{list: []Host{host}, health: newHealth(zaptest.NewLogger(t))}
		var unavailable *api.UnavailableError
		if err := ask(h); !errors.As(err, &unavailable) || !strings.Contains(unavailable.Reason, `host "away" can't be reached`) {
			t.Errorf("%s: %v", name, err)
		}
		if h.health.last("away").failure == "" {
			t.Errorf("%s: nobody else knows that the host is away", name)
		}
	}
}

// away is a host that nobody reaches.
type away struct {
	Host
	api *e2b.Client
}

func (away) Name() string       { return "away" }
func (a away) API() *e2b.Client { return a.api }
