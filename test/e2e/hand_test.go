package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

const downloadSeconds = 20

func TestPauseByHand_sparesADownloadUnlessForced(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, before := s.startAppIn(t)
	download := s.beginDownload(t, id, downloadSeconds)

	a := s.call(t, http.MethodPost, "/sandboxes/"+id+"/pause", "")
	if p := requireProblem(t, a, http.StatusConflict); !strings.Contains(p.Detail, "/slow") && !strings.Contains(p.Detail, "request") {
		t.Errorf("the refusal does not say what is in flight: %s", a)
	}
	if !strings.Contains(a.body, "in-use") {
		t.Errorf("the refusal is not an in-use one: %s", a)
	}
	if r := s.record(t, id); r.State != "RUNNING" {
		t.Errorf("after a refused pause the sandbox is %s (%s)", r.State, r.Reason)
	}
	if got := <-download; got.err != nil || got.answer.body != strings.Repeat(".", downloadSeconds+1) {
		t.Errorf("the download that was under way: %v; %s", got.err, got.answer)
	}

	download = s.beginDownload(t, id, downloadSeconds)
	if a := s.call(t, http.MethodPost, "/sandboxes/"+id+"/pause?force=true", ""); a.status != http.StatusOK {
		t.Fatalf("pausing by force: %s", a)
	}
	if r := s.record(t, id); r.State != "PAUSED" {
		t.Errorf("after a pause by force the sandbox is %s (%s)", r.State, r.Reason)
	}
	if got := <-download; got.err == nil && len(got.answer.body) > downloadSeconds {
		t.Error("a download went on in a sandbox that was paused by force")
	}
	requireContinued(t, before, s.mustAsk(t, id), 1)
}

func TestPauseByHand_ofASleepingSandboxSaysSo(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, before := s.startAppIn(t)
	s.pause(t, id)
	s.pause(t, id) // 200 as well
	if r := s.record(t, id); r.Totals.Pauses != 1 {
		t.Errorf("a second pause of a sleeping sandbox was counted: %+v", r.Totals)
	}
	if a := s.call(t, http.MethodPost, "/sandboxes/"+id+"/resume", ""); a.status != http.StatusOK {
		t.Fatalf("resuming by hand: %s", a)
	}
	if state := s.record(t, id).State; state != "RUNNING" {
		t.Errorf("after a resume by hand the sandbox is %s", state)
	}
	requireContinued(t, before, s.mustAsk(t, id), 1)
}

type result struct {
	answer answer
	err    error
}

// beginDownload starts a download of a byte a second and returns when its first byte has come.
func (s *sandman) beginDownload(t *testing.T, id string, seconds int) <-chan result {
	t.Helper()
	r := s.request(t.Context(), http.MethodGet, id, appPort, fmt.Sprintf("/slow?seconds=%d", seconds), nil)
	res, err := s.http.Do(r)
	if err != nil {
		t.Fatalf("beginning a download: %v", err)
	}
	first := make([]byte, 1)
	if _, err := res.Body.Read(first); err != nil {
		t.Fatalf("reading the first byte of a download: %v", err)
	}
	done := make(chan result, 1)
	go func() {
		defer res.Body.Close()
		var body strings.Builder
		body.Write(first)
		_, err := io.Copy(&body, res.Body)
		done <- result{answer{res.StatusCode, withTrailer(res), body.String()}, err}
	}()
	return done
}
