package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const keyPrefix = "/sandman/v1/"

// put writes below Sandman's prefix what Sandman would never write.
func (e *etcd) put(t *testing.T, key, value string) {
	t.Helper()
	if _, err := e.client(t).Put(t.Context(), keyPrefix+key, value); err != nil {
		t.Fatal(err)
	}
}

func (e *etcd) get(t *testing.T, key string) string {
	t.Helper()
	got, err := e.client(t).Get(t.Context(), keyPrefix+key)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) == 0 {
		return ""
	}
	return string(got.Kvs[0].Value)
}

// awaitAbsence waits until no proxy says that it serves the sandbox: then what its last visit left has
// been written.
func (e *etcd) awaitAbsence(t *testing.T, id string) {
	t.Helper()
	client := e.client(t)
	eventually(t, late, "nobody present at sandbox "+id, func() bool {
		got, err := client.Get(t.Context(), keyPrefix+"presence/"+id+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		return got.Count == 0
	})
}

func (e *etcd) client(t *testing.T) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{e.endpoint}, DialTimeout: readyWithin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestBadDay_strangeRecordsAreSkippedAndCounted(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	s := c.sandmen[0]
	broken, before := s.startAppIn(t)
	other, _ := s.startAppIn(t)
	c.store.awaitAbsence(t, other)

	strange := map[string]string{
		"sandboxes/" + broken:       `{"sandboxID":"` + broken + `","state":"RUNN`,
		"sandboxes/of-another":      `{"sandboxID":"somebody","state":"PAUSED"}`,
		"sandboxes/no-state":        `{"sandboxID":"no-state","state":"DREAMING"}`,
		"sandboxes/busy":            `{"sandboxID":"busy","state":"PAUSING"}`,
		"sandboxes/array":           `[1,2,3]`,
		"sandboxes/empty":           ``,
		"sandboxes/bytes":           "\x00\xff\xfe",
		"sandboxes/too/deep":        `{}`,
		"sandboxes/%zz":             `{}`,
		"activity/nobody":           `7`,
		"presence/flat":             ``,
		"weather/today":             `rain`,
		"":                          `the prefix itself`,
		"sandboxes/deep" + "/x/y/z": strings.Repeat("long ", 10_000),
	}
	for key, value := range strange {
		c.store.put(t, key, value)
	}
	c.store.put(t, "history/"+other+"/nonsense", "nonsense")
	c.store.put(t, fmt.Sprintf("history/%s/%020d", other, 1), "nonsense")
	eventually(t, late, "all strange keys counted", func() bool { return s.broken(t) == len(strange) })

	// an activity that can't be read is closed as one whose proxy has vanished, and the sandbox lives as ever
	const junk = `{"open":"perhaps"}`
	c.store.put(t, "activity/"+other, junk)
	eventually(t, late, "an activity that can be read", func() bool {
		return c.store.get(t, "activity/"+other) != junk && s.broken(t) == len(strange)
	})
	s.mustAsk(t, other)
	s.awaitState(t, settled+clusterIdle+late, other, "PAUSED")
	s.mustAsk(t, other)
	if a := s.call(t, http.MethodGet, "/sandboxes/"+other+"/history", ""); a.status != http.StatusOK || strings.Contains(a.body, "nonsense") {
		t.Errorf("a history with nonsense in it: %s", a)
	}
	if a := s.call(t, http.MethodGet, "/sandboxes", ""); a.status != http.StatusOK || !strings.Contains(a.body, other) || strings.Contains(a.body, "somebody") {
		t.Errorf("a list with nonsense in it: %s", a)
	}

	// the one whose record is lost is neither paused nor served as if it were another
	if state := s.e2b.state(t, broken); state != "running" {
		t.Errorf("the sandbox with the broken record is %q at its host", state)
	}
	began := time.Now()
	refused := s.mustDo(t, s.request(t.Context(), http.MethodGet, broken, appPort, "/state", nil))
	if took := time.Since(began); took > late {
		t.Errorf("what no waiting can mend was refused after %s", took)
	}
	if p := requireProblem(t, refused, http.StatusServiceUnavailable); !strings.Contains(p.Detail, "can't be read") {
		t.Errorf("the answer for a broken record says %q", p.Detail)
	}
	// and is as before once its record is removed, which makes it a sandbox that only the host knows
	if _, err := c.store.client(t).Delete(t.Context(), keyPrefix+"sandboxes/"+broken); err != nil {
		t.Fatal(err)
	}
	eventually(t, late, "one fewer", func() bool { return s.broken(t) == len(strange)-1 })
	requireContinued(t, before, s.mustAsk(t, broken), 1)
}

func TestBadDay_aNewProcessOnStrangeRecords(t *testing.T) {
	t.Parallel()
	store := startEtcd(t)
	store.put(t, "sandboxes/x", "{")
	store.put(t, "activity/x", "{")
	store.put(t, "unknown", "")
	host := startSandboxd(t, "")
	s := start(t, options{idle: clusterIdle, host: host.url, etcd: store.endpoint})
	eventually(t, late, "all strange keys counted", func() bool { return s.broken(t) == 3 })
	id, _ := s.startAppIn(t)
	s.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	s.mustAsk(t, id)
}

// broken is what the status counts.
func (s *sandman) broken(t *testing.T) int {
	t.Helper()
	var st struct {
		BrokenRecords int `json:"brokenRecords"`
	}
	s.call(t, http.MethodGet, "/status", "").decode(t, &st)
	return st.BrokenRecords
}

// moody is a proxy before a host, whose API misbehaves while it has a mood.
type moody struct {
	url  string
	mood atomic.Pointer[mood]
}

// mood is how the API answers until it is over, which also ends the answers that are under way.
type mood struct {
	answer http.HandlerFunc
	over   context.Context
	end    context.CancelFunc
}

func (m *mood) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(m.over, cancel)()
	m.answer(w, r.WithContext(ctx))
}

