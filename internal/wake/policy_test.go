package wake_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

var (
	askers = []wake.Asker{
		wake.Program, wake.ProgramSocket, wake.Navigation, wake.PageRequest, wake.Message,
		wake.Reload, wake.PageSocket, wake.EventSource,
		wake.Prefetch, wake.Favicon, wake.CrossSite, wake.Bot, wake.WorkerScript,
	}
	intended   = askers[:5]
	reconnects = askers[5:8]
	unintended = askers[8:]
)

// requireMay fails the test where one of these may not wake the sandbox, or
// where one may who must not.
func requireMay(t *testing.T, p wake.Policy, r session.Record, want bool, these ...wake.Asker) {
	t.Helper()
	for _, a := range these {
		err := p.For(a)(r)
		if refused, ok := errors.AsType[*wake.RefusedError](err); (err == nil) != want || err != nil && (!ok || refused.Asker != a || refused.Reason == "" || refused.Code == "") {
			t.Errorf("under %+v a %s gets %v from %+v", p, a, err, r)
		}
	}
}

func TestPolicy_byIntentWakesForWhoMayBeAPerson(t *testing.T) {
	t.Parallel()
	for _, p := range []wake.Policy{{}, {Rule: wake.WakeIntent}, {Rule: "of another version"}} {
		r := session.Record{State: session.Paused}
		requireMay(t, p, r, true, intended...)
		requireMay(t, p, r, true, reconnects...) // nothing was open at the pause
		requireMay(t, p, r, false, unintended...)
		r.Parked = 2
		requireMay(t, p, r, true, intended...)
		requireMay(t, p, r, false, reconnects...) // without a budget
	}
}

func TestPolicy_anyAndManual(t *testing.T) {
	t.Parallel()
	r := session.Record{State: session.Paused, Parked: 1}
	requireMay(t, wake.Policy{Rule: wake.WakeAny}, r, true, askers...)
	requireMay(t, wake.Policy{Rule: wake.WakeManual, ReconnectWakes: 6}, r, false, askers...)
}

func TestPolicy_ofTheSandboxWins(t *testing.T) {
	t.Parallel()
	r := session.Record{State: session.Paused, WakePolicy: "manual"}
	requireMay(t, wake.Policy{Rule: wake.WakeAny}, r, false, askers...)
	r.WakePolicy = "any"
	requireMay(t, wake.Policy{Rule: wake.WakeManual}, r, true, askers...)
	r.WakePolicy = "intent"
	requireMay(t, wake.Policy{Rule: wake.WakeManual}, r, true, intended...)
	requireMay(t, wake.Policy{Rule: wake.WakeManual}, r, false, unintended...)
}

// The budget is one of a day of UTC, wherever the proxy stands.
func TestPolicy_reconnectsHaveADailyBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // it begins on 2000-01-01 at 00:00 UTC
		time.Sleep(23*time.Hour + 59*time.Minute)
		p := wake.Policy{ReconnectWakes: 2}
		r := session.Record{State: session.Paused, Parked: 1}
		requireMay(t, p, r, true, reconnects...)
		r.ReconnectWakes = session.ReconnectWakes{Day: "2000-01-01", Count: 1}
		requireMay(t, p, r, true, reconnects...)
		r.ReconnectWakes.Count = 2
		requireMay(t, p, r, false, reconnects...)
		requireMay(t, p, r, true, intended...)
		refused, _ := errors.AsType[*wake.RefusedError](p.For(wake.PageSocket)(r))
		if refused.RetryAfter != time.Minute || refused.Code != wake.CodeBudget {
			t.Errorf("a minute before midnight: %+v", refused)
		}
		time.Sleep(time.Minute)
		requireMay(t, p, r, true, reconnects...)
	})
}
