// Package cursor makes and reads the opaque cursors of the event log.
//
// A cursor names an epoch of the log, a user and the number of the last event seen, and carries a tag by which only this
// schema's services can have made it. It is guaranteed that one user's cursor is refused for another user, that a
// cursor of another epoch is refused, and that nothing else can be passed off as a cursor. A cursor is no secret and
// grants nothing: reading a log takes the user's token.
package cursor

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/messages/internal/store"
)

// ErrInvalid is the answer to everything that is not a cursor of the user in the epoch.
var ErrInvalid = errors.New("not a cursor of this user's log")

const (
	version = 1
	// A version, an epoch, a user and a number, in big-endian order.
	payloadSize = 1 + 8 + ids.Size + 8
	tagSize     = 16
	size        = payloadSize + tagSize
)

// Make returns the cursor from which the user reads on after the event with the number.
func Make(epoch store.Epoch, user ids.ID, seq int64) string {
	b := make([]byte, 0, size)
	b = append(b, version)
	b = append(b, epoch.ID[:]...)
	b = append(b, user[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(seq))
	b = append(b, tag(epoch, b)...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// Parse returns the number in a cursor, or ErrInvalid.
func Parse(epoch store.Epoch, user ids.ID, text string) (int64, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != size || b[0] != version {
		return 0, ErrInvalid
	}
	payload := b[:payloadSize]
	if !hmac.Equal(b[payloadSize:], tag(epoch, payload)) {
		return 0, ErrInvalid
	}
	if [8]byte(payload[1:9]) != epoch.ID || ids.ID(payload[9:9+ids.Size]) != user {
		return 0, ErrInvalid
	}
	seq := binary.BigEndian.Uint64(payload[9+ids.Size:])
	return int64(seq), nil
}

func tag(epoch store.Epoch, payload []byte) []byte {
	mac := hmac.New(sha256.New, epoch.Key[:])
	mac.Write(payload)
	return mac.Sum(nil)[:tagSize]
}
