package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	caddycore "github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

var (
	caddyfileBlocks = regexp.MustCompile("(?m)^```caddyfile\n((?s:.*?))^```$")
	generatedDocs   = regexp.MustCompile(`(?s)<!-- from .*?<!-- end -->`)
)

// Each Caddyfile in the documentation is one that a reader can take: it adapts, without a warning, and
// is formatted. What shows a module's syntax is generated, and no Caddyfile.
func TestDocs_caddyfilesAdapt(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(repository(t), "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	pages = append(pages, filepath.Join(repository(t), "README.md"))
	t.Chdir(t.TempDir())
	adapted := 0
	for _, name := range pages {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		page := generatedDocs.ReplaceAllString(string(content), "")
		for _, block := range caddyfileBlocks.FindAllStringSubmatch(page, -1) {
			requireCaddyfile(t, filepath.Base(name), block[1])
			adapted++
		}
	}
	if adapted < 4 {
		t.Errorf("only %d Caddyfiles were found", adapted)
	}
}

func requireCaddyfile(t *testing.T, page, text string) {
	t.Helper()
	if string(caddyfile.Format([]byte(text))) != text {
		t.Errorf("%s: not as `caddy fmt` would have it:\n%s", page, text)
	}
	if got := adapt(t, text); !strings.HasPrefix(got, "{") {
		t.Errorf("%s: %s\n%s", page, got, text)
	}
}

// dnsProvider stands for a module of github.com/caddy-dns, which a reader builds in by xcaddy.sh --with:
// as they do, it takes a token as its argument.
type dnsProvider struct {
	Token string `json:"api_token,omitempty"`
}

func init() { caddycore.RegisterModule(dnsProvider{}) }

// CaddyModule returns the Caddy module information.
func (dnsProvider) CaddyModule() caddycore.ModuleInfo {
	return caddycore.ModuleInfo{ID: "dns.providers.cloudflare", New: func() caddycore.Module { return new(dnsProvider) }}
}

// UnmarshalCaddyfile reads `cloudflare <token>`.
func (p *dnsProvider) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&p.Token) {
		return d.ArgErr()
	}
	return nil
}
