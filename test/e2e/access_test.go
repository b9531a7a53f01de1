package e2e_test

import (
	"net/http"
	"testing"
)

// A sandbox whose ports are not public is not woken by those who may not enter.
func TestPrivatePorts_areNotWokenWithoutTheirToken(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	a := s.rest(t, http.MethodPost, "/sandboxes",
		`{"templateID":"base","timeout":300,"secure":true,"network":{"allowPublicTraffic":false}}`)
	var made struct {
		SandboxID          string `json:"sandboxID"`
		EnvdAccessToken    string `json:"envdAccessToken"`
		TrafficAccessToken string `json:"trafficAccessToken"`
	}
	a.decode(t, &made)
	if a.status != http.StatusCreated || made.TrafficAccessToken == "" || made.EnvdAccessToken == "" {
		t.Fatalf("making a sandbox with private ports: %s", a)
	}
	s.accessToken = made.EnvdAccessToken
	s.run(t, made.SandboxID, "setsid "+appBinary+" >app.log 2>&1 </dev/null &")
	ask := func(token string) answer {
		r := s.request(t.Context(), http.MethodGet, made.SandboxID, appPort, "/state", nil)
		if token != "" {
			r.Header.Set("E2b-Traffic-Access-Token", token)
		}
		return s.mustDo(t, r)
	}
	eventually(t, readyWithin, "an answer of the app", func() bool { return ask(made.TrafficAccessToken).status == http.StatusOK })

	s.pause(t, made.SandboxID)
	for _, token := range []string{"", "wrong", made.TrafficAccessToken + "0", made.EnvdAccessToken} {
		if a := ask(token); a.status != http.StatusForbidden {
			t.Errorf("with the token %q: %s", token, a)
		}
	}
	if r := s.record(t, made.SandboxID); r.State != "PAUSED" || r.Totals.Wakes != 0 {
		t.Errorf("after requests that it may not answer it is %+v", r)
	}
	if a := ask(made.TrafficAccessToken); a.status != http.StatusOK {
		t.Errorf("with its own token: %s", a)
	}
	if r := s.record(t, made.SandboxID); r.State != "RUNNING" || r.Totals.Wakes != 1 {
		t.Errorf("after a request with its token it is %+v", r)
	}
}