func startMoody(t *testing.T, host *sandboxd) *moody {
	t.Helper()
	target, err := url.Parse(host.url)
	if err != nil {
		t.Fatal(err)
	}
	m := &moody{}
	// a transport of its own: the end of any httptest.Server closes connections of the default one
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // by which the data plane knows the sandbox
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mood := m.mood.Load()
		if mood == nil || !strings.Contains(r.URL.Path, "sandboxes") {
			proxy.ServeHTTP(w, r)
			return
		}
		mood.ServeHTTP(w, r)
	}))
	m.url = server.URL
	t.Cleanup(func() { m.be(nil); server.CloseClientConnections(); server.Close() })
	return m
}

// be gives the API another mood; nil: it answers as a host does.
func (m *moody) be(answer http.HandlerFunc) {
	var next *mood
	if answer != nil {
		next = &mood{answer: answer}
		next.over, next.end = context.WithCancel(context.Background())
	}
	if before := m.mood.Swap(next); before != nil {
		before.end()
	}
}

func says(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// cut promises more than it sends.
func cut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "1000")
	_, _ = w.Write([]byte(`[{"sandboxID":"`))
	panic(http.ErrAbortHandler)
}

// silent answers nothing until the caller gives up, which a server notices only when the body is read,
// or the mood is over: then the connection is cut.
func silent(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

func TestBadDay_aHostThatMisbehavesLosesNothing(t *testing.T) {
	t.Parallel()
	for name, mood := range map[string]struct {
		be   http.HandlerFunc
		says string // in the status
	}{
		"HTML":             {says(http.StatusOK, "text/html", "<html>maintenance</html>"), "maintenance"},
		"cut JSON":         {cut, "EOF"},
		"wrong key":        {says(http.StatusUnauthorized, "application/json", `{"code":401,"message":"invalid API key"}`), "invalid API key"},
		"404 without code": {says(http.StatusNotFound, "text/plain", "404 page not found\n"), "404"},
		"500":              {says(http.StatusInternalServerError, "application/json", `{"code":500,"message":"no luck"}`), "no luck"},
		"nothing":          {silent, "deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testMood(t, mood.be, mood.says)
		})
	}
}

