package test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	docLinks   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docHeading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	codeFences = regexp.MustCompile("(?ms)^```.*?^```")
	notInSlug  = regexp.MustCompile(`[^\p{L}\p{N}\- _]`)
)

// Every link in the documentation that stays in the repository leads to a file, and to a heading in it.
func TestDocs_linksLeadSomewhere(t *testing.T) {
	t.Parallel()
	root := repository(t)
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	followed := 0
	for _, page := range append(pages, filepath.Join(root, "README.md"), filepath.Join(root, "ARCHITECTURE.md")) {
		for _, link := range docLinks.FindAllStringSubmatch(readPage(t, page), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			followed++
			requireTarget(t, page, link[1])
		}
	}
	if followed < 50 {
		t.Errorf("only %d links were found", followed)
	}
}

func readPage(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return codeFences.ReplaceAllString(string(content), "")
}

func requireTarget(t *testing.T, page, link string) {
	t.Helper()
	file, heading, _ := strings.Cut(link, "#")
	target := page
	if file != "" {
		target = filepath.Join(filepath.Dir(page), file)
	}
	if _, err := os.Stat(target); err != nil {
		t.Errorf("%s leads to %s: %v", filepath.Base(page), link, err)
		return
	}
	if heading != "" && !slices.Contains(slugsOf(readPage(t, target)), heading) {
		t.Errorf("%s leads to %s, and there is no such heading", filepath.Base(page), link)
	}
}

// slugsOf are the names of a page's headings, as GitHub gives them.
func slugsOf(page string) []string {
	var all []string
	for _, h := range docHeading.FindAllStringSubmatch(page, -1) {
		slug := notInSlug.ReplaceAllString(strings.ToLower(h[1]), "")
		all = append(all, strings.ReplaceAll(slug, " ", "-"))
	}
	return all
}
