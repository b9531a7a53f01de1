package demo

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"
)

const (
	// maxShown is the largest file that the editor opens.
	maxShown = 1 << 20
	// maxSaved is the largest body of a save.
	maxSaved = 8 << 20
	// maxEntries is how many entries of a folder are listed.
	maxEntries = 2000
)

// files is the home folder. Whatever a path says, and wherever a symbolic link
// points, root leads nowhere else.
type files struct {
	root *os.Root
	mu   sync.Mutex // held while something is compared and changed
}

func (f *files) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/files", f.list)
	mux.HandleFunc("GET /api/file", f.read)
	mux.HandleFunc("PUT /api/file", f.save)
	mux.HandleFunc("DELETE /api/file", f.remove)
	mux.HandleFunc("POST /api/folder", f.makeFolder)
	mux.HandleFunc("POST /api/rename", f.rename)
}

// furnish writes the examples into a home that has nothing but hidden files.
func (f *files) furnish() error {
	entries, err := f.entries(".")
	if err != nil {
		return err
	}
	if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), ".") }) {
		return nil
	}
	return fs.WalkDir(homeFiles, "home", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := homeFiles.ReadFile(name)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if path.Ext(name) == ".sh" {
			mode = 0o755
		}
		return f.root.WriteFile(path.Base(name), b, mode)
	})
}

// entry is a line of a folder's list.
type entry struct {
	Name   string `json:"name"`
	Folder bool   `json:"folder"`
	Size   int64  `json:"size"`
}

func (f *files) list(w http.ResponseWriter, r *http.Request) {
	name, ok := pathOf(w, r, "path", true)
	if !ok {
		return
	}
	found, err := f.entries(name)
	if err != nil {
		failFile(w, err)
		return
	}
	list := make([]entry, 0, len(found))
	for _, d := range found[:min(len(found), maxEntries)] {
		if info, err := f.root.Stat(path.Join(name, d.Name())); err == nil { // through links, as far as they stay inside
			list = append(list, entry{Name: d.Name(), Folder: info.IsDir(), Size: info.Size()})
		}
	}
	slices.SortStableFunc(list, func(a, b entry) int {
		if a.Folder != b.Folder {
			if a.Folder {
				return -1
			}
			return 1
		}
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
	answer(w, map[string]any{"entries": list, "more": len(found) > maxEntries})
}

func (f *files) entries(name string) ([]fs.DirEntry, error) {
	dir, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.ReadDir(-1)
}

func (f *files) read(w http.ResponseWriter, r *http.Request) {
	name, ok := pathOf(w, r, "path", false)
	if !ok {
		return
	}
	info, err := f.root.Stat(name)
	switch {
	case err != nil:
		failFile(w, err)
		return
	case !info.Mode().IsRegular():
		fail(w, http.StatusUnsupportedMediaType, "this is no file with text in it")
		return
	case info.Size() > maxShown:
		fail(w, http.StatusUnsupportedMediaType, fmt.Sprintf("files above %d KiB are not opened here", maxShown>>10))
		return
	}
	b, err := f.root.ReadFile(name)
	switch {
	case err != nil:
		failFile(w, err)
		return
	case !utf8.Valid(b) || strings.ContainsRune(string(b), 0):
		fail(w, http.StatusUnsupportedMediaType, "this is no text")
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Etag", etag(b))
	_, _ = w.Write(b) //nolint:gosec // plain text, and nosniff: no browser runs it
}

// save replaces a file, or makes one. If-Match holds the version that the
// change was made on, `If-None-Match: *` wants a new file, neither overwrites.
// A save that is repeated because its answer was lost succeeds again.
func (f *files) save(w http.ResponseWriter, r *http.Request) {
	name, ok := pathOf(w, r, "path", false)
	if !ok {
		return
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSaved))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, "the file did not arrive whole, or is too large")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old, err := f.root.ReadFile(name)
	exists := err == nil
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		failFile(w, err)
		return
	case exists && etag(old) == etag(b):
		// it is done, maybe by this very request's first attempt
	case !permits(r.Header, exists, etag(old)):
		fail(w, http.StatusPreconditionFailed, "the file has changed on disk")
		return
	default:
		if err := f.replace(name, b); err != nil {
			failFile(w, err)
			return
		}
	}
	w.Header().Set("Etag", etag(b))
	w.WriteHeader(http.StatusNoContent)
}