// testMood has two Sandmen, so that one of them does not lead, before a host that misbehaves for a
// while.
func testMood(t *testing.T, mood http.HandlerFunc, says string) {
	store, host := startEtcd(t), startSandboxd(t, "")
	m := startMoody(t, host)
	faster := strings.NewReplacer("idle_timeout ", "hold 5s\n\t\tcheck_every 2s\n\t\tidle_timeout ")
	c := &cluster{store: store}
	for range 2 {
		c.sandmen = append(c.sandmen, start(t, options{idle: clusterIdle, host: m.url, etcd: store.endpoint, caddyfile: faster}))
	}
	a := c.sandmen[0]
	c.leader(t)
	used, _ := a.startAppIn(t)
	idle, idleBefore := a.startAppIn(t)
	sleeping, sleepingBefore := a.startAppIn(t)
	a.pause(t, sleeping)

	a.mustAsk(t, used) // it may have slept since
	stop := askAllTheTime(t, a, used)
	m.be(mood)
	for _, s := range c.sandmen {
		eventually(t, settled, "the host's failure in the status", func() bool {
			ok, why := s.hostHealth(t)
			return !ok && strings.Contains(why, says)
		})
	}
	for _, s := range c.sandmen {
		refused := s.mustDo(t, s.request(t.Context(), http.MethodGet, sleeping, appPort, "/state", nil))
		p := requireProblem(t, refused, http.StatusServiceUnavailable)
		if retry, err := strconv.Atoi(refused.header.Get("Retry-After")); err != nil || retry < 1 || retry > 60 || p.Detail == "" {
			t.Errorf("Retry-After %q, detail %q", refused.header.Get("Retry-After"), p.Detail)
		}
		if strings.Contains(p.Detail, "127.0.0.1") {
			t.Errorf("a visitor is told where the host is: %q", p.Detail)
		}
	}
	time.Sleep(clusterIdle + 2*time.Second) // the idle one is due, and swept, meanwhile
	if counts := a.states(t); counts["KILLED"] != 0 {
		t.Errorf("the records say %v", counts)
	}
	if state := host.state(t, sleeping); state != "paused" {
		t.Errorf("the sleeping sandbox is %s", state)
	}
	stop()

	m.be(nil)
	for _, s := range c.sandmen {
		eventually(t, 30*time.Second, "the host to be well", func() bool { ok, _ := s.hostHealth(t); return ok })
	}
	eventually(t, 45*time.Second, "the sleeping one to wake", func() bool {
		a := a.mustDo(t, a.request(t.Context(), http.MethodGet, sleeping, appPort, "/health", nil))
		return a.status != http.StatusServiceUnavailable
	})
	requireContinued(t, sleepingBefore, a.mustAsk(t, sleeping), 1)
	for _, id := range []string{used, idle, sleeping} {
		a.awaitState(t, settled+clusterIdle+late, id, "PAUSED")
	}
	requireContinued(t, idleBefore, a.mustAsk(t, idle), 1)
}

func (s *sandman) hostHealth(t *testing.T) (ok bool, why string) {
	t.Helper()
	var st struct {
		Hosts []struct {
			OK    bool   `json:"ok"`
			Error string `json:"error"`
		} `json:"hosts"`
	}
	s.call(t, http.MethodGet, "/status", "").decode(t, &st)
	if len(st.Hosts) != 1 {
		t.Fatalf("the status shows the hosts %+v", st.Hosts)
	}
	return st.Hosts[0].OK, st.Hosts[0].Error
}

// states counts the records by state.
func (s *sandman) states(t *testing.T) map[string]int {
	t.Helper()
	var st struct {
		Sandboxes map[string]int `json:"sandboxes"`
	}
	s.call(t, http.MethodGet, "/status", "").decode(t, &st)
	return st.Sandboxes
}
