package main

import (
	"bufio"
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// Just enough of RFC 6455 to hold connections open and to see that they live,
// at as little as possible of both ends.

const (
	webSocketKey  = "c2FuZGJlbmNoLnNhbmRiZQ=="
	webSocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// echo answers each short text message with the same, until the WebSocket ends.
func echo(conn net.Conn) {
	defer conn.Close()
	for echoMessage(conn) == nil {
	}
}

// acceptWebSocket answers a handshake; more are further lines of its header, each
// with its end.
func acceptWebSocket(w http.ResponseWriter, r *http.Request, more string) (net.Conn, error) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + webSocketGUID)) //nolint:gosec // it is no secret
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s\r\n",
		base64.StdEncoding.EncodeToString(sum[:]), more)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func echoMessage(conn net.Conn) error {
	var head [6]byte // of a masked frame of less than 126 bytes
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	payload := make([]byte, head[1]&0x7f)
	if _, err := io.ReadFull(conn, payload); err != nil {
		return err
	}
	for i := range payload {
		payload[i] ^= head[2+i%4]
	}
	_, err := conn.Write(append([]byte{head[0], byte(len(payload))}, payload...))
	return err
}

// openWebSocket opens one, and sends a message to and fro.
func openWebSocket(ctx context.Context, proxy, target string) (net.Conn, error) {
	conn, err := dialWebSocket(ctx, proxy, target, "")
	if err != nil {
		return nil, err
	}
	if err := sendAndReceive(conn); err != nil {
		return nil, errors.Join(fmt.Errorf("opening a WebSocket: %w", err), conn.Close())
	}
	return conn, nil
}

// dialWebSocket does the handshake; more are further lines of its header, each with
// its end.
func dialWebSocket(ctx context.Context, proxy, target, more string) (net.Conn, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", proxy)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s\r\n",
		u.RequestURI(), u.Host, webSocketKey, more)
	if err == nil {
		err = awaitUpgrade(conn)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening a WebSocket: %w", err), conn.Close())
	}
	return conn, nil
}

func awaitUpgrade(conn net.Conn) error {
	// the server sends nothing unasked, so that nothing is lost in the buffer
	res, err := http.ReadResponse(bufio.NewReaderSize(conn, 512), nil) //nolint:bodyclose // a 101 has none, and the connection lives on
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

// hi is a client's frame, masked with zeros.
const hi = "\x81\x82\x00\x00\x00\x00hi"

func sendAndReceive(conn net.Conn) error {
	if _, err := io.WriteString(conn, hi); err != nil {
		return err
	}
	var got [4]byte
	if _, err := io.ReadFull(conn, got[:]); err != nil {
		return err
	}
	if string(got[2:]) != "hi" {
		return fmt.Errorf("the echo is %q", got[2:])
	}
	return nil
}
