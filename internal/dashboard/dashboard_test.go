package dashboard_test

import (
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sandman-proxy/sandman/internal/dashboard"
)

// ask sends a request with headers in pairs.
func ask(t *testing.T, method, path string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	dashboard.Handler().ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestHandler_servesEveryFileWithItsType(t *testing.T) {
	t.Parallel()
	kinds := map[string]string{".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript", ".svg": "image/svg+xml", "": "text/plain"}
	err := filepath.WalkDir("web", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		want, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		path := strings.TrimPrefix(filepath.ToSlash(name), "web")
		if path == "/index.html" {
			path = "/"
		}
		r := ask(t, http.MethodGet, path)
		kind := kinds[filepath.Ext(name)]
		if body(t, r) != string(want) || r.StatusCode != http.StatusOK || kind == "" || !strings.HasPrefix(r.Header.Get("Content-Type"), kind+"; charset=utf-8") && kind != "image/svg+xml" {
			t.Errorf("%s is answered %d, %s", path, r.StatusCode, r.Header.Get("Content-Type"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestHandler_answersUnchangedFilesByTheirTag(t *testing.T) {
	t.Parallel()
	first := ask(t, http.MethodGet, "/app.css")
	tag := first.Header.Get("Etag")
	if again := ask(t, http.MethodGet, "/app.css", "If-None-Match", tag); tag == "" || again.StatusCode != http.StatusNotModified {
		t.Errorf("asked again with the tag %s: %s", tag, again.Status)
	}
	if other := ask(t, http.MethodGet, "/badge.js", "If-None-Match", tag); other.StatusCode != http.StatusOK {
		t.Errorf("another file has the same tag: %s", other.Status)
	}
	if cached := first.Header.Get("Cache-Control"); cached != "no-cache" {
		t.Errorf("after an update browsers may go on with the old one: Cache-Control is %q", cached)
	}
}

func TestHandler_refusesWhatItHasNot(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/nothing", "/js", "/js/", "/index.html/", "/../dashboard.go", "/web/index.html", "//"} {
		if r := ask(t, http.MethodGet, path); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s is answered %s", path, r.Status)
		}
	}
	if r := ask(t, http.MethodPost, "/"); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST is answered %s, Allow %q", r.Status, r.Header.Get("Allow"))
	}
	if r := ask(t, http.MethodHead, "/"); r.StatusCode != http.StatusOK || body(t, r) != "" {
		t.Errorf("HEAD is answered %s", r.Status)
	}
}

// Other sites load the badge and nothing else; the dashboard loads nothing of theirs, and stands in no
// frame of theirs.
func TestHandler_keepsOtherSitesOut(t *testing.T) {
	t.Parallel()
	page := ask(t, http.MethodGet, "/").Header
	policy := page.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the page's policy lacks %s: %s", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
		t.Errorf("the page's policy is weak: %s", policy)
	}
	if allowed := page.Get("Access-Control-Allow-Origin"); allowed != "" {
		t.Errorf("other sites may read the page: %s", allowed)
	}
	badge := ask(t, http.MethodGet, "/badge.js").Header
	if badge.Get("Access-Control-Allow-Origin") != "*" || badge.Get("Cross-Origin-Resource-Policy") != "cross-origin" {
		t.Errorf("other sites can't load the badge: %v", badge)
	}
}

var (
	specifier = regexp.MustCompile(`(?m)(?:\bfrom\s*|\bimport\s*\(?\s*)["']([^"'\s]+)["']`)
	reference = regexp.MustCompile(`(?:src|href)="([^"#$]+)"`)
)

// Without a build step nothing else would tell of a module that is missing before a visitor does.
func TestFiles_loadOnlyWhatIsThere(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir("web", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var found [][]string
		switch filepath.Ext(name) {
		case ".js", ".mjs":
			found = specifier.FindAllStringSubmatch(string(text), -1)
		case ".html":
			found = reference.FindAllStringSubmatch(string(text), -1)
		}
		for _, f := range found {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), f[1])); err != nil {
				t.Errorf("%s loads %s: %v", name, f[1], err)
			}
		}
		if strings.Contains(name, "badge.js") && len(found) > 0 {
			t.Errorf("the badge is to be one file, and loads %v", found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestVendor_isWhatTheScriptBrings(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("vendor.sh")
	if err != nil {
		t.Fatal(err)
	}
	folders, err := filepath.Glob("web/vendor/*")
	if err != nil || len(folders) == 0 {
		t.Fatalf("no third-party files: %v", err)
	}
	for _, folder := range folders {
		version, err := os.ReadFile(filepath.Join(folder, "VERSION"))
		words := strings.Fields(string(version))
		listed := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(words[0]) + ` +` + regexp.QuoteMeta(words[1]) + ` `)
		if err != nil || !listed.Match(script) {
			t.Errorf("%s: %v; its version %q is not the script's", folder, err, version)
		}
		licence, err := os.ReadFile(filepath.Join(folder, "LICENSE"))
		if err != nil || !slices.ContainsFunc([]string{"MIT License", "Apache License"}, func(name string) bool { return strings.Contains(string(licence), name) }) {
			t.Errorf("%s: %v; no licence that is known", folder, err)
		}
	}
}
