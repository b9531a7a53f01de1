package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// A request whose body never comes can't keep a sandbox from a pause that is forced.
func TestPauseByHand_forcedEndsAnUploadThatStalls(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	id, _ := s.startAppIn(t)
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /upload HTTP/1.1\r\nHost: %d-%s.localhost\r\nContent-Length: 100\r\n\r\nabc", appPort, id)
	eventually(t, readyWithin, "the upload in flight", func() bool { return s.record(t, id).PauseAt == nil })

	began := time.Now()
	if a := s.call(t, http.MethodPost, "/sandboxes/"+id+"/pause?force=true", ""); a.status != http.StatusOK {
		t.Fatalf("the forced pause: %s", a)
	}
	if took := time.Since(began); took > 5*time.Second+late {
		t.Errorf("it took %s, which is more than the drain of 5s and a moment", took)
	}
	if state := s.record(t, id).State; state != "PAUSED" {
		t.Errorf("after the forced pause it is %s", state)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("the answer to the upload: %v", err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	requireProblem(t, answer{status: res.StatusCode, header: res.Header, body: string(body)}, http.StatusServiceUnavailable)
	if res.Header.Get("Retry-After") == "" {
		t.Error("the answer does not say when to come again")
	}
}
