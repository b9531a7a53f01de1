package envd

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"
	"testing/synctest"
	"time"
)

func TestResolve_keepsTheHomeApartFromTheMachine(t *testing.T) {
	t.Parallel()
	s := &server{cfg: Config{Home: "/data/i1/home"}}
	for _, tt := range []struct{ path, real, shown string }{
		{"", "/data/i1/home", "/home/user"},
		{"~", "/data/i1/home", "/home/user"},
		{"~/a", "/data/i1/home/a", "/home/user/a"},
		{"a/b", "/data/i1/home/a/b", "/home/user/a/b"},
		{"/home/user", "/data/i1/home", "/home/user"},
		{"/home/user/a", "/data/i1/home/a", "/home/user/a"},
		{"/home/user/../x", "/home/x", "/home/x"},
		{"/home/username/a", "/home/username/a", "/home/username/a"},
		{"/tmp//a/", "/tmp/a", "/tmp/a"},
		{"~other", "/data/i1/home/~other", "/home/user/~other"},
		{"/data/i1/home2", "/data/i1/home2", "/data/i1/home2"},
	} {
		if got := s.resolve(tt.path); got != tt.real {
			t.Errorf("%q is %q, want %q", tt.path, got, tt.real)
		}
		if got := s.display(tt.real); got != tt.shown {
			t.Errorf("%q is shown as %q, want %q", tt.real, got, tt.shown)
		}
	}
}

func TestAwake_countsAFreezeAsAMoment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		fired := make(chan time.Duration, 1)
		afterAwake(10*time.Second, nil, func() { fired <- time.Since(start) })
		if d := <-fired; d < 10*time.Second || d > 11*time.Second {
			t.Errorf("fired after %v", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		afterAwake(time.Second, stop, func() { t.Error("fired after it was stopped") })
		time.Sleep(500 * time.Millisecond)
		close(stop)
		time.Sleep(time.Hour)
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if expiry(ctx, 0) != nil {
			t.Error("no timeout expires")
		}
		<-expiry(ctx, time.Second)
	})
}

func TestAddresses_differAndStayInTheirNet(t *testing.T) {
	t.Parallel()
	net := netip.MustParsePrefix("127.64.0.0/10")
	firsts := map[netip.Addr]bool{}
	for i := range 1000 {
		seen := map[netip.Addr]bool{}
		for a := range addresses(fmt.Sprintf("i%d", i)) {
			if len(seen) == 0 {
				firsts[a] = true
			}
			if !net.Contains(a) || seen[a] {
				t.Fatalf("sandbox %d: %v", i, a)
			}
			seen[a] = true
		}
		if len(seen) < addressTries-4 {
			t.Fatalf("sandbox %d has %d addresses", i, len(seen))
		}
	}
	if len(firsts) < 990 {
		t.Errorf("1000 sandboxes begin with %d addresses", len(firsts))
	}
}

func TestListen_takesTheNextAddress(t *testing.T) {
	t.Parallel()
	a, err := listen("i1")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := listen("i1")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if a.Addr().String() == b.Addr().String() {
		t.Errorf("both have %v", a.Addr())
	}
}

func TestIsSigned_wantsPathOperationTokenAndTime(t *testing.T) {
	t.Parallel()
	s := &server{cfg: Config{AccessToken: "token"}}
	later := time.Now().Add(time.Hour).Unix()
	sign := func(text string) string { return url.QueryEscape(signature(text)) }
	for _, tt := range []struct {
		name, method, query string
		want                bool
	}{
		{"read", "GET", "path=a&signature=" + sign("a:read::token"), true},
		{"write", "POST", "path=a&signature=" + sign("a:write::token"), true},
		{"with user", "GET", "path=a&username=root&signature=" + sign("a:read:root:token"), true},
		{"with an end", "GET", fmt.Sprintf("path=a&signature_expiration=%d&signature=%s", later, sign(fmt.Sprintf("a:read::token:%d", later))), true},
		{"past its end", "GET", "path=a&signature_expiration=1&signature=" + sign("a:read::token:1"), false},
		{"end moved", "GET", fmt.Sprintf("path=a&signature_expiration=%d&signature=%s", later+1, sign(fmt.Sprintf("a:read::token:%d", later))), false},
		{"end dropped", "GET", "path=a&signature=" + sign(fmt.Sprintf("a:read::token:%d", later)), false},
		{"other path", "GET", "path=b&signature=" + sign("a:read::token"), false},
		{"other operation", "POST", "path=a&signature=" + sign("a:read::token"), false},
		{"other token", "GET", "path=a&signature=" + sign("a:read::other"), false},
		{"bad end", "GET", "path=a&signature_expiration=x&signature=" + sign("a:read::token:x"), false},
		{"none", "GET", "path=a", false},
	} {
		if got := s.isSigned(httptest.NewRequest(tt.method, "/files?"+tt.query, nil)); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
