package cursor

import (
	"encoding/base64"
	"testing"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/messages/internal/store"
)

func epoch(n byte) store.Epoch {
	e := store.Epoch{ID: [8]byte{n}}
	e.Key[0] = n
	return e
}

func TestCursorReturnsTheNumberItWasMadeOf(t *testing.T) {
	user := ids.New()
	for _, seq := range []int64{0, 1, 1 << 40} {
		got, err := Parse(epoch(1), user, Make(epoch(1), user, seq))
		if err != nil || got != seq {
			t.Errorf("Parse(Make(%d)) = %d, %v", seq, got, err)
		}
	}
}

func TestCursorOfAnotherUserEpochOrKeyIsRefused(t *testing.T) {
	user := ids.New()
	sameIDOtherKey := epoch(1)
	sameIDOtherKey.Key[31] = 9
	for name, text := range map[string]string{
		"another user":  Make(epoch(1), ids.New(), 5),
		"another epoch": Make(epoch(2), user, 5),
		"another key":   Make(sameIDOtherKey, user, 5),
		"empty":         "",
		"not base64":    "!!!",
		"garbage":       "aGVsbG8",
		"too long":      Make(epoch(1), user, 5) + "AAAA",
	} {
		if _, err := Parse(epoch(1), user, text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestEveryChangedByteIsRefused(t *testing.T) {
	user := ids.New()
	raw, err := base64.RawURLEncoding.DecodeString(Make(epoch(1), user, 5))
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		changed := append([]byte(nil), raw...)
		changed[i] ^= 1
		if _, err := Parse(epoch(1), user, base64.RawURLEncoding.EncodeToString(changed)); err == nil {
			t.Errorf("byte %d changed: accepted", i)
		}
	}
}

func FuzzParse(f *testing.F) {
	user := ids.New()
	f.Add(Make(epoch(1), user, 5))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if seq, err := Parse(epoch(1), user, text); err == nil && Make(epoch(1), user, seq) != text {
			t.Errorf("%q is a second spelling of a cursor", text)
		}
	})
}
