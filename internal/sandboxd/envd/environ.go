package envd

import (
	"maps"
	"os"
	"slices"
)

// inheritedEnv is what commands get of the host's own environment. Nothing else:
// there may be secrets in it.
var inheritedEnv = []string{"PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"}

// environ is a command's environment: what every sandbox has, then the sandbox's
// own, then the command's. PORT is left to the last two: create and
// commands.run take environment variables.
func (s *server) environ(own map[string]string) []string {
	env := map[string]string{
		"PATH":            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"USER":            "user",
		"LOGNAME":         "user",
		"SHELL":           "/bin/bash",
		"E2B_SANDBOX":     "true",
		"E2B_SANDBOX_ID":  s.cfg.SandboxID,
		"E2B_TEMPLATE_ID": s.cfg.TemplateID,
		"SANDBOX_IP":      s.ip,
	}
	for _, k := range inheritedEnv {
		if v, ok := os.LookupEnv(k); ok {
			env[k] = v
		}
	}
	maps.Copy(env, s.cfg.Env)
	maps.Copy(env, own)
	if env["HOME"] == "" || env["HOME"] == userHome {
		env["HOME"] = s.cfg.Home
	}
	list := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		list = append(list, k+"="+env[k])
	}
	return list
}
