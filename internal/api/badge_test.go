package api_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// badge makes a badge token with another one.
func (c *client) badge(t testing.TB, secret, id string, may ...string) string {
	t.Helper()
	words := make([]string, len(may))
	for i, w := range may {
		words[i] = fmt.Sprintf("%q", w)
	}
	a := c.call(t, secret, "POST", sandboxes+"/"+id+"/tokens", `{"for":"10m","may":[`+strings.Join(words, ",")+`]}`)
	var made struct {
		Token     string
		ExpiresAt time.Time
	}
	a.decode(t, &made)
	if left := time.Until(made.ExpiresAt); a.status != http.StatusCreated || left > 10*time.Minute || left < 9*time.Minute {
		t.Fatalf("%s", a)
	}
	return made.Token
}

func TestBadge_whatWasChangedIsNone(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	good := c.badge(t, operator, "ia")
	if a := c.call(t, good, "GET", sandboxes+"/ia", ""); a.status != http.StatusOK {
		t.Fatalf("%s", a)
	}
	head, mac, _ := strings.Cut(good, ".")
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(head, "sbt_"))
	if err != nil {
		t.Fatal(err)
	}
	other := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), `"ia"`, `"ib"`, 1)))
	bad := []string{
		head, head + ".", "sbt_", "sbt_.", "sbt_" + other + "." + mac, head + "." + mac[:len(mac)-2], head + "." + mac + "A",
		strings.TrimPrefix(good, "sbt_"), "sbt_e30." + mac, good + "." + mac, good + "=",
	}
	for i := range good { // any one character
		if i >= len("sbt_") {
			swap := byte('A')
			if good[i] == swap {
				swap = 'B'
			}
			bad = append(bad, good[:i]+string(swap)+good[i+1:])
		}
	}
	for _, token := range bad {
		if a := c.call(t, token, "GET", sandboxes+"/ia", ""); a.status != http.StatusUnauthorized {
			t.Errorf("%s: %s", token, a)
		}
	}
	m.badgeKey = []byte("another key, which is 32 in length")
	if a := c.call(t, good, "GET", sandboxes+"/ia", ""); a.status != http.StatusUnauthorized {
		t.Errorf("signed with another key: %s", a)
	}
	m.badgeKey = nil
	if a := c.call(t, good, "GET", sandboxes+"/ia", ""); a.status != http.StatusServiceUnavailable {
		t.Errorf("without a key: %s", a)
	}
}

func TestBadge_endsByItself(t *testing.T) {
	t.Parallel()
	newClient(t, newMemory(), zap.NewNop()) // outside the bubble: the first one compiles the file
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.put("ia", "alice", "")
		c := newClient(t, m, zap.NewNop())
		badge := c.badge(t, operator, "ia")
		time.Sleep(10*time.Minute - time.Second)
		if a := c.call(t, badge, "GET", sandboxes+"/ia", ""); a.status != http.StatusOK {
			t.Errorf("%s", a)
		}
		time.Sleep(time.Second)
		a := c.call(t, badge, "GET", sandboxes+"/ia", "")
		if a.status != http.StatusUnauthorized || a.code(t) != "expired" || strings.Contains(a.body, "configuration") {
			t.Errorf("%s", a)
		}
		if a := c.call(t, badge+"x", "GET", sandboxes+"/ia", ""); a.code(t) != "unauthorized" {
			t.Errorf("a wrong one is not told from one that has expired: %s", a)
		}
	})
}

// A page asks what its token may, to offer nothing else.
func TestToken_tellsWhatItMayDo(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	var made struct{ Token string }
	c.call(t, alice, "POST", sandboxes+"/ia/tokens", `{"may":["pause"]}`).decode(t, &made)
	for secret, want := range map[string]string{
		viewer:     `"may":["see"]}`,
		operator:   `"may":["see","hold","pause","resume"]}`,
		made.Token: `"owner":"alice","sandboxID":"ia","may":["see","pause"],"expiresAt":"`,
	} {
		if a := c.call(t, secret, "GET", "/api/v1/token", ""); a.status != http.StatusOK || !strings.Contains(a.body, want) {
			t.Errorf("want %s: %s", want, a)
		}
	}
}

// A sandbox that goes to another owner takes no reader with it.
func TestBadge_ofABoundTokenIsBound(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	bound, free := c.badge(t, alice, "ia"), c.badge(t, operator, "ia")
	c.call(t, operator, "PATCH", sandboxes+"/ia", `{"owner":"bob"}`)
	if a := c.call(t, bound, "GET", sandboxes+"/ia", ""); a.status != http.StatusNotFound {
		t.Errorf("%s", a)
	}
	if a := c.call(t, free, "GET", sandboxes+"/ia", ""); a.status != http.StatusOK {
		t.Errorf("%s", a)
	}
}

func TestBadge_makingOne(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.put("ia", "alice", "")
	c := newClient(t, m, zap.NewNop())
	for body, want := range map[string]int{
		`{}`: 201, `{"for":"24h"}`: 201, `{"for":"1s","may":[]}`: 201, `{"may":["see","hold"]}`: 201,
		`{"for":"24h1s"}`: 422, `{"for":"10ms"}`: 422, `{"for":"soon"}`: 422, `{"for":"-1h"}`: 422, `{"may":["kill"]}`: 422, `{"may":"see"}`: 422, `{"x":1}`: 422,
	} {
		if a := c.call(t, operator, "POST", sandboxes+"/ia/tokens", body); a.status != want {
			t.Errorf("%s: %s", body, a)
		}
	}
	c.call(t, admin, "DELETE", sandboxes+"/ia", "")
	if a := c.call(t, operator, "POST", sandboxes+"/ia/tokens", `{}`); a.status != http.StatusNotFound || a.code(t) != "killed" {
		t.Errorf("of one that is gone: %s", a)
	}
	if calls := m.changes(); !slices.Equal(calls, []string{"kill ia"}) {
		t.Errorf("making a token has done %v", calls)
	}
}
