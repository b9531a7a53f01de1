package noise

import (
	"fmt"
	"slices"
	"strings"
)

// pattern names one call of a protocol. An empty channel stands for any; a
// command may stand for all that begin with it.
type pattern struct {
	channel, name string
	prefix        bool
}

// names is a list of calls that no person makes. The lists are short, so they
// are searched from the top.
type names []pattern

func (n names) have(channel, name []byte) bool {
	for i := range n {
		p := &n[i]
		if p.channel != "" && p.channel != string(channel) {
			continue
		}
		if p.prefix && len(name) >= len(p.name) && string(name[:len(p.name)]) == p.name || string(name) == p.name {
			return true
		}
	}
	return false
}

func haveAny(lists []names, channel, name []byte) bool {
	if len(name) == 0 {
		return false
	}
	return slices.ContainsFunc(lists, func(n names) bool { return n.have(channel, name) })
}

// vscodeNames is what VS Code's page sends with nobody there. Each is an echo of
// something that the server said, or the page's own bookkeeping. A name belongs
// here only if a person's deed never sends it alone.
var vscodeNames = names{
	// the page about itself
	{name: "$onDidChangeWindowActive"},   // false: a minute without input; true also when a dialog moves the focus
	{name: "$onFileEvent"},               // the page's own log is a file
	{channel: "telemetry", prefix: true}, // but see actionExecuted
	{channel: "extensions", name: "getExtensionsControlManifest"},
	// a terminal that prints
	{name: "$shellExecution", prefix: true},
	{name: "$shellIntegrationChange"},
	{name: "$shellEnvChange"},
	{name: "$cwdChange"},
	{name: "$acceptTerminalTitleChange"},
	{name: "$acceptTerminalShellType"},
	{name: "$acceptTerminalProcessId"},
	{name: "$acceptTerminalProcessData"},
	{name: "$acceptDidExecuteCommand"},
	{channel: "remoteterminal", name: "$updateTitle"},
	{channel: "remoteterminal", name: "$acknowledgeDataEvent"},
	{channel: "remoteterminal", name: "$orphanQuestionReply"},
	// ports that programs opened and closed
	{name: "$onDidTunnelsChange"},
	// what an extension found in the files, on its way back to the extensions
	{name: "$acceptMarkersChange"},
}

// compileNames reads an operator's names: "$name", "channel.command", "channel.*", "$beginning*".
func compileNames(list []string) (names, error) {
	var out names
	for _, s := range list {
		p := pattern{name: s}
		if channel, command, ok := strings.Cut(s, "."); ok {
			p.channel, p.name = channel, command
		}
		p.name, p.prefix = strings.CutSuffix(p.name, "*")
		if strings.Contains(p.name, "*") || p.name == "" && p.channel == "" {
			return nil, fmt.Errorf("names %q: want a name, channel.command, or the beginning of one and *", s)
		}
		out = append(out, p)
	}
	return out, nil
}
