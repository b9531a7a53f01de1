package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed web
var files embed.FS

const (
	// badge is the one file that other sites' pages load.
	badge = "badge.js"

	// policy lets the page load and ask nothing but its own origin. Styles that
	// scripts set are set through the object model, which it does not concern.
	policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// asset is an embedded file, ready to be sent.
type asset struct {
	body []byte
	kind string // its content type
	tag  string // its ETag, quoted
}

type handler struct{ assets map[string]asset }

// Handler serves the dashboard at /, and the badge at /badge.js. The API must be
// at api/v1/ beside it. Everything else is answered 404, other methods than GET
// and HEAD 405.
func Handler() http.Handler {
	h := handler{make(map[string]asset)}
	web, err := fs.Sub(files, "web")
	if err != nil {
		panic(err) // the folder is named above
	}
	_ = fs.WalkDir(web, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			body, _ := fs.ReadFile(web, name) // embedded: it can't fail
			h.assets[name] = asset{body, contentType(name), etag(body)}
		}
		return err
	})
	return h
}

// ServeHTTP implements http.Handler.
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "" {
		name = "index.html"
	}
	a, ok := h.assets[name]
	switch {
	case !ok:
		http.Error(w, "There is no such page. The dashboard is at /, the API at /api/v1.", http.StatusNotFound)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "This can only be looked at.", http.StatusMethodNotAllowed)
		return
	}
	protect(w.Header(), name)
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Etag", a.tag)
	// asked for again each time and mostly answered 304, so that no page is half
	// of one version and half of another after an update
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(a.body))
}

// protect sets what keeps other sites' hands off the dashboard. The badge is
// made for them: they may load it, as a module too, which is CORS.
func protect(header http.Header, name string) {
	header.Set("X-Content-Type-Options", "nosniff")
	if name == badge {
		header.Set("Access-Control-Allow-Origin", "*")
		header.Set("Cross-Origin-Resource-Policy", "cross-origin")
		return
	}
	header.Set("Content-Security-Policy", policy)
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// contentType doesn't leave scripts to the machine's own table of types, which
// may not know them.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		return "text/plain; charset=utf-8"
	}
}

func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}
