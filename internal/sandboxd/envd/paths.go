package envd

import (
	"path"
	"strings"
)

// userHome is the sandbox's home folder as the SDKs name it.
const userHome = "/home/user"

// resolve finds the real path of one that an SDK sent: relative paths, ~ and
// everything below /home/user are in the sandbox's home folder, other absolute
// paths are the machine's.
func (s *server) resolve(p string) string {
	if p == "~" || strings.HasPrefix(p, "~/") {
		p = p[1:]
		return path.Join(s.cfg.Home, p)
	}
	if !path.IsAbs(p) {
		return path.Join(s.cfg.Home, p)
	}
	p = path.Clean(p)
	if rest, ok := below(userHome, p); ok {
		return path.Join(s.cfg.Home, rest)
	}
	return p
}

// display is the inverse of resolve.
func (s *server) display(p string) string {
	if rest, ok := below(s.cfg.Home, p); ok {
		return path.Join(userHome, rest)
	}
	return p
}

// below reports whether p is dir or in it, and what follows dir.
func below(dir, p string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(p, dir)
	return rest, ok && (rest == "" || rest[0] == '/')
}
