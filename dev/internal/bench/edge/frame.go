package edge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The opcodes of RFC 6455.
const (
	opContinuation = 0x0
	opText         = 0x1
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// maxPayload bounds a frame. The longest message of ChatApp is far shorter.
const maxPayload = 1 << 20

// frame is a message, or a control frame, from a server. Servers that cut a message into several frames are not understood.
type frame struct {
	opcode  byte
	payload []byte
}

// cutFrame takes the first frame off what a server has sent; the frame's payload is a part of it. Of less than a frame it
// takes nothing, and ok is false.
func cutFrame(sent []byte) (f frame, rest []byte, ok bool, err error) {
	const (
		final, reserved, opcode = 0x80, 0x70, 0x0f
		masked, length          = 0x80, 0x7f
		next16, next64          = 126, 127
	)
	if len(sent) < 2 {
		return frame{}, sent, false, nil
	}
	f.opcode = sent[0] & opcode
	if sent[0]&final == 0 || sent[0]&reserved != 0 || sent[1]&masked != 0 || f.opcode == opContinuation {
		return frame{}, nil, false, fmt.Errorf("a frame begins with %#x, which this client does not understand", sent[:2])
	}
	head, size := 2, uint64(sent[1]&length)
	switch size {
	case next16:
		if head = 4; len(sent) < head {
			return frame{}, sent, false, nil
		}
		size = uint64(binary.BigEndian.Uint16(sent[2:]))
	case next64:
		if head = 10; len(sent) < head {
			return frame{}, sent, false, nil
		}
		size = binary.BigEndian.Uint64(sent[2:])
	}
	if size > maxPayload {
		return frame{}, nil, false, fmt.Errorf("a frame of %d bytes", size)
	}
	end := head + int(size)
	if len(sent) < end {
		return frame{}, sent, false, nil
	}
	f.payload = sent[head:end]
	return f, sent[end:], true, nil
}

// clientFrame writes a frame as a client must, masked: with a key of zeros, which leaves the payload as it is.
func clientFrame(opcode byte, payload []byte) []byte {
	const final, masked, next16 = 0x80, 0x80, 126
	b := []byte{final | opcode}
	if len(payload) < next16 {
		b = append(b, masked|byte(len(payload)))
	} else {
		b = append(b, masked|next16)
		b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	}
	b = append(b, 0, 0, 0, 0)
	return append(b, payload...)
}

// An event's number is what its message's body begins with, in so many digits.
const numberDigits = 10

// text is what follows the number in every body.
const text = " The quick brown fox jumps over the lazy dog, and then it does so once more."

// body returns the text of the message with a number.
func body(number int) string { return fmt.Sprintf("%0*d%s", numberDigits, number, text) }

var bodyMark = []byte(`"body":"`)

// eventNumber returns the number in an event, and where it stands. The place is where it is looked for first, since all
// events of a server are alike.
func eventNumber(payload []byte, place int) (number, at int, err error) {
	if end := place; end < len(bodyMark) || end > len(payload) || !bytes.Equal(payload[end-len(bodyMark):end], bodyMark) {
		i := bytes.Index(payload, bodyMark)
		if i < 0 {
			return 0, 0, errNoEvent
		}
		place = i + len(bodyMark)
	}
	if len(payload) < place+numberDigits {
		return 0, 0, errNoEvent
	}
	for _, digit := range payload[place : place+numberDigits] {
		if digit < '0' || digit > '9' {
			return 0, 0, errNoEvent
		}
		number = 10*number + int(digit-'0')
	}
	return number, place, nil
}

var errNoEvent = errors.New("no event of this benchmark")
