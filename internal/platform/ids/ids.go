// Package ids has the one type of identifier in ChatApp: a UUID of version 7.
//
// It is guaranteed that ids made by one process are distinct and ascend in the order in which they were made, so that
// rows appended by one process land next to each other in an index. Between processes the order is that of their
// clocks, to the millisecond: nothing may take the order of ids for the order of events.
package ids

import (
	"bytes"
	"database/sql/driver"
	"fmt"

	"github.com/google/uuid"
)

// Size is the length of an ID in bytes.
const Size = 16

// canonicalLen is the length of 8-4-4-4-12 hexadecimal digits. Other spellings of a UUID (braces, urn:uuid:, no
// hyphens) are refused, so that an id has one spelling but for the case of its letters.
const canonicalLen = 36

// ID identifies a user, a session, a conversation, a message or anything else that has a row. The zero ID identifies
// nothing.
type ID [Size]byte

// New returns a fresh ID, a UUID of version 7.
func New() ID {
	// NewV7 fails only when the system has no randomness, in which case Go itself has ended the process before.
	return ID(uuid.Must(uuid.NewV7()))
}

// Parse reads the canonical text of a UUID of any version, in either case.
func Parse(s string) (ID, error) {
	if len(s) != canonicalLen {
		return ID{}, fmt.Errorf("an id has %d characters, not %d", canonicalLen, len(s))
	}
	u, err := uuid.Parse(s)
	if err != nil {
		return ID{}, fmt.Errorf("parse id: %w", err)
	}
	return ID(u), nil
}

// FromBytes reads the 16 bytes that Bytes returned.
func FromBytes(b []byte) (ID, error) {
	if len(b) != Size {
		return ID{}, fmt.Errorf("an id has %d bytes, not %d", Size, len(b))
	}
	return ID(b), nil
}

// String returns the canonical text, in lower case.
func (id ID) String() string { return uuid.UUID(id).String() }

// Bytes returns a copy of the 16 bytes.
func (id ID) Bytes() []byte { return id[:] }

// IsZero says whether the ID identifies nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders ids by their bytes, as BINARY(16) columns do: -1, 0 or 1.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText makes JSON and logs show the canonical text and not sixteen numbers.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is Parse.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// Value implements driver.Valuer with the 16 raw bytes of a BINARY(16) column.
func (id ID) Value() (driver.Value, error) { return id.Bytes(), nil }

// Scan implements sql.Scanner for a BINARY(16) column. NULL is refused: a nullable column is read into a sql.Null[ID].
func (id *ID) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok {
		return fmt.Errorf("scan id: want %d bytes, not %T", Size, src)
	}
	scanned, err := FromBytes(b)
	if err != nil {
		return fmt.Errorf("scan id: %w", err)
	}
	*id = scanned
	return nil
}
