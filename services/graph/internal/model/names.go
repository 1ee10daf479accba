package model

import (
	"encoding/base64"
	"encoding/binary"
	"unicode/utf8"

	"chatapp.dev/internal/platform/ids"
)

// encoding writes ids and cursors so that they need no escaping in JSON, URLs and file names.
var encoding = base64.RawURLEncoding.Strict()

// Kind is the type that a global id names.
type Kind byte

// The kinds. Their values are part of every id that a client has kept, and never change.
const (
	KindUser         Kind = 'u'
	KindConversation Kind = 'c'
	KindMessage      Kind = 'm'
)

// GlobalID is what an opaque id of the schema holds.
type GlobalID struct {
	Kind Kind
	// UUID is the user's or the conversation's; a message is named by its conversation and Seq.
	UUID ids.ID
	// Seq is 0 but for a message.
	Seq int64
}

const (
	shortIDLen = 1 + ids.Size
	longIDLen  = 1 + ids.Size + 8
)

// String returns the text that a client sees.
func (g GlobalID) String() string {
	raw := make([]byte, 0, longIDLen)
	raw = append(raw, byte(g.Kind))
	raw = append(raw, g.UUID[:]...)
	if g.Kind == KindMessage {
		raw = binary.BigEndian.AppendUint64(raw, uint64(g.Seq))
	}
	return encoding.EncodeToString(raw)
}

// ParseGlobalID reads the text that String made, and refuses all other.
func ParseGlobalID(text string) (GlobalID, bool) {
	raw, ok := decode(text, longIDLen)
	if !ok || len(raw) < shortIDLen {
		return GlobalID{}, false
	}
	id := GlobalID{Kind: Kind(raw[0]), UUID: ids.ID(raw[1:shortIDLen])}
	switch {
	case (id.Kind == KindUser || id.Kind == KindConversation) && len(raw) == shortIDLen:
		return id, true
	case id.Kind == KindMessage && len(raw) == longIDLen:
		id.Seq = int64(binary.BigEndian.Uint64(raw[shortIDLen:]))
		return id, id.Seq > 0
	default:
		return GlobalID{}, false
	}
}

// ParseIDOf reads the global id of a user or a conversation, and refuses that of anything else.
func ParseIDOf(kind Kind, text string) (ids.ID, bool) {
	id, ok := ParseGlobalID(text)
	if !ok || id.Kind != kind {
		return ids.ID{}, false
	}
	return id.UUID, true
}

// The first byte of a connection's cursor, so that a cursor of one list is not taken for one of another.
const (
	messageCursor      = 's'
	userCursor         = 'n'
	conversationCursor = 'p'
)

const (
	messageCursorLen      = 1 + 8
	maxUserCursorLen      = 1 + 128
	conversationCursorLen = 1 + 8 + ids.Size
)

// MessageCursor returns the cursor of a message in its conversation.
func MessageCursor(seq int64) string {
	raw := make([]byte, 0, messageCursorLen)
	raw = append(raw, messageCursor)
	raw = binary.BigEndian.AppendUint64(raw, uint64(seq))
	return encoding.EncodeToString(raw)
}

// ParseMessageCursor reads what MessageCursor made, and refuses all other.
func ParseMessageCursor(text string) (seq int64, ok bool) {
	raw, ok := decode(text, messageCursorLen)
	if !ok || len(raw) != messageCursorLen || raw[0] != messageCursor {
		return 0, false
	}
	seq = int64(binary.BigEndian.Uint64(raw[1:]))
	return seq, seq > 0
}

// UserCursor returns the cursor of a user in a list ordered by username.
func UserCursor(username string) string {
	return encoding.EncodeToString(append([]byte{userCursor}, username...))
}

// ParseUserCursor reads what UserCursor made, and refuses all other.
func ParseUserCursor(text string) (username string, ok bool) {
	raw, ok := decode(text, maxUserCursorLen)
	if !ok || len(raw) < 2 || raw[0] != userCursor || !utf8.Valid(raw) {
		return "", false
	}
	return string(raw[1:]), true
}

// ConversationPosition is a conversation's place in its participant's list.
type ConversationPosition struct {
	// LastMessageAtUs is the time of the newest message: microseconds since the Unix epoch.
	LastMessageAtUs int64
	ConversationID  ids.ID
}

// maxTimeUs is the last moment that a database knows, the end of the year 9999.
const maxTimeUs = 253_402_300_799_999_999

// Cursor returns the position as a cursor.
func (p ConversationPosition) Cursor() string {
	raw := make([]byte, 0, conversationCursorLen)
	raw = append(raw, conversationCursor)
	raw = binary.BigEndian.AppendUint64(raw, uint64(p.LastMessageAtUs))
	raw = append(raw, p.ConversationID[:]...)
	return encoding.EncodeToString(raw)
}

// ParseConversationCursor reads what Cursor made, and refuses all other.
func ParseConversationCursor(text string) (ConversationPosition, bool) {
	raw, ok := decode(text, conversationCursorLen)
	if !ok || len(raw) != conversationCursorLen || raw[0] != conversationCursor {
		return ConversationPosition{}, false
	}
	p := ConversationPosition{
		LastMessageAtUs: int64(binary.BigEndian.Uint64(raw[1:9])),
		ConversationID:  ids.ID(raw[9:]),
	}
	return p, p.LastMessageAtUs >= 0 && p.LastMessageAtUs <= maxTimeUs
}

// decode reads base64 of at most maxLen bytes.
func decode(text string, maxLen int) ([]byte, bool) {
	if len(text) > encoding.EncodedLen(maxLen) {
		return nil, false
	}
	raw, err := encoding.DecodeString(text)
	// The decoder skips line breaks, which would give a thing more than one name.
	if err != nil || encoding.EncodedLen(len(raw)) != len(text) {
		return nil, false
	}
	return raw, true
}
