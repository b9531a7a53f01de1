package demo

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed web
var webFiles embed.FS

//go:embed all:home
var homeFiles embed.FS

// assets serves the page's files by their contents' hash, so that a browser
// asks again after a new build and loads nothing twice.
type assets struct {
	files fs.FS
	tags  map[string]string // ETags by path
}

func newAssets() *assets {
	sub, err := fs.Sub(webFiles, "web")
	if err != nil {
		panic(err) // the folder is named above
	}
	a := &assets{files: sub, tags: make(map[string]string)}
	_ = fs.WalkDir(sub, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, _ := fs.ReadFile(sub, name) // embedded: it can't fail
			a.tags[name] = etag(b)
		}
		return err
	})
	return a
}

func (a *assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	if name == "" {
		name = "index.html"
	}
	tag, ok := a.tags[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	f, err := a.files.Open(name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	w.Header().Set("Etag", tag)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Type", contentType(name))
	http.ServeContent(w, r, name, time.Time{}, f.(seeker))
}

// seeker is what the files of an embed.FS are.
type seeker interface {
	fs.File
	Seek(offset int64, whence int) (int64, error)
}

// contentType doesn't leave scripts to the machine's own table of types, which
// may not know them.
func contentType(name string) string {
	switch ext := path.Ext(name); ext {
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case "":
		return "text/plain; charset=utf-8"
	default:
		return mime.TypeByExtension(ext)
	}
}

// etag is the version of a file's contents.
func etag(b []byte) string {
	sum := sha256.Sum256(b)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}
