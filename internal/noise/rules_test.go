package noise_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sandman-proxy/sandman/internal/noise"
)

func TestRules_ofMessages(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		rule noise.Rule
		path string
		m    noise.Message
		want noise.Verdict
	}{
		{"opcode", noise.Rule{Opcode: "binary"}, "/", bin("x"), noise.Noise},
		{"other opcode", noise.Rule{Opcode: "binary"}, "/", text("x"), noise.Counts},
		{"length", noise.Rule{Length: "3"}, "/", text("abc"), noise.Noise},
		{"other length", noise.Rule{Length: "3"}, "/", text("abcd"), noise.Counts},
		{"range", noise.Rule{Length: "2-4"}, "/", text("abcd"), noise.Noise},
		{"up to", noise.Rule{Length: "-4"}, "/", text(""), noise.Noise},
		{"from", noise.Rule{Length: "5-"}, "/", text("abcd"), noise.Counts},
		{"prefix", noise.Rule{Prefix: "pi"}, "/", text("ping"), noise.Noise},
		{"prefix in hexadecimal", noise.Rule{Prefix: "0x00ff"}, "/", bin("\x00\xff\x01"), noise.Noise},
		{"payload", noise.Rule{Payload: "ping"}, "/", text("ping"), noise.Noise},
		{"more than the payload", noise.Rule{Payload: "ping"}, "/", text("ping!"), noise.Counts},
		{"all must hold", noise.Rule{Prefix: "pi", Opcode: "binary"}, "/", text("ping"), noise.Counts},
		{"path", noise.Rule{Path: "/a/*", Payload: "ping"}, "/a/b", text("ping"), noise.Noise},
		{"other path", noise.Rule{Path: "/a/*", Payload: "ping"}, "/b/a/", text("ping"), noise.Counts},
		{"end of the path", noise.Rule{Path: "*/ws", Payload: "ping"}, "/b/ws", text("ping"), noise.Noise},
		{"whole path", noise.Rule{Path: "/ws", Payload: "ping"}, "/ws/x", text("ping"), noise.Counts},
		{"unreadable", noise.Rule{Length: "0-"}, "/", noise.Message{Size: 9}, noise.Counts},
		{"names of vscode", noise.Rule{Names: []string{"$myExtension*"}}, vscodePath, bin(ack() + hostCall("$myExtensionPolls", "[]")), noise.Noise},
		{"names of vscode, a person beside", noise.Rule{Names: []string{"$my*"}}, vscodePath, bin(hostCall("$my", "") + hostCall("$input", "")), noise.Counts},
		{"names of a channel", noise.Rule{Names: []string{"copilot.*"}}, vscodePath, bin(channelCall("copilot", "poll", "\x00")), noise.Noise},
		{"names of another channel", noise.Rule{Names: []string{"copilot.*"}}, vscodePath, bin(channelCall("pilot", "poll", "\x00")), noise.Counts},
		{"names of jupyter", noise.Rule{Names: []string{"comm_msg"}}, "/api/kernels/1/channels", text(`{"msg_type":"comm_msg"}`), noise.Noise},
		{"names of socket.io", noise.Rule{Names: []string{"beat"}}, "/socket.io/?EIO=4&transport=websocket", text(`42/chat,7["beat",1]`), noise.Noise},
		{"names where there are none", noise.Rule{Names: []string{"beat"}}, "/", text(`42["beat"]`), noise.Counts},
	}
	for _, tt := range tests {
		if got := newSet(t, tt.rule).Stream(get(tt.path), "").Judge(tt.m); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestRules_ofRequests(t *testing.T) {
	t.Parallel()
	mobile := func(r *http.Request) bool { return r.Header.Get("User-Agent") == "probe" }
	set := newSet(t, noise.Rule{Name: "health", Path: "/healthz"}, noise.Rule{Path: "/poll/*", Methods: []string{"GET"}}, noise.Rule{Match: mobile})
	tests := []struct {
		r    *http.Request
		rule string
		want bool
	}{
		{get("/healthz?a=b"), "health", true},
		{get("/poll/a"), "GET /poll/*", true},
		{with("POST", "/poll/a", 1), "", false},
		{with("POST", "/", 1, "User-Agent", "probe"), "", true},
		{get("/"), "", false},
	}
	for _, tt := range tests {
		if rule, isNoise := set.Request(tt.r); rule != tt.rule || isNoise != tt.want {
			t.Errorf("%s %s: %q, %t", tt.r.Method, tt.r.URL, rule, isNoise)
		}
	}
}

func TestNew_saysWhatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := noise.New(noise.Config{
		Presets: []string{"vscod"},
		Rules: []noise.Rule{
			{},
			{Name: "mine", Opcode: "ping"},
			{Length: "9-3"},
			{Length: "x"},
			{Prefix: "0x0"},
			{Path: "/a*b", Payload: "x"},
			{Path: "a", Payload: "x"},
			{Methods: []string{"GET"}, Payload: "x"},
			{Names: []string{"a*b"}},
			{Names: []string{"a"}, Opcode: "text"},
		},
	})
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, want := range []string{
		`unknown preset "vscod": there are vscode, jupyter,`,
		`noise rule 1 "": it says nothing`,
		`noise rule 2 "mine": opcode "ping": want text or binary`,
		`rule 3 "9-3": length "9-3"`, `rule 4 "x": length "x"`, `rule 5 "0x0": prefix "0x0"`,
		`rule 6 "/a*b x": path "/a*b": * may stand at one end only`, `rule 7 "a x": path "a": want it to begin with`,
		`rule 8 "GET x": methods are for requests`, `rule 9 "a*b": names "a*b"`, `rule 10 "text a": names stand alone`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}
