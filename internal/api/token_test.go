package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sandman-proxy/sandman/internal/api"
)

func TestHashSecret_takesSecretsAndHashes(t *testing.T) {
	t.Parallel()
	want := sha256.Sum256([]byte("s3cret"))
	for _, good := range []string{"s3cret", "sha256:" + hex.EncodeToString(want[:]), "sha256:" + strings.ToUpper(hex.EncodeToString(want[:]))} {
		if got, err := api.HashSecret(good); err != nil || got != want {
			t.Errorf("%q: %x, %v", good, got, err)
		}
	}
	for _, bad := range []string{"", "sha256:", "sha256:abcd", "sha256:" + strings.Repeat("zz", 32), "sha256:" + strings.Repeat("00", 33)} {
		if _, err := api.HashSecret(bad); err == nil {
			t.Errorf("%q is taken", bad)
		} else if len(bad) > 10 && strings.Contains(err.Error(), bad) {
			t.Errorf("%q repeats what may be a secret", err)
		}
	}
}

func TestNew_refusesTokensThatMeanNothing(t *testing.T) {
	t.Parallel()
	h, other := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	for want, bad := range map[string][]api.Token{
		"no name":      {{Role: api.RoleAdmin, Hash: h}},
		`role "boss"`:  {{Name: "a", Role: "boss", Hash: h}},
		`role ""`:      {{Name: "a", Hash: h}},
		"no secret":    {{Name: "a", Role: api.RoleAdmin}},
		"called":       {{Name: "a", Role: api.RoleAdmin, Hash: h}, {Name: "a", Role: api.RoleViewer, Hash: other}},
		"same secret":  {{Name: "a", Role: api.RoleAdmin, Hash: h}, {Name: "b", Role: api.RoleViewer, Hash: h}},
		`"a" and "b"`:  {{Name: "a", Role: api.RoleAdmin, Hash: h}, {Name: "b", Role: api.RoleViewer, Hash: h}},
		"viewer, oper": {{Name: "a", Role: "Admin", Hash: h}},
	} {
		if _, err := api.New(api.Config{Tokens: bad}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if _, err := api.New(api.Config{}); err != nil {
		t.Errorf("without tokens: %v", err)
	}
}

func TestTokens_onlyABearerHeaderLetsIn(t *testing.T) {
	t.Parallel()
	c := newClient(t, newMemory(), zap.NewNop())
	tests := []struct {
		name   string
		values []string
		path   string
		ok     bool
	}{
		{"bearer", []string{"Bearer " + viewer}, "", true},
		{"in any case", []string{"bEARER " + viewer}, "", true},
		{"more blanks", []string{"Bearer   " + viewer + " "}, "", true},
		{"none", nil, "", false},
		{"in the query", nil, "?access_token=" + viewer, false},
		{"in the query by another name", nil, "?token=" + viewer, false},
		{"basic", []string{"Basic " + viewer}, "", false},
		{"bare", []string{viewer}, "", false},
		{"empty", []string{"Bearer "}, "", false},
		{"two headers", []string{"Bearer " + viewer, "Bearer " + admin}, "", false},
		{"a part of it", []string{"Bearer " + viewer[:len(viewer)-1]}, "", false},
		{"its hash", []string{"Bearer sha256:" + hash(viewer)}, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, "/api/v1/status"+tt.path, nil)
			r.Header["Authorization"] = tt.values
			if a := c.send(t, r); (a.status == http.StatusOK) != tt.ok || (!tt.ok && a.status != http.StatusUnauthorized) {
				t.Errorf("%s", a)
			}
		})
	}
}

func hash(secret string) string {
	h := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(h[:])
}

func TestTokens_secretsReachNoLog(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	m := newMemory()
	m.fail = http.ErrAbortHandler // anything that nobody expects
	c := newClient(t, m, zap.New(core))
	c.call(t, operator, "POST", sandboxes, `{"template":"`+operator+`"}`)
	c.call(t, "wrong-"+operator, "POST", sandboxes, "")
	if logs.Len() == 0 {
		t.Fatal("nothing was logged at all")
	}
	for _, entry := range logs.All() {
		if line := entry.Message + " " + strings.Join(strings.Fields(strings.TrimSpace(entryText(entry))), " "); strings.Contains(line, operator) {
			t.Errorf("%s", line)
		}
	}
}

func entryText(e observer.LoggedEntry) string {
	b, err := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()).EncodeEntry(e.Entry, e.Context)
	if err != nil {
		return err.Error()
	}
	return b.String()
}

// TestBody_itsDeadlineDoesNotEndTheWork: a create takes as long as the host
// needs, however short a time the client has for its body.
func TestBody_itsDeadlineDoesNotEndTheWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.work = func(ctx context.Context) error {
			select {
			case <-time.After(time.Minute):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		conn := serveOne(t, m)
		body := `{"template":"base"}`
		a := exchange(t, conn, body, body)
		if a.StatusCode != http.StatusCreated {
			t.Errorf("%s", a.Status)
		}
	})
}

func TestBody_aSlowOneIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn := serveOne(t, newMemory())
		began := time.Now()
		a := exchange(t, conn, `{"template":"base"}`, `{"temp`)
		if a.StatusCode != http.StatusRequestTimeout || time.Since(began) > 15*time.Second {
			t.Errorf("%s after %s", a.Status, time.Since(began))
		}
	})
}
