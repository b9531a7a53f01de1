package demo_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// names lists a folder through the API.
func (e *editor) names(t *testing.T, folder string) []string {
	t.Helper()
	a := e.do(t, http.MethodGet, "/api/files?path="+url.QueryEscape(folder), "").want(t, http.StatusOK)
	var list struct {
		Entries []struct {
			Name   string
			Folder bool
		}
	}
	if err := json.Unmarshal([]byte(a.body), &list); err != nil {
		t.Fatalf("no list: %s", a)
	}
	names := []string{}
	for _, e := range list.Entries {
		if e.Folder {
			e.Name += "/"
		}
		names = append(names, e.Name)
	}
	return names
}

func TestHome_isFurnishedOnce(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	want := []string{".bashrc", "hello.py", "ticker.sh", "welcome.md"}
	if got := e.names(t, ""); !slices.Equal(got, want) {
		t.Errorf("a new home has %v, wanted %v", got, want)
	}
	if info, err := os.Stat(filepath.Join(e.home, "ticker.sh")); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("the example script can't be run: %v, %v", info.Mode(), err)
	}
	e.do(t, http.MethodDelete, "/api/file?path=hello.py", "").want(t, http.StatusNoContent)
	e.stop()
	again := start(t, e.home)
	if got := again.names(t, ""); slices.Contains(got, "hello.py") {
		t.Errorf("what was deleted came back: %v", got)
	}
}

func TestSave_replacesOnlyTheVersionItWasMadeOn(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	e.write(t, "a.txt", "one\n")
	opened := e.do(t, http.MethodGet, "/api/file?path=a.txt", "").want(t, http.StatusOK)
	if opened.body != "one\n" {
		t.Fatalf("opened %s", opened)
	}
	version := opened.header.Get("Etag")

	saved := e.do(t, http.MethodPut, "/api/file?path=a.txt", "two\n", "If-Match", version).want(t, http.StatusNoContent)
	if again := e.do(t, http.MethodPut, "/api/file?path=a.txt", "two\n", "If-Match", version); again.status != http.StatusNoContent || again.header.Get("Etag") != saved.header.Get("Etag") {
		t.Errorf("a save whose answer was lost and that is repeated got %s", again)
	}
	e.do(t, http.MethodPut, "/api/file?path=a.txt", "three\n", "If-Match", version).want(t, http.StatusPreconditionFailed)
	if got := e.file(t, "a.txt"); got != "two\n" {
		t.Errorf("the file has become %q", got)
	}
	e.do(t, http.MethodPut, "/api/file?path=a.txt", "three\n", "If-Match", saved.header.Get("Etag")).want(t, http.StatusNoContent)
	e.do(t, http.MethodDelete, "/api/file?path=a.txt", "").want(t, http.StatusNoContent)
	e.do(t, http.MethodPut, "/api/file?path=a.txt", "four\n", "If-Match", version).want(t, http.StatusPreconditionFailed)
}

