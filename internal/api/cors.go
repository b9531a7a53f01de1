package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE"
	corsHeaders = "Authorization, Content-Type, If-Match, Idempotency-Key, Last-Event-ID"
	corsExposed = "ETag, Location, Retry-After, WWW-Authenticate"
	corsMaxAge  = "600" // seconds
	anyOrigin   = "*"
)

// CheckOrigins refuses what no browser would send as an Origin.
func CheckOrigins(origins []string) error {
	for _, o := range origins {
		if o == anyOrigin {
			continue
		}
		u, err := url.Parse(o)
		if err != nil || u.Host == "" || u.Scheme+"://"+u.Host != o || o != strings.ToLower(o) {
			return fmt.Errorf("%q is no origin: want scheme://host[:port] in small letters, or *", o)
		}
		if port := u.Port(); port == "80" && u.Scheme == "http" || port == "443" && u.Scheme == "https" {
			return fmt.Errorf("%q is no origin as browsers send it: leave the default port out", o)
		}
	}
	if slices.Contains(origins, anyOrigin) && len(origins) > 1 {
		return errors.New("the origin * leaves nothing for others to allow")
	}
	return nil
}

// allowOrigin lets pages of the configured origins read the answer, and answers
// their browsers' question whether they may ask; done tells that it did. No
// cookie is ever a credential here, so none is allowed.
func (s *server) allowOrigin(w http.ResponseWriter, r *http.Request) (done bool) {
	if len(s.AllowOrigins) == 0 {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	switch {
	case slices.Contains(s.AllowOrigins, anyOrigin):
		h.Set("Access-Control-Allow-Origin", anyOrigin)
	case origin != "" && slices.Contains(s.AllowOrigins, origin):
		h.Set("Access-Control-Allow-Origin", origin)
	default:
		return false
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		h.Set("Access-Control-Expose-Headers", corsExposed)
		return false
	}
	h.Set("Access-Control-Allow-Methods", corsMethods)
	h.Set("Access-Control-Allow-Headers", corsHeaders)
	h.Set("Access-Control-Max-Age", corsMaxAge)
	w.WriteHeader(http.StatusNoContent)
	return true
}
