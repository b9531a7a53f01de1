package caddymodule

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sandman-proxy/sandman/internal/session"
	"github.com/sandman-proxy/sandman/internal/wake"
)

// asleep is a server, of HTTP/1.1 and HTTP/2 in plain text, that answers as for a
// sandbox that could not be woken.
func asleep(t *testing.T) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = refuse(w, r, target, &wake.NotYetError{State: session.Paused, RetryAfter: time.Second})
	}))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

func TestRefuse_isUnavailableToGRPC(t *testing.T) {
	t.Parallel()
	conn, err := grpc.NewClient(asleep(t).Listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Invoke(t.Context(), "/a.B/C", new(emptypb.Empty), new(emptypb.Empty))
	if got := status.Code(err); got != codes.Unavailable {
		t.Errorf("a call: %v", err)
	}
	s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/a.B/D")
	if err == nil {
		err = s.RecvMsg(new(emptypb.Empty))
	}
	if got := status.Code(err); got != codes.Unavailable {
		t.Errorf("a stream: %v", err)
	}
}

func TestRefuse_isUnavailableToConnect(t *testing.T) {
	t.Parallel()
	srv := asleep(t)
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2.CloseIdleConnections)
	for name, opts := range map[string][]connect.ClientOption{
		"connect": nil, "connect JSON": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
		"connect GET": {connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects)},
	} {
		c := connect.NewClient[emptypb.Empty, emptypb.Empty](&http.Client{Transport: h2}, srv.URL+"/a.B/C", opts...)
		for kind, call := range map[string]func(context.Context) error{
			"unary": func(ctx context.Context) error {
				_, err := c.CallUnary(ctx, connect.NewRequest(new(emptypb.Empty)))
				return err
			},
			"stream": func(ctx context.Context) error {
				s, err := c.CallServerStream(ctx, connect.NewRequest(new(emptypb.Empty)))
				if err != nil {
					return err
				}
				s.Receive()
				return s.Err()
			},
		} {
			err := call(t.Context())
			if got := connect.CodeOf(err); got != connect.CodeUnavailable {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
			if want := "sandbox is PAUSED: " + wake.ErrHeld.Error(); kind == "unary" && (name == "connect" || name == "connect GET") && err.(*connect.Error).Message() != want { //nolint:errorlint // CodeOf has found one
				t.Errorf("%s says %q, wanted %q", name, err, want)
			}
		}
	}
}

// What says that it is no program of these protocols is answered as everybody.
func TestDialectOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		method, target, kind string
		want                 dialect
	}{
		{"POST", "/a.B/C", "application/grpc", dialectGRPC},
		{"POST", "/a.B/C", "application/grpc-web+proto", dialectGRPC},
		{"POST", "/a.B/C", "application/connect+json; charset=utf-8", connectStream},
		{"POST", "/a.B/C", "application/json", plain},
		{"GET", "/a.B/C?encoding=json&connect=v1&message=", "", connectUnary},
		{"GET", "/a.B/C", "application/grpc", plain},
		{"PUT", "/", "application/grpc", plain},
		{"POST", "/", ";;", plain},
	} {
		r := httptest.NewRequest(tt.method, tt.target, nil)
		r.Header.Set("Content-Type", tt.kind)
		if got := dialectOf(r); got != tt.want {
			t.Errorf("%s %s with %q: %d, wanted %d", tt.method, tt.target, tt.kind, got, tt.want)
		}
	}
}
