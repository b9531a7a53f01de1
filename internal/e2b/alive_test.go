package e2b_test

import (
	"encoding/binary"
	"net/http"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sandman-proxy/sandman/internal/e2b"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/filesystem"
	"github.com/sandman-proxy/sandman/internal/sandboxd/envdrpc/process"
)

// framed is a message as a stream carries it.
func framed(flags byte, message []byte) string {
	return string(append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message))), message...))
}

func command(event *process.ProcessEvent) proto.Message { return &process.StartResponse{Event: event} }

func TestEvents_tellsThemFromSignsOfLife(t *testing.T) {
	t.Parallel()
	sign := command(&process.ProcessEvent{Event: &process.ProcessEvent_Keepalive{Keepalive: &process.ProcessEvent_KeepAlive{}}})
	watching := &filesystem.WatchDirResponse{Event: &filesystem.WatchDirResponse_Keepalive{Keepalive: &filesystem.WatchDirResponse_KeepAlive{}}}
	output := command(&process.ProcessEvent{Event: &process.ProcessEvent_Data{Data: &process.ProcessEvent_DataEvent{Output: &process.ProcessEvent_DataEvent_Stdout{Stdout: []byte("keepalive")}}}})
	end := command(&process.ProcessEvent{Event: &process.ProcessEvent_End{End: &process.ProcessEvent_EndEvent{Exited: true}}})
	for format, marshal := range map[string]func(proto.Message) ([]byte, error){"json": protojson.Marshal, "proto": proto.Marshal} {
		frame := func(m proto.Message) string {
			b, err := marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			return framed(0, b)
		}
		tests := []struct {
			name, stream string
			want         bool
		}{
			{"a sign of life", frame(sign), false},
			{"two of them", frame(sign) + frame(sign), false},
			{"a watch's sign of life", frame(watching), false},
			{"output", frame(output), true},
			{"output behind a sign of life", frame(sign) + frame(output), true},
			{"output before one", frame(output) + frame(sign), true},
			{"the end of the process", frame(end), true},
			{"the end of the stream", framed(2, []byte("{}")), true},
			{"what is compressed", framed(1, []byte("\x0a\x02\x22\x00")), true},
			{"a long message", framed(0, make([]byte, 1<<16)), true},
			{"an empty message", framed(0, nil), true},
			{"no such stream", "HTTP/1.1 200 OK, and so on", true},
		}
		for _, tt := range tests {
			t.Run(format+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				for size := 1; size <= len(tt.stream); size = size*2 + 1 {
					events := e2b.NewEvents(http.Header{"Content-Type": {"application/connect+" + format}})
					got := false
					for rest := tt.stream; rest != ""; {
						n := min(size, len(rest))
						got = events.In([]byte(rest[:n])) || got
						rest = rest[n:]
					}
					if got != tt.want {
						t.Errorf("in pieces of %d bytes: %t, want %t", size, got, tt.want)
					}
				}
			})
		}
	}
}

func TestNewEvents_ofOtherAnswersIsNone(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"", "application/json", "application/connect", "text/event-stream"} {
		if e2b.NewEvents(http.Header{"Content-Type": {kind}}) != nil {
			t.Errorf("%q is taken for a stream of events", kind)
		}
	}
}
