package sandboxd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
)

func TestAPI_answersAsE2BDoes(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	running, paused := h.new(t), h.new(t)
	h.pause(t, paused)
	big := `{"templateID":"base","metadata":{"x":"` + strings.Repeat("y", 17<<20) + `"}}`
	tests := []struct {
		method, path, body string
		status             int
		contains           string
	}{
		{"POST", "/sandboxes", ``, 400, ""},
		{"POST", "/sandboxes", `{}`, 400, ""},
		{"POST", "/sandboxes", `{"templateID":"../x"}`, 400, ""},
		{"POST", "/sandboxes", `{"templateID":"base","timeout":0}`, 400, "Timeout must be greater than 0"},
		{"POST", "/v2/sandboxes", `{"templateID":"base","timeout":-1}`, 400, "Timeout must be greater than 0"},
		{"POST", "/sandboxes", `{"templateID":"base","timeout":"5"}`, 400, "validation error"},
		{"POST", "/sandboxes", `{"templateID":"base","autoPauseMemory":false}`, 400, ""},
		{"POST", "/sandboxes", `{"templateID":"base","network":{"allowPublicTraffic":false}}`, 400, ""},
		{"POST", "/sandboxes", `{"templateID":`, 400, "validation error"},
		{"POST", "/sandboxes", big, 400, ""},
		{"GET", "/sandboxes/iunknown", ``, 404, `Sandbox \"iunknown\" doesn't exist or you don't have access to it`},
		{"GET", "/sandboxes/a-b-c", ``, 400, "Invalid sandbox ID"},
		{"GET", "/sandboxes/UPPER", ``, 400, "Invalid sandbox ID"},
		{"GET", "/sandboxes/" + running + "-local", ``, 200, `"state":"running"`},
		{"DELETE", "/sandboxes/iunknown", ``, 404, ""},
		{"POST", "/sandboxes/iunknown/pause", ``, 404, ""},
		{"POST", "/sandboxes/iunknown/connect", `{"timeout":5}`, 404, ""},
		{"POST", "/sandboxes/iunknown/timeout", `{"timeout":5}`, 404, ""},
		{"POST", "/sandboxes/" + paused + "/pause", `{}`, 409, "Error pausing sandbox - sandbox '" + paused + "' is already paused"},
		{"POST", "/v2/sandboxes/" + paused + "/pause", ``, 409, "already paused"},
		{"POST", "/sandboxes/" + running + "/pause", `nonsense`, 400, "validation error"},
		{"POST", "/sandboxes/" + paused + "/timeout", `{"timeout":5}`, 404, ""},
		{"POST", "/sandboxes/" + paused + "/refreshes", ``, 404, ""},
		{"POST", "/sandboxes/" + running + "/timeout", ``, 400, ""},
		{"POST", "/sandboxes/" + running + "/timeout", `{}`, 400, ""},
		{"POST", "/sandboxes/" + running + "/timeout", `{"timeout":-5}`, 400, ""},
		{"POST", "/sandboxes/" + running + "/timeout", `{"timeout":600}`, 204, ""},
		{"POST", "/sandboxes/" + running + "/refreshes", ``, 204, ""},
		{"POST", "/sandboxes/" + running + "/refreshes", `{"duration":3601}`, 400, ""},
		{"POST", "/sandboxes/" + running + "/connect", ``, 400, "validation error"},
		{"POST", "/sandboxes/" + running + "/connect", `{}`, 400, "validation error"},
		{"POST", "/sandboxes/" + running + "/connect", `{"timeout":-1}`, 400, ""},
		{"POST", "/sandboxes/" + running + "/connect", `{"timeout":60}`, 200, running},
		{"POST", "/v2/sandboxes/" + running + "/connect", ``, 200, running},
		{"POST", "/v2/sandboxes/" + running + "/connect", `{}`, 200, running},
		{"POST", "/sandboxes/" + running + "/resume", ``, 409, "Sandbox " + running + " is already running"},
		{"GET", "/sandboxes/" + running + "/metrics", ``, 200, `"memUsed":`},
		{"GET", "/sandboxes/" + paused + "/metrics", ``, 200, `"memUsed":`},
		{"GET", "/v2/sandboxes?limit=0", ``, 400, ""},
		{"GET", "/v2/sandboxes?limit=101", ``, 400, ""},
		{"GET", "/v2/sandboxes?state=dancing", ``, 400, ""},
		{"GET", "/v2/sandboxes?nextToken=x", ``, 400, "Invalid next token"},
		{"GET", "/v2/sandboxes?startedAfter=x", ``, 400, ""},
		{"GET", "/v2/sandboxes?order=up", ``, 400, ""},
		{"GET", "/sandboxes", ``, 200, running},
		{"GET", "/health", ``, 200, ""},
		{"POST", "/v2/sandboxes/" + paused + "/resume", ``, 201, paused},
	}
	for _, tt := range tests {
		status, body := h.call(t, tt.method, tt.path, tt.body)
		if status != tt.status || !strings.Contains(body, tt.contains) {
			t.Errorf("%s %s %.80s: got %d %s", tt.method, tt.path, tt.body, status, body)
		}
		if status >= 400 && errorCode(t, body) != status {
			t.Errorf("%s %s: status %d with %s", tt.method, tt.path, status, body)
		}
	}
}

