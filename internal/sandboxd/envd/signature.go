package envd

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// isSigned checks the signature of an upload or download address, which an SDK
// makes for people who have no token: "v1_" and the hash of path, operation,
// user, token and, where it is to end, the time of its end in Unix seconds.
func (s *server) isSigned(r *http.Request) bool {
	q := r.URL.Query()
	operation := "read"
	if r.Method == http.MethodPost {
		operation = "write"
	}
	parts := []string{q.Get("path"), operation, q.Get("username"), s.cfg.AccessToken}
	if end := q.Get("signature_expiration"); end != "" {
		t, err := strconv.ParseInt(end, 10, 64)
		if err != nil || time.Now().Unix() > t {
			return false
		}
		parts = append(parts, end)
	}
	want := signature(strings.Join(parts, ":"))
	return subtle.ConstantTimeCompare([]byte(q.Get("signature")), []byte(want)) == 1
}

func signature(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "v1_" + base64.RawStdEncoding.EncodeToString(sum[:])
}
