package sendq

import "encoding/binary"

// Op is what a frame is.
type Op byte

// The operation codes of RFC 6455 that a server needs, and Raw for bytes that are sent as they are.
const (
	Raw   Op = 0
	Text  Op = 1
	Close Op = 8
	Ping  Op = 9
	Pong  Op = 10
)

// Frame is a message to a client, in up to three parts: what many connections are sent is in memory once, and only what
// surrounds it is each connection's own. The parts must not be changed once the frame is pushed.
type Frame struct {
	Op               Op
	Head, Body, Tail []byte
}

func (f Frame) size() int { return len(f.Head) + len(f.Body) + len(f.Tail) }

func (f Frame) appendTo(dst []byte) []byte {
	dst = append(dst, f.Head...)
	dst = append(dst, f.Body...)
	return append(dst, f.Tail...)
}

// Plain appends the frame's parts and nothing else.
func Plain(dst []byte, f Frame) []byte { return f.appendTo(dst) }

// WebSocket appends the frame as a server sends it on a WebSocket: whole and unmasked.
func WebSocket(dst []byte, f Frame) []byte {
	if f.Op == Raw {
		return f.appendTo(dst)
	}
	const final = 0x80
	dst = append(dst, final|byte(f.Op))
	switch n := f.size(); {
	case n <= 125:
		dst = append(dst, byte(n))
	case n <= 0xffff:
		dst = binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
	return f.appendTo(dst)
}
