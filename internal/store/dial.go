package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// DialConfig says how to reach an etcd cluster.
type DialConfig struct {
	Endpoints          []string // "host:port" or a URL; at least one
	Username, Password string   // "": no authentication
	TLS                *tls.Config
	Logger             *zap.Logger // default none
}

// Times in which a dead connection is noticed. Servers refuse pings that come
// more often than every 5 s.
const (
	pingAfter   = 6 * time.Second
	pingTimeout = 3 * time.Second
)

// Dial gives a client for an etcd cluster. It makes no call: a cluster that
// is away is found when it is back, and a wrong password shows at the first
// use. The caller closes the client.
func Dial(cfg DialConfig) (*clientv3.Client, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("dialling etcd: no endpoint is given")
	}
	if (cfg.Username == "") != (cfg.Password == "") {
		return nil, errors.New("dialling etcd: user name and password go together")
	}
	log := cfg.Logger
	if log == nil {
		log = zap.NewNop()
	}
	var later lateLogin
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            cfg.Endpoints,
		Username:             cfg.Username,
		Password:             cfg.Password,
		TLS:                  cfg.TLS,
		Logger:               log,
		DialKeepAliveTime:    pingAfter,
		DialKeepAliveTimeout: pingTimeout,
		DialOptions:          []grpc.DialOption{grpc.WithChainUnaryInterceptor(later.intercept)},
	})
	if err != nil {
		return nil, fmt.Errorf("dialling etcd at %v: %w", cfg.Endpoints, err)
	}
	later.open.Store(true)
	return client, nil
}

// lateLogin keeps clientv3.New from logging in, for which it would wait. The
// client logs in when its first call is refused.
type lateLogin struct{ open atomic.Bool }

func (l *lateLogin) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if !l.open.Load() && method == pb.Auth_Authenticate_FullMethodName {
		return rpctypes.ErrGRPCAuthNotEnabled // "no token is needed"
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}
