package stream

import (
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Close codes of the IANA registry that RFC 6455 does not name itself.
const (
	// StatusServiceRestart asks the client to connect again.
	StatusServiceRestart = 1012
	// StatusTryAgainLater says that the server can't serve the client now.
	StatusTryAgainLater = 1013
)

// maxReason is what a close frame holds besides its code, in bytes.
const maxReason = ws.MaxControlFramePayloadSize - 2

// closeFrame returns a server's close frame. A reason that is too long is cut
// between two characters: clients fail on half a character.
func closeFrame(code uint16, reason string) []byte {
	if len(reason) > maxReason {
		reason = reason[:maxReason]
		for len(reason) > 0 && !utf8.ValidString(reason) {
			reason = reason[:len(reason)-1]
		}
	}
	body := ws.NewCloseFrameBody(ws.StatusCode(code), reason)
	frame, err := ws.CompileFrame(ws.NewCloseFrame(body))
	if err != nil {
		return nil // only a failing writer fails it, and a buffer doesn't
	}
	return frame
}

// controlFrame returns a server's ping or pong with a payload of at most 125
// bytes.
func controlFrame(op ws.OpCode, payload []byte) []byte {
	return append([]byte{finBit | byte(op), byte(len(payload))}, payload...)
}

// frame returns the server's message, nil if it is longer than a keep-alive can be.
func (k KeepAlive) frame() []byte {
	if len(k.Ping) > ws.MaxControlFramePayloadSize {
		return nil
	}
	op := ws.OpText
	if k.Binary {
		op = ws.OpBinary
	}
	return append([]byte{finBit | byte(op), byte(len(k.Ping))}, k.Ping...)
}

// isCloseFrame reports whether p is one whole close frame of a client.
func isCloseFrame(p []byte) bool {
	s := scanner{masked: true}
	_, boundary := s.scan(p)
	return boundary == len(p) && s.closed && p[0] == finBit|byte(ws.OpClose) && len(p) == 2+maskLength+int(p[1]&lengthBits)
}