func permits(h http.Header, exists bool, version string) bool {
	if want := h.Get("If-Match"); want != "" {
		return exists && want == version
	}
	return h.Get("If-None-Match") == "" || !exists
}

// replace writes beside the file and renames, so that nobody ever sees half of
// it. A link, or what is not a file, is written through.
func (f *files) replace(name string, b []byte) error {
	mode := fs.FileMode(0o644)
	if info, err := f.root.Lstat(name); err == nil {
		if !info.Mode().IsRegular() {
			return f.root.WriteFile(name, b, mode)
		}
		mode = info.Mode().Perm()
	}
	temporary := path.Join(path.Dir(name), ".saving-"+rand.Text())
	err := f.root.WriteFile(temporary, b, mode)
	if err == nil {
		err = f.root.Chmod(temporary, mode) // the umask may have taken something
	}
	if err == nil {
		err = f.root.Rename(temporary, name)
	}
	if err != nil {
		_ = f.root.Remove(temporary)
	}
	return err
}

func (f *files) remove(w http.ResponseWriter, r *http.Request) {
	if name, ok := pathOf(w, r, "path", false); ok {
		f.change(w, func() error {
			if _, err := f.root.Lstat(name); err != nil {
				return err
			}
			return f.root.RemoveAll(name)
		})
	}
}

func (f *files) makeFolder(w http.ResponseWriter, r *http.Request) {
	if name, ok := pathOf(w, r, "path", false); ok {
		f.change(w, func() error { return f.root.Mkdir(name, 0o755) })
	}
}

// rename refuses to replace anything. A program that makes the new name in
// between can lose it: there is no rename of the standard library without that.
func (f *files) rename(w http.ResponseWriter, r *http.Request) {
	from, ok := pathOf(w, r, "from", false)
	if !ok {
		return
	}
	to, ok := pathOf(w, r, "to", false)
	if !ok {
		return
	}
	f.change(w, func() error {
		if _, err := f.root.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist})
		}
		return f.root.Rename(from, to)
	})
}

func (f *files) change(w http.ResponseWriter, do func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := do(); err != nil {
		failFile(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// pathOf gives a path below the home folder. False means that w was answered.
// The home folder itself is only looked at.
func pathOf(w http.ResponseWriter, r *http.Request, key string, home bool) (string, bool) {
	name := r.URL.Query().Get(key)
	if name == "" && home {
		return ".", true
	}
	if !fs.ValidPath(name) || name == "." || strings.ContainsRune(name, 0) {
		fail(w, http.StatusBadRequest, "a path is relative to the home folder, without . or ..")
		return "", false
	}
	return name, true
}

// failFile answers for the file system. Its own words name no more than what
// the visitor sent.
func failFile(w http.ResponseWriter, err error) {
	status, message := http.StatusInternalServerError, "it could not be done"
	var cause syscall.Errno
	switch {
	case errors.Is(err, fs.ErrNotExist):
		status, message = http.StatusNotFound, "there is no such file or folder"
	case errors.Is(err, fs.ErrExist):
		status, message = http.StatusConflict, "there is something of this name already"
	case errors.Is(err, fs.ErrPermission):
		status, message = http.StatusForbidden, "permission denied"
	case errors.As(err, &cause):
		message += ": " + cause.Error()
	case strings.Contains(err.Error(), "path escapes"):
		status, message = http.StatusForbidden, "this leads out of the home folder"
	}
	fail(w, status, message)
}
