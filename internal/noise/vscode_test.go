package noise_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandman-proxy/sandman/internal/noise"
)

const vscodePath = "/stable-409c64e0/?reconnectionToken=0fc1b9f0&reconnection=false&skipWebSocketFrames=false"

// protocol makes a message of VS Code's protocol.
func protocol(kind byte, id uint32, body string) string {
	head := make([]byte, 13)
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], id)
	binary.BigEndian.PutUint32(head[5:], 77)
	binary.BigEndian.PutUint32(head[9:], uint32(len(body)))
	return string(head) + body
}

func keepAlive() string { return protocol(9, 0, "") }
func ack() string       { return protocol(3, 0, "") }

// hostCall is a request on the extension host's connection.
func hostCall(name, arguments string) string {
	body := "\x01\x00\x00\x00\x8e\x62" + string(byte(len(name))) + name + "\x00\x00\x00" + string(byte(len(arguments))) + arguments
	return protocol(1, 300, body)
}

// channelCall is a request on the management connection.
func channelCall(channel, command, arguments string) string {
	return protocol(1, 300, "\x04\x04\x06\x64\x06\xf9\x02\x01"+string(byte(len(channel)))+channel+"\x01"+string(byte(len(command)))+command+arguments)
}

func text(s string) noise.Message { return noise.Message{Size: int64(len(s)), Payload: []byte(s)} }
func bin(s string) noise.Message {
	return noise.Message{Binary: true, Size: int64(len(s)), Payload: []byte(s)}
}

func TestVSCode_isKeptFromGivingUp(t *testing.T) {
	t.Parallel()
	s := stream(t, vscodePath, "")
	// the most that compression can make of the longest message that it follows is less than
	// one piece of a server's larger message
	const inflates, piece, patience = 1032, 256 << 10, 20 * time.Second
	k := s.KeepAlive()
	if k == nil || k.Ping != "\x09"+strings.Repeat("\x00", 12) || !k.Binary || k.Pong != "" || k.Every > patience/2 ||
		k.After == 0 || k.Silence == 0 || k.After*inflates >= piece {
		t.Errorf("%+v", k)
	}
	if s.WantsServer() {
		t.Error("its server has nothing to tell")
	}
}