func TestAPI_neverCallsAWrongRouteAnUnknownSandbox(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	status, body := h.call(t, "GET", "/nowhere", "")
	var e struct{ Code int }
	if status != 404 || json.Unmarshal([]byte(body), &e) == nil {
		t.Errorf("got %d %s", status, body)
	}
}

func TestAPI_wantsTheKey(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	for _, key := range []string{"", "e2b_1", sandboxd.DefaultAPIKey + "0"} {
		_, err := e2b.NewClient(h.url, key, nil).List(t.Context())
		var e *e2b.Error
		if !errors.As(err, &e) || e.Status != http.StatusUnauthorized {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

func TestAPI_defaultsOfTheTwoGenerations(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	for path, want := range map[string]struct {
		life   time.Duration
		secure bool
	}{"/sandboxes": {15 * time.Second, false}, "/v2/sandboxes": {300 * time.Second, true}} {
		status, body := h.call(t, "POST", path, `{"templateID":"base"}`)
		var sb e2b.Sandbox
		if err := json.Unmarshal([]byte(body), &sb); err != nil || status != 201 {
			t.Fatal(status, body)
		}
		d, err := h.Get(t.Context(), sb.SandboxID)
		if err != nil {
			t.Fatal(err)
		}
		if life := d.EndAt.Sub(d.StartedAt); life != want.life || (sb.EnvdAccessToken != "") != want.secure {
			t.Errorf("%s: lives for %v, token %q", path, life, sb.EnvdAccessToken)
		}
		if len(sb.SandboxID) != 21 || sb.SandboxID[0] != 'i' || d.Lifecycle.OnTimeout != "kill" || d.MemoryMB == 0 {
			t.Errorf("%s: %+v", path, d)
		}
	}
}

func TestList_hasPagesFiltersAndOrder(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	var ids []string
	for i := range 5 {
		timeout := int32(600)
		sb, err := h.Create(t.Context(), e2b.NewSandbox{TemplateID: fmt.Sprintf("t%d", i%2), Timeout: &timeout, Metadata: map[string]string{"u ser": "a b&c", "n": fmt.Sprint(i)}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, sb.SandboxID)
	}
	h.pause(t, ids[4])
	get := func(query string) (got []string) {
		for token := ""; ; {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", h.url+"/v2/sandboxes?limit=2&"+query+"&nextToken="+token, nil)
			req.Header.Set("X-API-Key", sandboxd.DefaultAPIKey)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			var page []e2b.ListedSandbox
			if err := json.NewDecoder(res.Body).Decode(&page); err != nil || len(page) > 2 {
				t.Fatal(page, err)
			}
			res.Body.Close()
			for _, s := range page {
				got = append(got, s.SandboxID)
			}
			if token = res.Header.Get("X-Next-Token"); token == "" {
				if strings.Contains(query, "state=running") && res.Header.Get("X-Total-Running") != "4" {
					t.Errorf("X-Total-Running: %q", res.Header.Get("X-Total-Running"))
				}
				return got
			}
		}
	}
	for query, want := range map[string][]string{
		"order=asc":                      ids,
		"order=asc&state=running":        ids[:4],
		"state=paused":                   ids[4:],
		"order=asc&state=running,paused": ids,
		"state=running":                  {ids[3], ids[2], ids[1], ids[0]},
		"order=asc&template=t1":          {ids[1], ids[3]},
		"metadata=u%252520ser%3Da%252520b%252526c%26n%3D2": {ids[2]},
		"metadata=n%3D9": nil,
	} {
		if got := get(query); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", query, got, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestLifetime_endsInAPauseOrADeath(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	second, yes := int32(1), true
	dies, err := h.Create(t.Context(), e2b.NewSandbox{TemplateID: "base", Timeout: &second})
	if err != nil {
		t.Fatal(err)
	}
	sleeps, err := h.Create(t.Context(), e2b.NewSandbox{TemplateID: "base", Timeout: &second, AutoPause: &yes})
	if err != nil {
		t.Fatal(err)
	}
	h.await(t, dies.SandboxID, sandboxd.StateKilled)
	h.await(t, sleeps.SandboxID, sandboxd.StatePaused)
	if _, err := h.Get(t.Context(), dies.SandboxID); !e2b.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	// and again in its next run: what create said about the end has been kept
	if _, resumed, err := h.Connect(t.Context(), sleeps.SandboxID, time.Second); err != nil || !resumed {
		t.Fatal(resumed, err)
	}
	eventually(t, "it to pause again", func() bool {
		d, err := h.Get(t.Context(), sleeps.SandboxID)
		return err == nil && d.State == e2b.StatePaused
	})
}

func TestLifetime_connectOnlyExtendsAndTimeoutShortens(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	id := h.new(t)
	end := func() time.Duration {
		d, err := h.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return time.Until(d.EndAt).Round(10 * time.Second)
	}
	steps := []struct {
		name string
		do   func() error
		want time.Duration
	}{
		{"connect for less", func() error { _, _, err := h.Connect(t.Context(), id, time.Second); return err }, 600 * time.Second},
		{"connect for more", func() error { _, _, err := h.Connect(t.Context(), id, 1000*time.Second); return err }, 1000 * time.Second},
		{"shorten", func() error { return h.SetTimeout(t.Context(), id, 100*time.Second) }, 100 * time.Second},
		{"pause and connect", func() error {
			h.pause(t, id)
			_, _, err := h.Connect(t.Context(), id, 50*time.Second)
			return err
		}, 50 * time.Second},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatal(err)
		}
		if got := end(); got != s.want {
			t.Errorf("%s: ends in %v, want %v", s.name, got, s.want)
		}
	}
	if err := h.SetTimeout(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	h.await(t, id, sandboxd.StateKilled)
}

func TestResume_isTheOldConnect(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	id := h.new(t)
	h.pause(t, id)
	if status, body := h.call(t, "POST", "/sandboxes/"+id+"/resume", `{"timeout":77,"autoPause":true}`); status != 201 {
		t.Fatal(status, body)
	}
	d, err := h.Get(t.Context(), id)
	if err != nil || d.EndAt.Sub(d.StartedAt) != 77*time.Second || d.Lifecycle.OnTimeout != "pause" {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestKill_waitsForThePauseUnderWay(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{Faults: sandboxd.Faults{PauseDelay: 200 * time.Millisecond}})
	id := h.new(t)
	paused := make(chan error, 1)
	go func() { paused <- h.Client.Pause(t.Context(), id) }()
	eventually(t, "the pause to begin", func() bool { l, err := h.Lookup(id); return err == nil && l.State == sandboxd.StatePausing })
	killed := make(chan error, 2)
	for range 2 { // the second joins, or comes too late
		go func() {
			err := h.Kill(t.Context(), id)
			if e2b.IsNotFound(err) {
				err = nil
			}
			killed <- err
		}()
	}
	for _, c := range []chan error{paused, killed, killed} {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
	h.await(t, id, sandboxd.StatePaused)
	h.await(t, id, sandboxd.StateKilled)
}

func TestConnect_waitsForAPauseAndJoinsAResume(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	id := h.new(t)
	h.SetFaults(sandboxd.Faults{PauseDelay: 300 * time.Millisecond, ResumeDelay: 300 * time.Millisecond})
	results := make(chan error, 8)
	for range 2 { // the second joins the first
		go func() { results <- h.Client.Pause(t.Context(), id) }()
	}
	eventually(t, "the pause to begin", func() bool { l, err := h.Lookup(id); return err == nil && l.State == sandboxd.StatePausing })
	if d, err := h.Get(t.Context(), id); err != nil || d.State != e2b.StatePaused {
		t.Errorf("while pausing: %v, %v", d.State, err)
	}
	if err := h.SetTimeout(t.Context(), id, time.Minute); !e2b.IsConflict(err) {
		t.Errorf("timeout while pausing: %v", err)
	}
	for range 3 {
		go func() {
			_, resumed, err := h.Connect(t.Context(), id, time.Minute)
			if err == nil && !resumed {
				err = errors.New("200 from a connect that waited for a resume")
			}
			results <- err
		}()
	}
	eventually(t, "the resume to begin", func() bool { l, err := h.Lookup(id); return err == nil && l.State == sandboxd.StateResuming })
	if d, err := h.Get(t.Context(), id); err != nil || d.State != e2b.StatePaused {
		t.Errorf("while resuming: %v, %v", d.State, err)
	}
	if err := h.Client.Pause(t.Context(), id); !e2b.IsConflict(err) {
		t.Errorf("pause while resuming: %v", err)
	}
	for range 5 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
