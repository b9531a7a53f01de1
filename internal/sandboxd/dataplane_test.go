package sandboxd_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd"
)

func TestDataPlane_passesRequestsOnAsTheyCame(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	id := h.new(t)
	h.echo(t, id)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url+"/a%2Fb//c;d?x=1;y=%zz&z", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "8081-" + id + ".sandbox.example.com:1234"
	req.Header.Set("X-Forwarded-For", "192.0.2.1")
	want := req.Host + " 192.0.2.1 /a%2Fb//c;d?x=1;y=%zz&z body"
	if status, body := do(t, req); status != 200 || body != want {
		t.Errorf("got %d %q, want %q", status, body, want)
	}
}

func TestDataPlane_keepsAWebSocketAcrossAPause(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	id := h.new(t)
	h.echo(t, id)
	c, _, err := websocket.Dial(t.Context(), h.url+"/ws", &websocket.DialOptions{Host: "8081-" + id + ".localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	write := func(s string) {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(want string) {
		if _, b, err := c.Read(t.Context()); err != nil || string(b) != want {
			t.Fatalf("got %q, %v, want %q", b, err, want)
		}
	}
	write("before")
	read("before")
	h.pause(t, id)
	write("asleep")
	h.connect(t, id)
	read("asleep")
	write("after")
	read("after")
}

func TestDataPlane_saysWhyItCannot(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	running, paused := h.new(t), h.new(t)
	h.pause(t, paused)
	for _, tt := range []struct {
		id   string
		port int
		want e2b.Answer
	}{
		{running, 3000, e2b.AnswerPortClosed},
		{paused, 3000, e2b.AnswerSandboxNotFound},
		{paused, 49983, e2b.AnswerSandboxNotFound},
		{"iunknown", 3000, e2b.AnswerSandboxNotFound},
	} {
		status, body := h.visit(t, tt.id, tt.port, "/health")
		typ := http.Header{"Content-Type": {"application/json"}}
		if got := e2b.ClassifyAnswer(tt.id, status, typ, []byte(body)); got != tt.want {
			t.Errorf("%s:%d: got %d %s", tt.id, tt.port, status, body)
		}
	}
	if status, _ := h.visit(t, running, 0, "/"); status != 400 {
		t.Errorf("port 0: %d", status)
	}
	if status, _ := h.visit(t, running, 49983, "/health"); status != 204 {
		t.Errorf("health: %d", status)
	}
}

func TestDataPlane_hasAnswersBeforeTheRequestsEnd(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	id := h.new(t)
	h.echo(t, id)
	c, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "POST /early HTTP/1.1\r\nHost: 8081-%s.localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n", id)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	early := make([]byte, len("early "))
	if _, err := io.ReadFull(res.Body, early); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "3\r\ntwo\r\n0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(res.Body); err != nil || string(early)+string(rest) != "early onetwo" {
		t.Errorf("got %q, %q, %v", early, rest, err)
	}
}

func TestDataPlane_wantsTokens(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	status, body := h.call(t, "POST", "/v2/sandboxes", `{"templateID":"base","network":{"allowPublicTraffic":false}}`)
	var sb e2b.Sandbox
	if err := json.Unmarshal([]byte(body), &sb); err != nil || status != 201 || sb.TrafficAccessToken == nil {
		t.Fatal(status, body)
	}
	for _, tt := range []struct {
		port          int
		path          string
		header, value string
		want          int
	}{
		{3000, "/", "", "", 403},
		{3000, "/", "E2b-Traffic-Access-Token", "wrong", 403},
		{3000, "/", "E2b-Traffic-Access-Token", *sb.TrafficAccessToken, 502},
		{49983, "/health", "", "", 204},
		{49983, "/envs", "", "", 401},
		{49983, "/envs", "X-Access-Token", "wrong", 401},
		{49983, "/envs", "X-Access-Token", sb.EnvdAccessToken, 200},
		{49983, "/metrics", "X-Access-Token", sb.EnvdAccessToken, 200},
		{49983, "/files?path=x", "", "", 401},
		{49983, "/files?path=x&signature=v1_x", "", "", 401},
		{49983, "/files?path=x", "X-Access-Token", sb.EnvdAccessToken, 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = fmt.Sprintf("%d-%s.localhost", tt.port, sb.SandboxID)
		if tt.header != "" {
			req.Header.Set(tt.header, tt.value)
		}
		if status, body := do(t, req); status != tt.want {
			t.Errorf("%d%s %s: got %d %s, want %d", tt.port, tt.path, tt.header, status, body, tt.want)
		}
	}
}

func TestDataPlane_resumesOnlyWhatAskedForIt(t *testing.T) {
	t.Parallel()
	h := openHost(t, sandboxd.Config{})
	timeout := int32(600)
	sb, err := h.Create(t.Context(), e2b.NewSandbox{TemplateID: "base", Timeout: &timeout, AutoResume: &e2b.AutoResume{Enabled: true}})
	if err != nil {
		t.Fatal(err)
	}
	h.pause(t, sb.SandboxID)
	if status, _ := h.visit(t, sb.SandboxID, 49983, "/health"); status != 204 {
		t.Errorf("got %d", status)
	}
	d, err := h.Get(t.Context(), sb.SandboxID)
	if left := time.Until(d.EndAt); err != nil || d.State != e2b.StateRunning || left > 300*time.Second || left < 290*time.Second {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestCommands_seeTheirSandbox(t *testing.T) {
	t.Setenv("E2B_API_KEY", "secret")
	h := openHost(t, sandboxd.Config{})
	id := h.new(t)
	l, err := h.Lookup(id)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%s %s %s no-port no-key", l.Addr(1).Addr(), id, h.home(id))
	if got := h.run(t, id, `echo $SANDBOX_IP $E2B_SANDBOX_ID $HOME ${PORT-no-port} ${E2B_API_KEY-no-key}`); strings.TrimSpace(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