func TestVSCode_namesAndTypesTellAPersonFromThePage(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, payload string
		want          noise.Verdict
	}{
		{"keep-alive", keepAlive(), noise.Swallow},
		{"ack", ack(), noise.Swallow},
		{"several that may be swallowed", ack() + keepAlive() + ack(), noise.Swallow},
		{"handshake", protocol(2, 0, `{"type":"auth"}`), noise.Noise},
		{"window inactive", hostCall("$onDidChangeWindowActive", "[false]"), noise.Noise},
		{"the page's log", hostCall("$onFileEvent", "[]"), noise.Noise},
		{"shell output", hostCall("$shellExecutionData", `[1,"x"]`), noise.Noise},
		{"a port that was opened", hostCall("$onDidTunnelsChange", "[]"), noise.Noise},
		{"extensions for a port", hostCall("$activateByEvent", `["onTunnel",0]`), noise.Noise},
		{"title of a terminal", hostCall("$acceptTerminalTitleChange", `[1,"bash"]`), noise.Noise},
		{"title on management", channelCall("remoteterminal", "$updateTitle", "\x00"), noise.Noise},
		{"flow control", channelCall("remoteterminal", "$acknowledgeDataEvent", "\x00"), noise.Noise},
		{"telemetry ping", channelCall("telemetry", "ping", "\x00"), noise.Noise},
		{"telemetry", channelCall("telemetry", "logTelemetry", "\x05\x10{\"eventName\":\"a\"}"), noise.Noise},
		{"extensions' manifest", channelCall("extensions", "getExtensionsControlManifest", "\x00"), noise.Noise},
		{"acknowledged", protocol(1, 5, "\x05\x00\x00\x00\x10"), noise.Noise},
		{"empty answer", protocol(1, 5, "\x07\x00\x00\x00\x10"), noise.Noise},
		{"answer of undefined", protocol(1, 5, "\x04\x02\x06\xc9\x01\x06\x81\x01\x00"), noise.Noise},
		{"noise and a swallowed one", keepAlive() + hostCall("$onFileEvent", "[]"), noise.Noise},

		{"terminal key", channelCall("remoteterminal", "$input", "\x04\x02\x06\x01\x01\x01q"), noise.Counts},
		{"terminal key, extension host", hostCall("$acceptTerminalInteraction", "[1]"), noise.Counts},
		{"a letter in the editor", hostCall("$acceptModelChanged", "[]"), noise.Counts},
		{"a person behind noise", keepAlive() + hostCall("$onFileEvent", "[]") + hostCall("$acceptModelChanged", "[]"), noise.Counts},
		{"a person before noise", hostCall("$acceptModelChanged", "[]") + keepAlive(), noise.Counts},
		{"a command, by telemetry alone", channelCall("telemetry", "logTelemetry", "\x05\x1e{\"eventName\":\"workbenchActionExecuted\"}"), noise.Counts},
		{"an extension that is installed", channelCall("extensions", "install", "\x00"), noise.Counts},
		{"extensions for a command", hostCall("$activateByEvent", `["onCommand:x",0]`), noise.Counts},
		{"an answer with a choice", protocol(1, 5, "\x09\x00\x00\x00\x10\x00\x00\x00\x01\x31"), noise.Counts},
		{"an answer with something in it", protocol(1, 5, "\x04\x02\x06\xc9\x01\x06\x81\x01\x01\x01a"), noise.Counts},
		{"a name that only begins like noise", hostCall("$onFileEventOfMine", "[]"), noise.Counts},
		{"a channel of the same command", channelCall("mine", "getExtensionsControlManifest", "\x00"), noise.Counts},
		{"an empty regular message", protocol(1, 5, ""), noise.Counts},
		{"an unknown type", protocol(4, 0, ""), noise.Counts},
		{"a keep-alive with a body", protocol(9, 0, "x"), noise.Counts},
		{"an ack with an id", protocol(3, 7, ""), noise.Counts},
		{"no protocol", "q", noise.Counts},
		{"nothing", "", noise.Counts},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := stream(t, vscodePath, "")
			if got := s.Judge(bin(tt.payload)); got != tt.want {
				t.Errorf("%q: %v, want %v", tt.payload, got, tt.want)
			}
			if got := s.Judge(bin(keepAlive())); tt.want != noise.Counts && got != noise.Swallow {
				t.Errorf("a keep-alive after it: %v", got)
			}
		})
	}
}

func TestVSCode_everyCutOfAStreamFindsThePerson(t *testing.T) {
	t.Parallel()
	noisy := keepAlive() + hostCall("$onFileEvent", "[]") + channelCall("telemetry", "ping", "\x00") + ack()
	person := hostCall("$acceptModelChanged", "[0]")
	whole := noisy + person + noisy
	for cut := 1; cut < len(whole); cut++ {
		s := stream(t, vscodePath, "")
		first, second := s.Judge(bin(whole[:cut])), s.Judge(bin(whole[cut:]))
		if min(first, second) != noise.Counts {
			t.Errorf("cut at %d of %d: %v and %v, the person was not seen", cut, len(whole), first, second)
		}
		if got := s.Judge(bin(noisy)); got != noise.Noise {
			t.Errorf("cut at %d: noise afterwards is %v", cut, got)
		}
	}
}

func TestVSCode_noiseOverSeveralMessagesIsNoise(t *testing.T) {
	t.Parallel()
	event := hostCall("$onFileEvent", strings.Repeat("x", 100))
	s := stream(t, vscodePath, "")
	for i, piece := range []string{event[:60], event[60:90], event[90:] + keepAlive()} {
		if got := s.Judge(bin(piece)); got != noise.Noise {
			t.Errorf("piece %d: %v", i, got)
		}
	}
	if got := s.Judge(bin(keepAlive())); got != noise.Swallow {
		t.Errorf("after the last piece: %v", got)
	}
}

func TestVSCode_whatCannotBeReadCounts_andTheNextIsReadAgain(t *testing.T) {
	t.Parallel()
	s := stream(t, vscodePath, "")
	event := hostCall("$onFileEvent", strings.Repeat("x", 100))
	s.Judge(bin(event[:60])) // the remainder is in a message that can't be read
	for _, m := range []noise.Message{{Binary: true, Size: 5000}, text("?"), bin("\x01\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff")} {
		if got := s.Judge(m); got != noise.Counts {
			t.Errorf("%v: %v", m, got)
		}
		if got := s.Judge(bin(keepAlive())); got != noise.Swallow {
			t.Errorf("a keep-alive after %v: %v", m, got)
		}
	}
}

