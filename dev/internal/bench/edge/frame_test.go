package edge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// serverFrame writes a text frame as a server does.
func serverFrame(payload string) []byte {
	switch n := len(payload); {
	case n < 126:
		return append([]byte{0x81, byte(n)}, payload...)
	case n < 1<<16:
		return append(binary.BigEndian.AppendUint16([]byte{0x81, 126}, uint16(n)), payload...)
	default:
		return append(binary.BigEndian.AppendUint64([]byte{0x81, 127}, uint64(n)), payload...)
	}
}

func TestCutFrameTakesWholeFramesOfEveryLength(t *testing.T) {
	var sent []byte
	var want []string
	for _, length := range []int{0, 1, 125, 126, 127, 65535, 65536, 3} {
		payload := strings.Repeat("x", length)
		want = append(want, payload)
		sent = append(sent, serverFrame(payload)...)
	}
	for _, end := range []int{0, 1, 2, 3, 100, len(sent) - 5, len(sent) - 1} {
		rest := sent[:end]
		for {
			f, after, ok, err := cutFrame(rest)
			if err != nil {
				t.Fatalf("after %d bytes: %v", end, err)
			}
			if !ok {
				break
			}
			rest = after
			if f.opcode != opText {
				t.Errorf("a text frame has opcode %#x", f.opcode)
			}
		}
	}
	rest := sent
	for i, payload := range want {
		f, after, ok, err := cutFrame(rest)
		if err != nil || !ok || string(f.payload) != payload {
			t.Fatalf("frame %d has %d bytes (%v, %v), want %d", i, len(f.payload), ok, err, len(payload))
		}
		rest = after
	}
	if len(rest) != 0 {
		t.Errorf("%d bytes are left over", len(rest))
	}
}

func TestCutFrameRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for name, sent := range map[string][]byte{
		"a part of a message":    {0x01, 1, 'x'},
		"the rest of a message":  {0x80, 1, 'x'},
		"a compressed message":   {0xC1, 1, 'x'},
		"a frame of a client":    clientFrame(opText, []byte("x")),
		"a message beyond bound": {0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0},
	} {
		if _, _, ok, err := cutFrame(sent); err == nil {
			t.Errorf("%s is taken (%v)", name, ok)
		}
	}
}

func FuzzCutFrame(f *testing.F) {
	f.Add(serverFrame("x"))
	f.Add(append(serverFrame(strings.Repeat("x", 200)), 0x89, 0))
	f.Add([]byte{0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x88, 2, 3, 232})
	f.Fuzz(func(t *testing.T, sent []byte) {
		message, rest, ok, err := cutFrame(sent)
		switch {
		case err != nil && ok:
			t.Error("an error, and a frame")
		case err == nil && !ok && !bytes.Equal(rest, sent):
			t.Error("less than a frame was taken off")
		case ok && !bytes.HasSuffix(sent, append(bytes.Clone(message.payload), rest...)):
			t.Error("the payload and the rest are not the end of what was sent")
		case ok && len(rest) > len(sent)-2-len(message.payload):
			t.Error("a frame without a head")
		}
	})
}

func TestEventNumber(t *testing.T) {
	payload := func(prefix string, number int) []byte {
		return fmt.Appendf(nil, `{%s"message":{"body":"%s","seq":1}}`, prefix, body(number))
	}
	place := 0
	for _, tt := range []struct {
		prefix string
		number int
	}{{"", 0}, {"", 42}, {`"cursor":"longer",`, 4_000_000_007}, {"", 9_999_999_999}} {
		number, at, err := eventNumber(payload(tt.prefix, tt.number), place)
		if err != nil || number != tt.number {
			t.Errorf("the number of event %d, looked for at %d, is %d, %v", tt.number, place, number, err)
		}
		place = at
	}
	for _, other := range []string{
		"", "{}", `{"type":"ping"}`, `{"body":"`, `{"body":"123456789`, `{"body":"123456789x and more"}`, strings.Repeat("x", 200),
	} {
		for _, place := range []int{0, 9, 50} {
			if number, _, err := eventNumber([]byte(other), place); !errors.Is(err, errNoEvent) {
				t.Errorf("%q, looked at from %d, is event %d, %v", other, place, number, err)
			}
		}
	}
}
