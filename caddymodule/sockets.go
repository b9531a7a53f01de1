package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sandman-proxy/sandman/internal/handover"
)

// Caddy opens a socket of its own for each configuration, and closes the former
// one's with the connections that wait in it. So the servers that lead to
// Sandman listen on networks of ours, which share one, see handover. What they
// are for HTTP/3, Caddy shares by itself.
const sharedPrefix = "sandman-"

// sharedNetworks are those that can be shared, with what they are for HTTP/3.
var sharedNetworks = map[string]string{"tcp": "udp", "tcp4": "udp4", "tcp6": "udp6"}

func init() {
	for network, h3 := range sharedNetworks {
		caddy.RegisterNetwork(sharedPrefix+network, func(ctx context.Context, _, host, portRange string, portOffset uint, cfg net.ListenConfig) (any, error) {
			addr, err := caddy.ParseNetworkAddress(caddy.JoinNetworkAddress(network, host, portRange))
			if err != nil {
				return nil, err
			}
			return listenShared(ctx, addr, portOffset, cfg)
		})
		caddyhttp.RegisterNetworkHTTP3(sharedPrefix+network, h3)
	}
}

func listenShared(ctx context.Context, addr caddy.NetworkAddress, portOffset uint, cfg net.ListenConfig) (net.Listener, error) {
	l, err := sockets.Listen(handover.Config{
		Address:   addr.Network + "/" + addr.JoinHostPort(portOffset),
		KeepAlive: cfg.KeepAliveConfig,
		Open: func() (net.Listener, error) {
			ln, err := addr.Listen(context.WithoutCancel(ctx), portOffset, cfg)
			if err != nil {
				return nil, err
			}
			return ln.(net.Listener), nil
		},
	})
	if err != nil {
		return nil, err
	}
	config, ok := ctx.(caddy.Context)
	if !ok {
		l.Lead(ctx)
		return l, nil
	}
	app, err := appOf(config)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	app.whenStarted(func() { l.Lead(ctx) })
	return l, nil
}

// whenStarted calls f when a has started: until then requests would wait for
// that, or for ever if it fails, and the former configuration serves on. Caddy
// starts one app after the other, in any order, before it stops the former ones.
func (a *App) whenStarted(f func()) {
	if a.running != nil {
		f()
		return
	}
	a.onStart = append(a.onStart, f)
}

var sockets handover.Sockets

// shareSockets lets the server that ctx's module is part of lose no request at
// a reload. It leaves alone what can't be shared, and all of it where the
// operator has set `shutdown_delay`: Caddy would wait it out at reloads, too,
// as it doesn't know that the addresses stay open.
func shareSockets(ctx caddy.Context) error {
	srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return nil
	}
	for _, m := range ctx.Modules() {
		if app, ok := m.(*caddyhttp.App); ok && app.ShutdownDelay > 0 {
			return nil
		}
	}
	var shared bool
	for i, listen := range srv.Listen {
		addr, err := caddy.ParseNetworkAddress(listen)
		if err != nil {
			return fmt.Errorf("listener address %q: %w", listen, err)
		}
		if _, ok := sharedNetworks[addr.Network]; !ok || addr.StartPort == 0 {
			continue
		}
		addr.Network = sharedPrefix + addr.Network
		srv.Listen[i] = addr.String()
		shared = true
	}
	if shared {
		srv.RegisterConnState(handover.ConnState)
	}
	return nil
}
