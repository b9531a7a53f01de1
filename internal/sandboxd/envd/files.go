package envd

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
)

// writtenFile is one file of an upload's answer.
type writtenFile struct {
	Path string `json:"path"`
	Name string `json:"name"`
	Type string `json:"type"`
}

// getFile serves a file's contents, in part and conditionally too.
func (s *server) getFile(w http.ResponseWriter, r *http.Request) {
	path := s.resolve(r.URL.Query().Get("path"))
	f, err := os.Open(path)
	if err != nil {
		s.fileHTTPError(w, path, err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		s.fileHTTPError(w, path, err)
		return
	}
	if !info.Mode().IsRegular() {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("path '%s' is not a file", s.display(path)))
		return
	}
	w.Header().Set("Content-Disposition", mime.FormatMediaType("inline", map[string]string{"filename": info.Name()}))
	w.Header().Set("Vary", "Accept-Encoding")
	http.ServeContent(w, r, info.Name(), info.ModTime(), f)
}

func (s *server) fileHTTPError(w http.ResponseWriter, path string, err error) {
	shown := s.display(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		writeError(w, http.StatusNotFound, fmt.Sprintf("path '%s' does not exist", shown))
	case errors.Is(err, syscall.ENOSPC):
		writeError(w, http.StatusInsufficientStorage, "not enough disk space")
	case errors.Is(err, fs.ErrPermission):
		writeError(w, http.StatusForbidden, fmt.Sprintf("no permission for path '%s'", shown))
	case errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR):
		writeError(w, http.StatusBadRequest, fmt.Sprintf("path '%s' can't be a file", shown))
	default:
		writeError(w, http.StatusInternalServerError, fmt.Sprintf("error with path '%s': %v", shown, err))
	}
}

// postFile takes one file as the body, or any number as parts of a form.
func (s *server) postFile(w http.ResponseWriter, r *http.Request) {
	body, err := decodedBody(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	r.Body = io.NopCloser(body)
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && media == "multipart/form-data":
		s.postForm(w, r)
	case err == nil && media == "application/octet-stream":
		s.postRaw(w, r)
	default:
		writeError(w, http.StatusUnsupportedMediaType, "want multipart/form-data or application/octet-stream")
	}
}

func decodedBody(r *http.Request) (io.Reader, error) {
	switch enc := r.Header.Get("Content-Encoding"); enc {
	case "", "identity":
		return r.Body, nil
	case "gzip":
		return gzip.NewReader(r.Body)
	default:
		return nil, fmt.Errorf("unsupported content encoding %q", enc)
	}
}

func (s *server) postRaw(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Query().Get("path")
	if path == "" {
		writeError(w, http.StatusBadRequest, "path is missing")
		return
	}
	s.writeFiles(w, func(write func(string, io.Reader) error) error { return write(path, r.Body) })
}

func (s *server) postForm(w http.ResponseWriter, r *http.Request) {
	form, err := r.MultipartReader()
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	s.writeFiles(w, func(write func(string, io.Reader) error) error {
		for {
			part, err := form.NextPart()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if part.FormName() != "file" {
				continue
			}
			// the library's FileName cuts the folders off
			_, params, _ := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
			path := r.URL.Query().Get("path")
			if path == "" {
				path = params["filename"]
			}
			if err := write(path, part); err != nil {
				return err
			}
		}
	})
}

// writeFiles answers with all files that each has written.
func (s *server) writeFiles(w http.ResponseWriter, each func(write func(string, io.Reader) error) error) {
	written := []writtenFile{}
	var path string
	err := each(func(p string, r io.Reader) error {
		path = s.resolve(p)
		if err := writeFile(path, r); err != nil {
			return err
		}
		written = append(written, writtenFile{Path: s.display(path), Name: filepath.Base(path), Type: "file"})
		return nil
	})
	switch {
	case err != nil:
		s.fileHTTPError(w, path, err)
	case len(written) == 0:
		writeError(w, http.StatusBadRequest, "the form has no file")
	default:
		writeJSON(w, http.StatusOK, written)
	}
}

// writeFile replaces a file's contents, and makes its parents.
func writeFile(path string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