func TestVSCode_theHandshakeNamesThePage(t *testing.T) {
	t.Parallel()
	first := stream(t, vscodePath, "")
	again := stream(t, strings.Replace(vscodePath, "reconnection=false", "reconnection=true", 1), "")
	if first.Preset() != "vscode" || first.Key() != "0fc1b9f0" || again.Key() != first.Key() {
		t.Errorf("preset %q, keys %q and %q", first.Preset(), first.Key(), again.Key())
	}
	if first.Resends() || !again.Resends() {
		t.Errorf("resends: first %t, again %t", first.Resends(), again.Resends())
	}
	for _, other := range []string{"/", "/?reconnectionToken=a", "/?reconnection=true", "/?reconnectionToken=a&reconnection=false&skipWebSocketFrames=true"} {
		if p := stream(t, other, "").Preset(); p != "" {
			t.Errorf("%s: preset %q", other, p)
		}
	}
}

// A call is told from the other connection's by its first bytes, whatever the number of the request.
func TestVSCode_anExtensionHostsFourthKindIsNoChannelCall(t *testing.T) {
	t.Parallel()
	body := "\x04\x00\x00\x00\x8e\x62\x0c$onFileEvent\x00\x00\x00\x02[]"
	if got := stream(t, vscodePath, "").Judge(bin(protocol(1, 1, body))); got != noise.Noise {
		t.Errorf("got %v", got)
	}
}

func FuzzJudge(f *testing.F) {
	f.Add([]byte(keepAlive()+hostCall("$onFileEvent", "[]")), []byte(ack()), true)
	f.Add([]byte(channelCall("telemetry", "ping", "\x00")), []byte(`{"event":"ping"`), false)
	f.Add([]byte(`42["typing","q"]`), []byte(`{"header":{"msg_type":"kernel_info_request"}}`), false)
	set, err := noise.New(noise.Config{Rules: []noise.Rule{{Names: []string{"$a*", "typing"}}, {Prefix: "0x00"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, a, b []byte, binary bool) {
		for _, path := range []string{vscodePath, "/api/kernels/1/channels", "/_next/webpack-hmr", "/socket.io/?EIO=4&transport=websocket", "/"} {
			s := set.Stream(get(path), "")
			before := slices.Clone(a)
			v := s.Judge(noise.Message{Binary: binary, Size: int64(len(a)), Payload: a})
			s.Judge(noise.Message{Binary: binary, Size: int64(len(b)), Payload: b})
			if v > noise.Swallow || !slices.Equal(before, a) {
				t.Errorf("%s: verdict %d, payload changed: %t", path, v, !slices.Equal(before, a))
			}
			// what is glued together is worth as much as its worst part, if each part stands for itself
			if path == vscodePath && binary && v == noise.Swallow && len(a) > 0 {
				s := set.Stream(get(path), "")
				if got := s.Judge(bin(string(a) + hostCall("$acceptModelChanged", "[]"))); got != noise.Counts {
					t.Errorf("%q hides a person: %v", a, got)
				}
			}
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	key := keepAlive() + hostCall("$acceptModelChanged", strings.Repeat("x", 200))
	for _, bb := range []struct {
		name, path string
		m          noise.Message
	}{
		{"vscode keep-alive", vscodePath, bin(keepAlive())},
		{"vscode telemetry", vscodePath, bin(channelCall("telemetry", "ping", "\x00"))},
		{"vscode key", vscodePath, bin(key)},
		{"jupyter run", "/api/kernels/1/channels", text(`{"header":{"msg_id":"1","msg_type":"execute_request"},"content":"` + strings.Repeat("x", 300) + `"}`)},
		{"socket.io pong", "/socket.io/?EIO=4&transport=websocket", text("3")},
		{"next ping", "/_next/webpack-hmr", text(`{"event":"ping","tree":[]}`)},
		{"no preset", "/", text("q")},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := stream(b, bb.path, "")
			b.ReportAllocs()
			for b.Loop() {
				s.Judge(bb.m)
			}
		})
	}
}