func TestSave_keepsModeAndLinksAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	e.write(t, "run.sh", "old")
	if err := os.Chmod(filepath.Join(e.home, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("run.sh", filepath.Join(e.home, "link")); err != nil {
		t.Fatal(err)
	}
	before := e.names(t, "")
	e.do(t, http.MethodPut, "/api/file?path=run.sh", "new").want(t, http.StatusNoContent)
	if info, _ := os.Stat(filepath.Join(e.home, "run.sh")); info.Mode().Perm() != 0o755 {
		t.Errorf("its mode has become %v", info.Mode())
	}
	e.do(t, http.MethodPut, "/api/file?path=link", "newer").want(t, http.StatusNoContent)
	if info, _ := os.Lstat(filepath.Join(e.home, "link")); info.Mode()&os.ModeSymlink == 0 || e.file(t, "run.sh") != "newer" {
		t.Errorf("a link was not written through: %v, %q", info.Mode(), e.file(t, "run.sh"))
	}
	if after := e.names(t, ""); !slices.Equal(before, after) {
		t.Errorf("saving turned %v into %v", before, after)
	}
}

func TestFiles_areMadeRenamedAndDeletedWithoutHarmToOthers(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	e.do(t, http.MethodPost, "/api/folder?path=src", "").want(t, http.StatusNoContent)
	e.do(t, http.MethodPost, "/api/folder?path=src", "").want(t, http.StatusConflict)
	e.do(t, http.MethodPut, "/api/file?path=src/a+b.txt", "x", "If-None-Match", "*").want(t, http.StatusNoContent)
	e.do(t, http.MethodPut, "/api/file?path=src/a+b.txt", "y", "If-None-Match", "*").want(t, http.StatusPreconditionFailed)
	e.do(t, http.MethodPost, "/api/rename?from=src/a+b.txt&to=welcome.md", "").want(t, http.StatusConflict)
	e.do(t, http.MethodPost, "/api/rename?from=src&to=lib", "").want(t, http.StatusNoContent)
	e.do(t, http.MethodPost, "/api/rename?from=src&to=other", "").want(t, http.StatusNotFound)
	if got := e.names(t, "lib"); !slices.Equal(got, []string{"a b.txt"}) {
		t.Errorf("the renamed folder holds %v", got)
	}
	if got := e.names(t, ""); got[0] != "lib/" {
		t.Errorf("folders don't come first: %v", got)
	}
	e.do(t, http.MethodDelete, "/api/file?path=lib", "").want(t, http.StatusNoContent)
	e.do(t, http.MethodDelete, "/api/file?path=lib", "").want(t, http.StatusNotFound)
	if !strings.Contains(e.file(t, "welcome.md"), "sleeps") {
		t.Error("welcome.md was harmed")
	}
}

func TestFiles_onlyTextOfSomeSizeIsOpened(t *testing.T) {
	t.Parallel()
	e := start(t, "")
	e.write(t, "zero.bin", "a\x00b")
	e.write(t, "latin1.txt", "caf\xe9")
	e.write(t, "large.txt", strings.Repeat("x", 1<<20+1))
	e.write(t, "ok.txt", strings.Repeat("é", 1<<19))
	for _, name := range []string{"zero.bin", "latin1.txt", "large.txt"} {
		e.do(t, http.MethodGet, "/api/file?path="+name, "").want(t, http.StatusUnsupportedMediaType)
	}
	e.do(t, http.MethodGet, "/api/file?path=ok.txt", "").want(t, http.StatusOK)
	e.do(t, http.MethodPost, "/api/folder?path=d", "")
	e.do(t, http.MethodGet, "/api/file?path=d", "").want(t, http.StatusUnsupportedMediaType)
	e.do(t, http.MethodPut, "/api/file?path=huge.txt", strings.Repeat("x", 8<<20+1)).want(t, http.StatusRequestEntityTooLarge)
}

func TestFiles_nothingLeadsOutOfTheHome(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := start(t, "")
	for link, target := range map[string]string{"out": outside, "out-file": filepath.Join(outside, "secret"), "up": "..", "dangling": filepath.Join(outside, "new")} {
		if err := os.Symlink(target, filepath.Join(e.home, link)); err != nil {
			t.Fatal(err)
		}
	}
	up := "../" + filepath.Base(outside) + "/secret"
	for _, path := range []string{
		up, "/etc/passwd", "./welcome.md", "src/../welcome.md", "..", ".", "a//b", "a\x00b", "",
		"out/secret", "out-file", "up/" + filepath.Base(outside) + "/secret", "out", "up", "dangling/x",
	} {
		q := url.QueryEscape(path)
		for _, r := range [][2]string{
			{http.MethodGet, "/api/file?path=" + q},
			{http.MethodPut, "/api/file?path=" + q},
			{http.MethodPost, "/api/rename?from=" + q + "&to=stolen"},
			{http.MethodPost, "/api/rename?from=welcome.md&to=" + q + "%2Fx"},
			{http.MethodPost, "/api/folder?path=" + q + "%2Fx"},
		} {
			if !strings.Contains(path, "/") && r[0] == http.MethodPost && strings.Contains(r[1], "from="+q) {
				continue // a link itself may be renamed
			}
			if a := e.do(t, r[0], r[1], "overwritten"); a.status < 400 || a.status > 499 || strings.Contains(a.body, outside) {
				t.Errorf("%s %s: %s", r[0], r[1], a)
			}
		}
	}
	// deleting a link deletes no more than the link
	e.do(t, http.MethodDelete, "/api/file?path=out", "").want(t, http.StatusNoContent)
	if got := e.names(t, ""); slices.Contains(got, "out-file") {
		t.Errorf("what lies outside is listed: %v", got)
	}
	left, err := os.ReadDir(outside)
	if b, _ := os.ReadFile(filepath.Join(outside, "secret")); err != nil || len(left) != 1 || string(b) != "secret" {
		t.Errorf("outside are now %v, and the secret is %q", left, b)
	}
}
